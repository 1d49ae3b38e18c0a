"""Solving for the camera of a clip with known cameras, with pycolmap; and clips that have none, or none to be found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ex4d.depth.solver import SolvedCamera, matching, package, solve_camera
from ex4d.depth.solver.features import FeatureDatabase
from ex4d.media import FootageInfo, MotionMask, probe, read_frames, write_png
from ex4d_core.cameras import CameraError, CameraPath, invert_rigid

pytest.importorskip("pycolmap", reason="solving cameras needs the extra colmap")

DATA = Path(__file__).resolve().parents[1] / "data"
FRAMES = 9
KEY_FRAMES = 5


@pytest.fixture(scope="module")
def footage() -> FootageInfo:
    return probe(DATA / "moving_camera" / "footage.mp4", FRAMES)


@pytest.fixture(scope="module")
def truth(footage) -> CameraPath:
    camera = CameraPath.load(DATA / "moving_camera" / "camera.npz", footage.width, footage.height).frames(0, FRAMES)
    return CameraPath(
        camera.world_to_camera @ invert_rigid(camera.world_to_camera[:1]), camera.intrinsics, *camera.size
    )


@pytest.fixture(scope="module", autouse=True)
def few_key_frames() -> Iterator[None]:
    """As in a long clip: every other frame is placed between key frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "MOST_KEY_FRAMES", KEY_FRAMES)
        yield


@pytest.fixture(scope="module")
def solved(footage, truth) -> SolvedCamera:
    return solve_camera(footage, truth.intrinsics)


def motion_errors(path: CameraPath, truth: CameraPath) -> tuple[float, float, float]:
    """Largest errors of rotation in degrees, and of position as a share of the way; and the unit of the solve."""
    found, known = path.camera_to_world[:, :3, 3], truth.camera_to_world[:, :3, 3]
    unit = float((found * known).sum() / (found**2).sum())
    way = np.linalg.norm(np.diff(known, axis=0), axis=1).sum()
    turned = path.world_to_camera[:, :3, :3] @ truth.world_to_camera[:, :3, :3].transpose(0, 2, 1)
    cosine = (np.trace(turned, axis1=1, axis2=2) - 1) / 2
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1))).max()
    return float(angle), float(np.linalg.norm(unit * found - known, axis=1).max() / way), unit


def test_the_camera_of_every_frame_is_found(solved, truth):
    assert solved.camera is not None and not solved.camera.notes
    assert len(solved.camera.path) == FRAMES
    assert np.array_equal(solved.camera.path.world_to_camera[0], np.eye(4))
    angle, position, _ = motion_errors(solved.camera.path, truth)
    assert angle < 1.0
    assert position < 0.08


def test_the_points_are_where_the_scene_is_in_every_frame(solved, truth, footage):
    with np.load(DATA / "moving_camera" / "depth.npz") as stored:
        depth = stored["depth"][:FRAMES] * float(stored["scale"])
    _, _, unit = motion_errors(solved.camera.path, truth)
    points = solved.points
    assert set(points.frame) == set(range(FRAMES)), "frames between key frames have points, too"
    column, row = np.floor(points.pixel).astype(int).T
    error = unit * points.depth / depth[points.frame, row, column] - 1
    assert np.median(np.abs(error)) < 0.05
    assert (points.pixel <= (footage.width, footage.height)).all()


def test_an_unknown_lens_is_solved_for(footage, truth):
    found = solve_camera(footage)
    focal, known = found.camera.path.intrinsics[0, 0, 0], truth.intrinsics[0, 0, 0]
    assert focal == pytest.approx(known, rel=0.15)


def test_an_unknown_lens_is_not_taken_for_a_longer_one_farther_away(monkeypatch):
    """All 20 frames are key frames, and the first pair of little parallax fits a telephoto lens as well."""
    monkeypatch.setattr(matching, "MOST_KEY_FRAMES", 100)
    whole = probe(DATA / "moving_camera" / "footage.mp4")
    known = CameraPath.load(DATA / "moving_camera" / "camera.npz", whole.width, whole.height)
    found = solve_camera(whole).camera
    assert not found.notes and len(found.path) == whole.frames
    assert found.path.intrinsics[0, 0, 0] == pytest.approx(known.intrinsics[0, 0, 0], rel=0.04)


