"""Camera moves: EX-4D's presets exactly as its golden data has them, and ours as their names promise."""

import numpy as np
import pytest

from ex4d_core.cameras import from_reference, intrinsics_matrix
from ex4d_core.errors import RequestError
from ex4d_core.trajectories import PRESETS, Trajectory, build_path, subject_distance

LENS = intrinsics_matrix(500, 500, 256, 256)


def move(preset: str, frames: int = 25, distance: float = 3.0, **settings):
    return build_path(Trajectory(preset, **settings), frames, LENS, 512, 512, distance)


def eyes(path) -> np.ndarray:
    return path.camera_to_world[:, :3, 3]


@pytest.mark.parametrize("preset", ["30", "60", "90", "180"])
def test_the_originals_presets_are_the_originals(golden_geometry, preset):
    path = move(preset, 49, subject_distance(golden_geometry["depth"][0]))
    assert np.abs(path.world_to_camera - from_reference(golden_geometry[f"extrinsics_{preset}"])).max() < 1e-6


@pytest.mark.parametrize("preset", [name for name in PRESETS])
def test_every_move_starts_at_the_source_camera(preset):
    path = move(preset)
    assert np.allclose(path.world_to_camera[0], np.eye(4), atol=1e-12)
    assert np.allclose(path.intrinsics[0], LENS)


def test_a_negative_angle_is_the_mirror_image():
    for degrees in ("45", "180"):
        assert np.allclose(eyes(move("-" + degrees)), eyes(move(degrees)) * [-1, 1, 1])


def test_an_orbit_keeps_its_distance_and_its_subject_in_the_middle():
    path = move("orbit", amount=120, elevation=20)
    subject = np.array([0, 0, 3.0])
    assert np.allclose(np.linalg.norm(eyes(path) - subject, axis=1), 3.0)
    in_camera = np.einsum("tij,j->ti", path.world_to_camera[:, :3, :3], subject) + path.world_to_camera[:, :3, 3]
    assert np.allclose(in_camera, [0, 0, 3.0])
    assert eyes(path)[-1, 1] == pytest.approx(-3.0 * np.sin(np.radians(20)))


def test_a_dolly_zoom_keeps_the_size_of_the_subject():
    path = move("dolly_zoom", amount=0.5)
    size = path.intrinsics[:, 0, 0] / (3.0 - eyes(path)[:, 2])
    assert np.allclose(size, size[0])
    assert eyes(path)[-1, 2] == pytest.approx(1.5)


def test_zooms_change_the_lens_and_nothing_else():
    assert move("zoom_in", amount=2).intrinsics[-1, 0, 0] == pytest.approx(1000)
    assert move("zoom_out", amount=2).intrinsics[-1, 1, 1] == pytest.approx(250)
    assert np.allclose(move("zoom_in").world_to_camera, np.eye(4))


def test_truck_and_pedestal_do_not_turn_and_a_crane_keeps_looking():
    assert np.allclose(eyes(move("truck", amount=0.5))[-1], [1.5, 0, 0])
    assert np.allclose(eyes(move("pedestal", amount=0.5))[-1], [0, -1.5, 0])
    assert np.allclose(move("truck").world_to_camera[:, :3, :3], np.eye(3))
    assert move("crane", amount=0.5).world_to_camera[-1, 2, 1] > 0


def test_easing_moves_the_same_way_at_another_pace():
    linear, eased = (eyes(move("truck", easing=easing))[:, 0] for easing in ("linear", "ease_in_out"))
    assert eased[-1] == pytest.approx(linear[-1])
    assert eased[1] < linear[1] / 2
    assert eased[len(eased) // 2] == pytest.approx(linear[len(linear) // 2])


def test_a_single_frame_is_the_start():
    assert np.allclose(move("orbit", frames=1).world_to_camera, np.eye(4)[None])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "spiral"}, "'spiral'"),
        ({"preset": "nan"}, "'nan'"),
        ({"preset": "orbit", "easing": "bouncy"}, "easing .* 'bouncy'"),
        ({"preset": "orbit", "amount": float("nan")}, "amount must be a number"),
        ({"preset": "orbit", "elevation": 90.0}, "elevation .* above -90 and below 90"),
        ({"preset": "dolly_in", "amount": 1.0}, "behind the pivot"),
        ({"preset": "zoom_in", "amount": 0.0}, "positive focal length factor"),
    ],
)
def test_moves_that_cannot_be_made_say_why(settings, message):
    with pytest.raises(RequestError, match=message):
        move(**settings)


def test_the_subject_is_the_nearest_thing_within_the_border():
    depth = np.full((4, 5), 3.0)
    depth[2, 2], depth[0, 3], depth[3, 0] = 2.0, 0.5, 0.1
    assert subject_distance(depth) == pytest.approx(2.15)
    assert subject_distance(np.array([[4.0, 3.0], [5.0, 6.0]])) == pytest.approx(3.15)


def test_a_subject_needs_a_real_depth():
    for depth in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(RequestError, match="nearest depth"):
            subject_distance(np.full((4, 5), depth))
