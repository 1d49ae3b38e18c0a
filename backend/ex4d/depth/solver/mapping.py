"""Poses of the key frames and the points that they see: COLMAP's incremental mapping, then robust bundle adjustment.

Features on moving subjects match, too, but their points do not stay where the camera's motion says: what misses its
place by more than a pixel is taken out, and the rest is adjusted again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.depth.solver.features import FeatureDatabase, frame_name
from ex4d.depth.solver.package import SEED, Cancellation, colmap

# Degrees between the rays of the first pair, tried in turn: handheld clips seldom reach COLMAP's own 16, and with less
# than a degree or two the first points are so uncertain that the solve may go astray. Of an unknown lens, little
# parallax may be taken for a long lens far away.
_FIRST_ANGLES, _FIRST_ANGLES_OF_UNKNOWN_LENS = (4.0, 1.5), (8.0, 4.0, 1.5)
_LEAST_ANGLE = 0.5  # degrees; points with less say nothing about depth
_ENOUGH = 0.95  # share of the key frames in a solve that is good enough to try no other
_FEWEST_POINTS = 20  # that a frame must see
_ROUNDS = 3
_LARGEST_ERROR = 1.5  # pixels of the working size; beyond, a feature is on something that moved, or matched by mistake
# Pixels, about a feature's own error: beyond it, Cauchy's loss takes residuals less and less seriously. With 0.5, what
# moved by less than a pixel from frame to frame drew the path off by more than 1 % of its length.
_LOSS_SCALE = 0.2
# Points of so many key frames, or of this share of a short clip's, tell the shape of the whole path. Those of fewer
# frames tell only how it goes on there, and let it drift: on things that move a little, all of them one way.
_LONG_TRACK, _LONG_SHARE = 16, 0.5
_LEAST_KEPT = 0.8  # share of what frames see that a path by long tracks must still explain
_MOST_ITERATIONS, _TOLERANCE = 100, 1e-7  # of bundle adjustment, and by what share its cost must still fall
_ADJUSTING = 0.3  # share of the time that bundle adjustment takes


class Mapping:
    """COLMAP's reconstruction of the key frames.

    Attributes:
        reconstruction: pycolmap's.
        frames: those with a pose, ascending.
    """

    def __init__(self, reconstruction: Any) -> None:
        """Take those frames of a reconstruction that see enough points."""
        self.reconstruction = reconstruction
        seen = {image.image_id - 1: image.num_points3D for image in reconstruction.images.values() if image.has_pose}
        self.frames = sorted(frame for frame, points in seen.items() if points >= _FEWEST_POINTS)

    @property
    def camera(self) -> Any:
        """The one camera of all frames, with its lens."""
        return next(iter(self.reconstruction.cameras.values()))

    def intrinsics(self) -> np.ndarray:
        """(3, 3) in pixels of the working size."""
        return np.asarray(self.camera.calibration_matrix(), dtype=np.float64)

    def pose(self, frame: int) -> np.ndarray:
        """(4, 4) world to camera, of one of `frames`."""
        return np.vstack([self.reconstruction.image(frame + 1).cam_from_world().matrix(), [0, 0, 0, 1]])

    def seen(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (n, 2) of the features of one of `frames` that have a point, and the points (n, 3) in the world."""
        numbers, positions = self.points_of(frame)
        pixels = [one.xy for one in self.reconstruction.image(frame + 1).points2D if one.has_point3D()]
        return np.array(pixels, dtype=np.float64).reshape(-1, 2), positions[numbers >= 0]

    def points_of(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """For each feature of a frame: the number of its point, -1 without, and where that is, (n,) and (n, 3)."""
        features = self.reconstruction.image(frame + 1).points2D
        numbers = np.array([one.point3D_id if one.has_point3D() else -1 for one in features], dtype=np.int64)
        positions = np.full((len(numbers), 3), np.nan)
        for place in np.flatnonzero(numbers >= 0):
            positions[place] = self.reconstruction.point3D(int(numbers[place])).xyz
        return numbers, positions


def map_key_frames(
    features: FeatureDatabase, keys: Sequence[int], folder: Path, progress: Callable[[float], None]
) -> Mapping | None:
    """Solve for the key frames.

    Args:
        features: with matches between the key frames.
        folder: empty, for COLMAP's own files.
        progress: called with the share that is done; what it raises ends the work.

    Returns:
        The solve with most frames; None where nothing could be solved.
    """
    best: Mapping | None = None
    for angle in _FIRST_ANGLES if features.lens_known else _FIRST_ANGLES_OF_UNKNOWN_LENS:
        for reconstruction in _mapped(features, keys, folder, angle, progress):
            _adjust(reconstruction, features.lens_known, progress)
            found = Mapping(_straightened(reconstruction, progress))
            if found.frames and (best is None or len(found.frames) > len(best.frames)):
                best = found
        if best is not None and len(best.frames) >= _ENOUGH * len(keys):
            break
    progress(1.0)
    return best


def _mapped(
    features: FeatureDatabase, keys: Sequence[int], folder: Path, angle: float, progress: Callable[[float], None]
) -> list[Any]:
    package = colmap()
    options = package.IncrementalPipelineOptions()
    options.image_names = [frame_name(frame) for frame in keys]
    options.extract_colors = options.multiple_models = False
    options.min_model_size = min(3, len(keys))
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = SEED
    options.mapper.init_min_tri_angle = angle
    options.mapper.filter_min_tri_angle = options.triangulation.min_angle = _LEAST_ANGLE
    if features.lens_known:
        options.ba_refine_focal_length = options.mapper.abs_pose_refine_focal_length = False
    cancellation, placed = Cancellation(package, progress), 2

    def count() -> None:
        nonlocal placed
        placed += 1
        cancellation.report((1 - _ADJUSTING) * placed / len(keys))

    with cancellation.ending():
        found = package.incremental_mapping(
            features.path, folder, folder, options, next_image_callback=count, cancellation_token=cancellation.token
        )
    return list(found.values())


def _straightened(reconstruction: Any, progress: Callable[[float], None]) -> Any:
    """The same with poses by long tracks alone, and all points by these; itself where that loses frames or points."""
    images = [image for image in reconstruction.images.values() if image.has_pose]
    least = min(_LONG_TRACK, max(3, round(_LONG_SHARE * len(images))))
    long = {number for number, point in reconstruction.points3D.items() if point.track.length() >= least}
    seen = (sum(one.has_point3D() and one.point3D_id in long for one in image.points2D) for image in images)
    if min(seen, default=0) < _FEWEST_POINTS:
        return reconstruction
    skeleton, straight = copy.deepcopy(reconstruction), copy.deepcopy(reconstruction)
    for number in set(skeleton.points3D) - long:
        skeleton.delete_point3D(number)
    _adjust(skeleton, True, progress)
    for image in images:
        straight.frame(image.frame_id).rig_from_world = skeleton.frame(image.frame_id).rig_from_world
    _adjust(straight, True, progress, poses_known=True)
    kept = straight.compute_num_observations() / max(1, reconstruction.compute_num_observations())
    whole = Mapping(straight).frames == Mapping(reconstruction).frames
    return straight if whole and kept >= _LEAST_KEPT else reconstruction


def _adjust(
    reconstruction: Any, lens_known: bool, progress: Callable[[float], None], *, poses_known: bool = False
) -> None:
    """Bundle adjustment that outliers do not pull, and without them again."""
    package = colmap()
    options = package.BundleAdjustmentOptions()
    options.refine_focal_length, options.refine_principal_point = not lens_known, False
    options.refine_extra_params = options.print_summary = False
    options.ceres.loss_function_type, options.ceres.loss_function_scale = package.LossFunctionType.CAUCHY, _LOSS_SCALE
    options.ceres.solver_options.max_num_iterations = _MOST_ITERATIONS
    options.ceres.solver_options.function_tolerance = _TOLERANCE
    for number in range(_ROUNDS):
        progress(1 - _ADJUSTING * (1 - number / _ROUNDS))
        config = package.BundleAdjustmentConfig()
        for image in reconstruction.images.values():
            if image.has_pose:
                config.add_image(image.image_id)
                if poses_known:
                    config.set_constant_rig_from_world_pose(image.frame_id)
        if not poses_known:
            config.fix_gauge(package.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        package.create_default_bundle_adjuster(options, config, reconstruction).solve()
        package.ObservationManager(reconstruction).filter_all_points3D(_LARGEST_ERROR, _LEAST_ANGLE)
