"""Footage to depth along z: one small interface, depth from files, and the estimators.

Nothing here imports `diffusers` or `transformers` until an estimator that needs them is loaded.
"""

from .camera_files import CameraFileError, read_source_camera
from .choice import AUTO, EstimatorSettings, Verdict, create_estimator, verdicts
from .edges import EdgeSettings
from .files import DepthFiles
from .interface import DepthClip, DepthError, DepthEstimator
from .intrinsics import (
    ASSUMED_FOV_NOTE,
    DEFAULT_FOV_DEGREES,
    REFERENCE_FOCAL_PX,
    IntrinsicsError,
    KnownLens,
    intrinsics_from,
    lens_for,
    lens_from_footage,
)
from .mist import MistSettings
from .models import (
    DEPTH_MODELS,
    DepthModel,
    EstimatorUnavailableError,
    LicenceError,
    UnknownModelError,
    WeightsError,
)

__all__ = [
    "ASSUMED_FOV_NOTE",
    "AUTO",
    "DEFAULT_FOV_DEGREES",
    "DEPTH_MODELS",
    "REFERENCE_FOCAL_PX",
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
    "LicenceError",
    "MistSettings",
    "UnknownModelError",
    "Verdict",
    "WeightsError",
    "create_estimator",
    "intrinsics_from",
    "lens_for",
    "lens_from_footage",
    "read_source_camera",
    "verdicts",
]
