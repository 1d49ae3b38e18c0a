"""Relative depth and a solved camera's points: each frame's factor and offset, one unit for both, and what is said."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.depth import DepthClip, DepthError, KnownCamera, SparsePoints, with_points
from ex4d.depth.point_fit import FEWEST_POINTS, disparity_at
from ex4d.media import FootageInfo
from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.lens_distortion import LensDistortion

FRAMES, WIDTH, HEIGHT, POINTS = 6, 80, 60, 120
FOOTAGE = FootageInfo(path=Path("clip.mp4"), width=WIDTH, height=HEIGHT, frames=FRAMES, fps=Fraction(24))
LENS = intrinsics_matrix(70, 70, WIDTH / 2, HEIGHT / 2)


def ground(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth at pixels of the first frame: a wavy ground that rises towards the horizon."""
    return 2 + 8 * (1 - (y - 0.5) / HEIGHT) ** 2 + 0.3 * np.sin((x - 0.5) / 9)


def true_depth() -> np.ndarray:
    """(T, H, W): the ground, nearer in every frame."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.stack([ground(columns, rows) * (1 - 0.03 * frame) for frame in range(FRAMES)]).astype(np.float32)


def clip_of(depth: np.ndarray, scale: str = "relative") -> DepthClip:
    return DepthClip(FOOTAGE, None, scale, "test depth", "", lambda: iter(depth))  # type: ignore[arg-type]


def points_of(depth: np.ndarray, count: int = POINTS, noise: float = 0.01, wrong: float = 0.2) -> SparsePoints:
    """What a solver would find on some depth: with noise, and a share of points that are on something else."""
    random = np.random.default_rng(0)
    pixels, depths = [], []
    for one in depth:
        pixel = random.uniform(0, 1, (count, 2)) * (WIDTH, HEIGHT)
        column, row = np.floor(pixel).astype(int).T
        found = one[row, column] * (1 + noise * random.standard_normal(count))
        found[: int(wrong * count)] *= random.uniform(0.2, 3, int(wrong * count))
        pixels.append(pixel)
        depths.append(found)
    return SparsePoints.joined(range(FRAMES), pixels, depths)


def relative(depth: np.ndarray) -> np.ndarray:
    """The same depth as a per-image estimator gives it: another factor and offset of disparity in every frame."""
    random = np.random.default_rng(1)
    factor, offset = random.uniform(0.5, 2, (FRAMES, 1, 1)), random.uniform(0.02, 0.2, (FRAMES, 1, 1))
    return (1 / (factor / depth + offset)).astype(np.float32)


def camera() -> KnownCamera:
    poses = np.repeat(np.eye(4)[None], FRAMES, axis=0)
    poses[:, 0, 3] = -0.1 * np.arange(FRAMES)
    return KnownCamera(CameraPath(poses, LENS, WIDTH, HEIGHT), "a test")


def median_error(clip: DepthClip, truth: np.ndarray) -> float:
    return float(np.median(np.abs(np.stack(list(clip)) / truth - 1)))


def test_relative_depth_gets_the_unit_of_the_camera_in_every_frame():
    truth = true_depth()
    found = relative(truth)
    known, fitted = with_points(camera(), clip_of(found), points_of(truth))
    assert median_error(clip_of(found * np.median(truth / found)), truth) > 0.1, "or there would be nothing to fit"
    assert median_error(fitted, truth) < 0.01
    assert fitted.scale == "metric" and "fitted" in fitted.source
    assert not known.notes
    assert np.array_equal(known.path.world_to_camera, camera().path.world_to_camera)


def test_a_solved_camera_takes_the_unit_of_the_depth():
    truth = true_depth()
    solver_unit = 0.37
    known, fitted = with_points(camera(), clip_of(truth, "metric"), points_of(truth).scaled(solver_unit), solved=True)
    moved, before = known.path.world_to_camera[-1, 0, 3], camera().path.world_to_camera[-1, 0, 3]
    assert moved / before == pytest.approx(1 / solver_unit, rel=0.01)
    assert median_error(fitted, truth) == 0, "metric depth stays as it is"
    assert not known.notes


def test_frames_that_hardly_differ_get_hardly_different_fits():
    """Each frame's own fit would flicker with the noise of its few points."""
    truth = true_depth()
    constant = (1 / (0.8 / truth + 0.05)).astype(np.float32)
    points = points_of(truth, count=20, noise=0.05, wrong=0.0)
    _, fitted = with_points(camera(), clip_of(constant), points)
    scale = np.array([np.median(one / exact) for one, exact in zip(fitted, truth, strict=True)])
    alone = []
    for frame in range(FRAMES):
        part = points.of_frame(frame)
        disparity = disparity_at(clip_of(constant), points)[part]
        known = np.isfinite(disparity)
        factor, offset = np.polyfit(disparity[known], 1 / points.depth[part][known], 1)
        alone.append(np.median(1 / (factor / constant[frame] + offset) / truth[frame]))
    assert np.std(np.diff(scale)) < 0.5 * np.std(np.diff(alone))