def test_a_clip_is_solved_alike_each_time(solved, footage, truth):
    again = solve_camera(footage, truth.intrinsics)
    assert np.allclose(again.camera.path.world_to_camera, solved.camera.path.world_to_camera, atol=1e-6)
    assert len(again.points) == len(solved.points)


def test_a_camera_that_stood_still_is_said_to(write_clip):
    whole = read_frames(DATA / "sample" / "footage.mp4", count=4)
    images = [np.ascontiguousarray(image[:256, :256]) for image in whole]
    found = solve_camera(write_clip(frames=len(images), images=images))
    assert found.camera is None and found.points is None
    assert any("no parallax" in text and "still" in text for text in found.notes)


def test_a_camera_that_only_turned_has_no_parallax(write_clip):
    """A window that moves over one image: what a long lens sees when it pans."""
    image = next(iter(read_frames(DATA / "sample" / "footage.mp4", count=1)))
    height, width = image.shape[:2]
    size = 4 * (height // 5), 4 * (width // 5)
    images = [np.ascontiguousarray(image[: size[0], left : left + size[1]]) for left in range(0, width // 5, 25)]
    found = solve_camera(write_clip(frames=len(images), images=images))
    assert found.camera is None
    assert any("turned" in text for text in found.notes)


def test_one_frame_has_no_moving_camera(footage):
    assert solve_camera(probe(footage.path, 1)).camera is None


def test_frames_beyond_a_cut_are_named(write_clip, footage):
    images = list(read_frames(footage.path, count=8))
    height, width = images[0].shape[:2]
    images += [image[:height, :width] for image in read_frames(DATA / "sample" / "footage.mp4", count=3)]
    with pytest.raises(CameraError, match=r"frames 8 to 10"):
        solve_camera(write_clip(frames=len(images), images=images))


def test_frames_that_have_nothing_in_common_are_refused(write_clip):
    random = np.random.default_rng(0)
    images = [np.kron(random.integers(0, 255, (24, 32, 3)), np.ones((4, 4, 1))).astype(np.uint8) for _ in range(4)]
    with pytest.raises(CameraError, match="cannot be solved"):
        solve_camera(write_clip(frames=len(images), images=images))


def test_a_clip_without_any_features_is_refused(write_clip):
    images = [np.full((48, 64, 3), 30 * index, np.uint8) for index in range(3)]
    with pytest.raises(CameraError, match="too little in common"):
        solve_camera(write_clip(frames=len(images), images=images))


class Cancelled(Exception):
    """What a job's progress raises when it is cancelled."""


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_it_ends_where_its_progress_says_so(footage, truth, share):
    """Between matches, and within COLMAP's own mapping."""
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append(done / total)
        if done >= share * total:
            raise Cancelled

    with pytest.raises(Cancelled):
        solve_camera(footage, truth.intrinsics, progress=progress)
    assert seen == sorted(seen) and seen[-1] < share + 0.25


def test_without_the_package_it_says_what_to_install(footage, monkeypatch):
    monkeypatch.setattr(package, "find_spec", lambda name: None)
    with pytest.raises(package.SolverUnavailableError, match=r"pycolmap.* with: pip install .*\[colmap\]"):
        solve_camera(footage)


def test_no_feature_is_on_what_a_mask_covers(footage, tmp_path):
    """Neither in the solver's own images, which may be smaller, nor where the mask is of the footage's size."""
    (image,) = read_frames(footage.path, count=1)
    large = image.repeat(5, axis=0).repeat(5, axis=1)
    moving = np.zeros(large.shape[:2], bool)
    moving[:, large.shape[1] // 2 :] = True
    features = FeatureDatabase(tmp_path, large.shape[1], large.shape[0], None)
    assert features.size[0] < large.shape[1]
    counts = features.append(large), features.append(large, moving)
    database = features._database
    whole, kept = (database.read_keypoints(number) for number in (1, 2))
    features.close()
    assert counts == (len(whole), len(kept)) and 0 < len(kept) < len(whole)
    assert kept[:, 0].max() <= features.size[0] / 2
    assert len(kept) == (whole[:, 0] < features.size[0] / 2).sum()


def test_a_mask_of_all_but_a_little_leaves_too_few_points(footage, truth, tmp_path):
    for number in range(FRAMES):
        write_png(tmp_path / f"mask_{number}.png", np.full((footage.height, footage.width, 3), 255, np.uint8))
    with pytest.raises(CameraError, match="cannot be solved"):
        solve_camera(footage, truth.intrinsics, mask=MotionMask.open(tmp_path, footage))
