"""Footage to depth along z: one small interface, depth from files, and the estimators.

Nothing here imports `diffusers` or `transformers` until an estimator that needs them is loaded.
"""

from ex4d.depth.camera_files import read_source_camera, read_source_points
from ex4d.depth.depth_clip import DepthClip, DepthError, DepthEstimator
from ex4d.depth.depth_files import DepthFiles
from ex4d.depth.depth_models import (
    DEPTH_MODELS,
    DepthModel,
    EstimatorUnavailableError,
    UnknownModelError,
)
from ex4d.depth.depth_settings import AUTO, EdgeSettings, EstimatorSettings
from ex4d.depth.estimator_choice import Verdict, create_estimator, verdicts
from ex4d.depth.intrinsics import (
    ASSUMED_FOV_NOTE,
    DEFAULT_FOV_DEGREES,
    KnownIntrinsics,
    intrinsics_from,
    known_intrinsics,
    resolved_intrinsics,
)
from ex4d.depth.point_fit import with_points
from ex4d.depth.solver import solve_camera
from ex4d.depth.source_camera import KnownCamera, resolved_camera
from ex4d.depth.sparse_points import SparsePoints

__all__ = [
    "ASSUMED_FOV_NOTE",
    "AUTO",
    "DEFAULT_FOV_DEGREES",
    "DEPTH_MODELS",
    "DepthClip",
    "DepthError",
    "DepthEstimator",
    "DepthFiles",
    "DepthModel",
    "EdgeSettings",
    "EstimatorSettings",
    "EstimatorUnavailableError",
    "KnownCamera",
    "KnownIntrinsics",
    "SparsePoints",
    "UnknownModelError",
    "Verdict",
    "create_estimator",
    "intrinsics_from",
    "known_intrinsics",
    "read_source_camera",
    "read_source_points",
    "resolved_camera",
    "resolved_intrinsics",
    "solve_camera",
    "verdicts",
    "with_points",
]