def test_a_frame_with_too_few_points_takes_its_neighbours_fit_and_is_named():
    truth = true_depth()
    constant = (1 / (0.8 / truth + 0.05)).astype(np.float32)
    points = points_of(truth)
    kept = (points.frame != 3) | (np.arange(len(points)) % (POINTS // 4) == 0)
    few = SparsePoints(points.frame[kept], points.pixel[kept], points.depth[kept])
    known, fitted = with_points(camera(), clip_of(constant), few)
    assert any("frame 3 has" in text and str(FEWEST_POINTS) in text for text in known.notes)
    assert median_error(fitted, truth) < 0.01


def test_depth_without_enough_points_in_any_frame_is_refused():
    truth = true_depth()
    with pytest.raises(DepthError, match=f"no frame has {FEWEST_POINTS}"):
        with_points(camera(), clip_of(relative(truth)), points_of(truth, count=FEWEST_POINTS - 2))


def test_a_frame_whose_pose_contradicts_its_depth_is_named():
    truth = true_depth()
    points = points_of(truth)
    wrong = points.depth.copy()
    part = points.of_frame(4)
    wrong[part] = np.random.default_rng(5).permutation(wrong[part])
    contradicting = SparsePoints(points.frame, points.pixel, wrong)
    known, _ = with_points(camera(), clip_of(relative(truth)), contradicting)
    assert any("contradict" in text and "frame 4" in text for text in known.notes)
    known, _ = with_points(camera(), clip_of(truth, "metric"), contradicting)
    assert any("contradict" in text and "frame 4" in text for text in known.notes)


def test_metric_depth_in_another_unit_than_a_camera_file_tells_the_camera_scale():
    truth = true_depth()
    known, depth = with_points(camera(), clip_of(truth, "metric"), points_of(truth).scaled(0.5))
    assert any("camera scale of 2" in text for text in known.notes)
    assert median_error(depth, truth) == 0


def test_a_camera_of_another_clip_is_said_to_contradict_all_of_it():
    truth = true_depth()
    points = points_of(truth)
    other = SparsePoints(points.frame, points.pixel, np.random.default_rng(2).permutation(points.depth))
    known, _ = with_points(camera(), clip_of(truth, "metric"), other)
    assert any("median frame" in text for text in known.notes)


def test_points_of_an_undistorted_image_find_the_depth_of_the_footage_as_it_is():
    lens = LensDistortion("polynomial", (-0.2, 0.0, 0.0), 70.0, (WIDTH / 2, HEIGHT / 2), WIDTH, HEIGHT)
    x, y = lens.footage_pixels()[::7, ::7].reshape(-1, 2).T
    columns, rows = np.meshgrid(np.arange(0.5, WIDTH, 7), np.arange(0.5, HEIGHT, 7))
    points = SparsePoints.joined([0], [np.stack([columns.ravel(), rows.ravel()], axis=1)], [ground(x, y)])
    disparity = disparity_at(clip_of(true_depth()), points, lens)
    # Beyond the centre of the last pixel there is nothing to interpolate with.
    assert np.nanquantile(np.abs(disparity * points.depth - 1), 0.9) < 0.002
    ignored = disparity_at(clip_of(true_depth()), points)
    assert np.nanquantile(np.abs(ignored * points.depth - 1), 0.9) > 0.01
