"""Footage to depth along z: one small interface, depth from files, and the estimators.

Nothing here imports `diffusers` or `transformers` until an estimator that needs them is loaded.
"""

from ex4d.depth.camera_files import CameraFileError, read_source_camera
from ex4d.depth.depth_clip import DepthClip, DepthError, DepthEstimator
from ex4d.depth.depth_files import DepthFiles
from ex4d.depth.depth_models import (
    DEPTH_MODELS,
    DepthModel,
    EstimatorUnavailableError,
    UnknownModelError,
)
from ex4d.depth.edges import EdgeSettings
from ex4d.depth.estimator_choice import AUTO, EstimatorSettings, Verdict, create_estimator, verdicts
from ex4d.depth.intrinsics import (
    ASSUMED_FOV_NOTE,
    DEFAULT_FOV_DEGREES,
    IntrinsicsError,
    KnownLens,
    focal_in_widths,
    intrinsics_from,
    known_lens,
    lens_for,
)
from ex4d.depth.mist import MistSettings

__all__ = [
    "ASSUMED_FOV_NOTE",
    "AUTO",
    "DEFAULT_FOV_DEGREES",
    "DEPTH_MODELS",
    "CameraFileError",
    "DepthClip",
    "DepthError",
    "DepthEstimator",
    "DepthFiles",
    "DepthModel",
    "EdgeSettings",
    "EstimatorSettings",
    "EstimatorUnavailableError",
    "IntrinsicsError",
    "KnownLens",
    "MistSettings",
    "UnknownModelError",
    "Verdict",
    "create_estimator",
    "focal_in_widths",
    "intrinsics_from",
    "known_lens",
    "lens_for",
    "read_source_camera",
    "verdicts",
]
