"""Pivots: where the point that a move is about is, and that moves keep it in its place in the picture."""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest

from ex4d_core.cameras import CameraPath, intrinsics_matrix, look_at
from ex4d_core.errors import RequestError
from ex4d_core.pivots import Pivot, middle_distance
from ex4d_core.scene_manifest import SceneManifest
from ex4d_core.trajectories import PRESETS, Trajectory, arc, build_path, has_pivot, move, orbit, shot_path

WIDTH, HEIGHT, FRAMES = 48, 30, 4
LENS = intrinsics_matrix(40.0, 40.0, 25.0, 14.0)
AHEAD, ASIDE = np.array([0.0, 0.0, 3.0]), np.array([0.9, -0.4, 2.5])


@dataclass
class Clip:
    """Footage of a table near the lower border before a far wall, by a camera that moves to the right and turns."""

    manifest: SceneManifest

    def color(self) -> np.ndarray:
        raise AssertionError("moves need no colour")

    def depth(self) -> np.ndarray:
        depth = np.full((FRAMES, HEIGHT, WIDTH), 8.0, np.float32)
        depth[:, 26:] = 1.0
        depth[2, 8:22, 14:34] = 6.0  # somebody has walked into the middle
        return depth

    def source_camera(self) -> CameraPath:
        poses = np.tile(np.eye(4), (FRAMES, 1, 1))
        poses[:, 0, 3] = -0.5 * np.arange(FRAMES)
        poses[1:, 0, 0] = poses[1:, 2, 2] = -1.0  # looks back
        return CameraPath(poses, LENS, WIDTH, HEIGHT)


@pytest.fixture
def clip() -> Clip:
    manifest = SceneManifest("clip", FRAMES, WIDTH, HEIGHT, Fraction(24), "centered", (1.0, 8.0), 1.15)
    return Clip(replace(manifest, middle_distance=8.0))


def pixels(path: CameraPath, point: np.ndarray) -> np.ndarray:
    """(T, 2) where the cameras of a path see a point."""
    seen = np.einsum("tij,j->ti", path.world_to_camera[:, :3, :3], point) + path.world_to_camera[:, :3, 3]
    image = np.einsum("tij,tj->ti", path.intrinsics, seen)
    return image[:, :2] / image[:, 2:]


@pytest.mark.parametrize(
    ("place", "frame", "expected"),
    [
        ("middle", 0, (0, 0, 8.0)),
        ("middle", 2, (0, 0, 6.0)),
        ("nearest", 0, (0, 0, 1.15)),
        (2.5, 0, (0, 0, 2.5)),
        ("2.5", 0, (0, 0, 2.5)),
        ((30, 27), 0, (5.5 / 40, 13.5 / 40, 1.0)),
        ("30.9,5", 0, (8 * 5.5 / 40, 8 * -8.5 / 40, 8.0)),
        ((0.5, 0.25, 4.0), 0, (0.5, 0.25, 4.0)),
        (np.array([0.5, 0.25, -4.0]), 1, (-1.0, 0.25, 4.0)),
    ],
)
def test_where_a_pivot_is(clip, place, frame, expected):
    pivot = Pivot.of(place)
    np.testing.assert_allclose(pivot.in_view(clip, frame), expected, atol=1e-6)
    assert Pivot.of(pivot.plain()) == pivot


def test_the_nearest_pivot_is_the_same_in_any_unit(clip):
    metres, millimetres = clip.depth()[0], Clip(clip.manifest)
    millimetres.depth = lambda: 1000 * metres[None]
    assert Pivot("nearest").in_view(millimetres, 0)[2] == pytest.approx(1000 * Pivot("nearest").in_view(clip, 0)[2])


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("table", "'table'"),
        ("1,2,3,4", "expected middle"),
        ("1,nan", "expected middle"),
        ((), "expected middle"),
        (True, "True"),
        (None, "None"),
        (-2.0, "above 0, not -2"),
        ((48, 3), "48,3 is outside .* x must be below 48, y below 30"),
        ((3, -1), "3,-1 is outside"),
        ((0.0, 0.0, -1.5), r"0,0,-1.5 is behind the camera .* frame 0 .* 1.5 scene units"),
    ],
)
def test_a_pivot_that_is_not_there_says_why(clip, place, message):
    with pytest.raises(RequestError, match=message):
        shot_path(orbit(20, pivot=place), clip)


def test_moves_are_about_the_middle_and_the_originals_about_its_own_point(clip):
    of_middle = build_path(orbit(20), FRAMES, LENS, WIDTH, HEIGHT, 8.0)
    np.testing.assert_allclose(shot_path(orbit(20), clip).world_to_camera, of_middle.world_to_camera)
    of_subject = build_path(arc(20), FRAMES, LENS, WIDTH, HEIGHT, 1.15)
    np.testing.assert_allclose(shot_path(arc(20), clip).world_to_camera, of_subject.world_to_camera)


