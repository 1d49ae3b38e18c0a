"""Blender's mist pass to depth: distances from the camera, between a start and an end, as values from 0 to 1.

Cycles writes ((distance - start) / depth) ^ falloff, where distance is measured along the ray, not along the camera's
axis; checked against its Z pass for all three falloffs. Unlike the Z pass, mist is averaged over a pixel's samples.
"""

from __future__ import annotations

import numpy as np

from ex4d.depth.depth_clip import DepthError
from ex4d_core.sources import MIST_FALLOFFS, MistPass


def mist_to_depth(stored: np.ndarray, mist: MistPass, intrinsics: np.ndarray, what: str) -> np.ndarray:
    """Depth along z.

    Args:
        stored: (H, W) mist, any floating type.
        mist: the mist settings of the world that was rendered.
        intrinsics: (3, 3) in pixels.
        what: file and frame, for messages.

    Returns:
        (H, W) float32, infinite where the mist is full: how much farther such a point lies is not in the pass.

    Raises:
        DepthError: points nearer than the start, whose distance is not in the pass; or values outside 0 to 1.
    """
    values = stored.astype(np.float64)
    low, high = np.nanmin(values), np.nanmax(values)
    # Rounding may put values a little outside.
    if low < -1e-3 or high > 1.001:
        raise DepthError(
            f"{what}: mist must be from 0 to 1, not {low:g} to {high:g}. Name the channel of the mist pass "
            "(--depth-key), or, if this is a depth (Z) pass, leave out --mist."
        )
    nearer = int((values <= 0).sum())
    if nearer:
        raise DepthError(
            f"{what}: {nearer} of {values.size} points have no mist: they are nearer than its start ({mist.start:g}), "
            "and how near is not in the pass. Render it with a smaller start."
        )
    distance = mist.start + mist.depth * values ** (1 / MIST_FALLOFFS[mist.falloff])
    height, width = values.shape
    depth = np.where(values >= 1, np.inf, distance / ray_lengths(height, width, intrinsics))
    return depth.astype(np.float32)


def ray_lengths(height: int, width: int, intrinsics: np.ndarray) -> np.ndarray:
    """(H, W): distance along a pixel's ray for each unit along z, at pixel centres."""
    x = (np.arange(width) + 0.5 - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (np.arange(height) + 0.5 - intrinsics[1, 2]) / intrinsics[1, 1]
    return np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)
