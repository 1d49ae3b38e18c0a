"""Keyframe reduction: few Bezier keys whose curves pass close to every frame. Numpy only.

A segment of a Blender curve whose handles end a third of the way is a cubic Hermite polynomial of time, so the fit is
linear least squares: the keys lie on the path, and the slopes at the keys minimise the error in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Segments whose error is at least this share of the largest one are split together.
_SPLIT_SHARE = 0.7


@dataclass(frozen=True)
class ReducedKeys:
    """Common keys of several curves.

    Attributes:
        at: (K,) indices of the frames that have a key, rising; the first and the last frame have one.
        slopes: (K, C) change in value for each frame, at the keys.
    """

    at: np.ndarray
    slopes: np.ndarray


def reduce_keyframes(values: np.ndarray, bounds: np.ndarray) -> ReducedKeys | None:
    """Find keys with which every curve stays within its bound on every frame.

    A segment with too large an error gets a key in its middle, until none has.

    Args:
        values: (T, C) of C curves on T frames, at least two.
        bounds: (C,) the largest error of each.

    Returns:
        None if more than half of the frames would need a key.
    """
    scaled = values / bounds
    at = np.array([0, len(values) - 1])
    while len(at) <= len(values) // 2:
        slopes, errors = _fit(scaled, at)
        if errors.max() <= 1.0:
            return ReducedKeys(at, slopes * bounds)
        split = errors > max(1.0, _SPLIT_SHARE * errors.max())
        at = np.union1d(at, (at[:-1][split] + at[1:][split]) // 2)
    return None


def _fit(values: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, C) slopes at keys on the path, and (K - 1,) the largest error of any curve in each segment."""
    frames = np.arange(len(values))
    segment = np.clip(np.searchsorted(at, frames, side="right") - 1, 0, len(at) - 2)
    length = np.diff(at)[segment]
    time = (frames - at[segment]) / length
    slope_basis = np.zeros((len(values), len(at)))
    slope_basis[frames, segment] = length * time * (1 - time) ** 2
    slope_basis[frames, segment + 1] = length * time**2 * (time - 1)
    begin, end = values[at[segment]], values[at[segment + 1]]
    # The error with the path's own slopes. Where two keys have no frame between them, the fit does not determine the
    # slopes, and the small regularisation keeps the path's.
    slopes = np.gradient(values, axis=0)[at]
    error = begin + (end - begin) * (time**2 * (3 - 2 * time))[:, None] - values + slope_basis @ slopes
    normal_matrix = slope_basis.T @ slope_basis + 1e-9 * np.eye(len(at))
    correction = np.linalg.solve(normal_matrix, -slope_basis.T @ error)
    errors = np.abs(error + slope_basis @ correction).max(axis=1)
    return slopes + correction, np.maximum.reduceat(errors, at[:-1])