def test_moves_of_an_older_scene_stay_as_they_were(clip):
    older = Clip(replace(clip.manifest, middle_distance=None))
    for first_frame in (0, 2):
        path = shot_path(orbit(20), older, frames=2, first_frame=first_frame)
        begin = older.source_camera().world_to_camera[first_frame]
        expected = build_path(orbit(20), 2, LENS, WIDTH, HEIGHT, 1.15).world_to_camera @ begin
        np.testing.assert_allclose(path.world_to_camera, expected)


@pytest.mark.parametrize("pivot", [AHEAD, ASIDE], ids=["ahead", "aside"])
@pytest.mark.parametrize("preset", ["orbit", "dolly_in", "dolly_out", "dolly_zoom"])
def test_a_pivot_keeps_its_place_in_the_picture(preset, pivot):
    path = build_path(Trajectory(preset, elevation=15.0 if preset == "orbit" else 0.0), 9, LENS, WIDTH, HEIGHT, pivot)
    np.testing.assert_allclose(path.world_to_camera[0], np.eye(4), atol=1e-12)
    seen = pixels(path, pivot)
    np.testing.assert_allclose(seen, np.tile(seen[:1], (9, 1)), atol=1e-9)
    assert not np.allclose(path.world_to_camera[-1], np.eye(4), atol=0.1)


def test_a_crane_keeps_the_pivot_on_its_line_and_the_horizon_level():
    path = build_path(Trajectory("crane"), 9, LENS, WIDTH, HEIGHT, ASIDE)
    np.testing.assert_allclose(pixels(path, ASIDE)[:, 1], pixels(path, ASIDE)[0, 1], atol=1e-9)
    np.testing.assert_allclose(path.world_to_camera[:, 0, :3], np.tile([1.0, 0.0, 0.0], (9, 1)), atol=1e-12)
    assert path.camera_to_world[-1, 1, 3] == pytest.approx(-0.4 * np.linalg.norm(ASIDE))


def test_moves_about_a_point_ahead_look_at_it():
    for preset in ("orbit", "crane"):
        path = build_path(Trajectory(preset), 9, LENS, WIDTH, HEIGHT, AHEAD)
        expected = look_at(path.camera_to_world[:, :3, 3], AHEAD)
        np.testing.assert_allclose(path.world_to_camera, expected, atol=1e-12)


def test_an_orbit_around_a_point_aside_keeps_its_distance():
    path = build_path(Trajectory("orbit", 90.0, 20.0), 9, LENS, WIDTH, HEIGHT, ASIDE)
    distances = np.linalg.norm(path.camera_to_world[:, :3, 3] - ASIDE, axis=1)
    np.testing.assert_allclose(distances, np.linalg.norm(ASIDE))


def test_a_dolly_zoom_keeps_the_size_of_a_subject_aside():
    path = build_path(Trajectory("dolly_zoom", 0.5), 9, LENS, WIDTH, HEIGHT, ASIDE)
    sizes = path.intrinsics[:, 0, 0] / (ASIDE[2] - path.camera_to_world[:, 2, 3])
    np.testing.assert_allclose(sizes, sizes[0])


@pytest.mark.parametrize("preset", [name for name in PRESETS if not has_pivot(name)])
def test_moves_about_their_own_point_or_none_take_no_pivot(preset):
    with pytest.raises(RequestError, match=f"preset {preset} .* takes no pivot"):
        Trajectory(preset, pivot=Pivot("nearest"))
    assert Trajectory(preset, pivot=Pivot.of("middle")) == Trajectory(preset)


def test_the_middle_is_the_median_of_the_middle_third():
    depth = np.ones((9, 12))
    depth[3:6, 4:8] = 5.0
    depth[4, 5] = 100.0  # a speck does not count
    assert middle_distance(depth) == 5.0
    assert middle_distance(np.linspace(2.0, 4.0, 90).reshape(9, 10)) == 3.0
    with pytest.raises(RequestError, match="not nan"):
        middle_distance(np.full((3, 3), np.nan))


def test_a_thin_subject_before_a_far_wall_is_the_middle():
    depth = 7.0 + 0.2 * np.random.default_rng(0).random((90, 120))
    depth[:, 55:60] = 3.0 + 0.1 * np.random.default_rng(1).random((90, 5))  # an eighth of the middle third
    assert 3.0 < middle_distance(depth) < 3.1
    assert middle_distance(10 * depth) == pytest.approx(10 * middle_distance(depth))
    depth[:, 56:60] = 7.1
    depth[:60] = 7.1  # what is left of it is a speck
    assert 7.0 < middle_distance(depth) < 7.2


def test_ground_has_no_subject_of_its_own():
    rows = np.arange(31, 61)[:, None]
    ground = np.broadcast_to(60.0 / rows, (30, 40))
    assert middle_distance(ground) == np.median(ground[10:20, 13:27])


def test_a_pivot_by_the_name_of_a_move():
    assert move("truck", pivot=2).pivot == Pivot((2.0,))
    assert Trajectory.from_wire(orbit(30, pivot=(1, 2)).to_wire()) == orbit(30, pivot="1,2")
