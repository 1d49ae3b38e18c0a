"""Footage to depth along z: one small interface, and the estimator that reads depth from files."""

from .files import DepthFiles
from .interface import DepthClip, DepthError, DepthEstimator
from .intrinsics import ASSUMED_FOV_NOTE, DEFAULT_FOV_DEGREES, IntrinsicsError, intrinsics_from

__all__ = [
    "ASSUMED_FOV_NOTE",
    "DEFAULT_FOV_DEGREES",
    "DepthClip",
    "DepthError",
    "DepthEstimator",
    "DepthFiles",
    "IntrinsicsError",
    "intrinsics_from",
]
