"""Blender's mist pass as depth: how far each point is from the camera, between a start and an end, as 0 to 1.

Cycles writes ((distance - start) / depth) ^ falloff, where distance is measured along the ray, not along the camera's
axis; checked against its Z pass for all three falloffs. Unlike the Z pass, mist is averaged over a pixel's samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ex4d.depth.depth_clip import DepthError
from ex4d_core.sources import MIST_FALLOFFS


@dataclass(frozen=True)
class MistSettings:
    """What the world's mist was set to when it was rendered.

    Attributes:
        start: distance in scene units at which mist begins.
        depth: scene units over which it goes from 0 to 1.
        falloff: "linear", "quadratic" or "inverse-quadratic".

    Raises:
        DepthError: impossible values.
    """

    start: float
    depth: float
    falloff: str = "linear"

    def __post_init__(self) -> None:
        if self.falloff not in MIST_FALLOFFS:
            raise DepthError(f"mist falloff {self.falloff!r} is not known. Choose one of {', '.join(MIST_FALLOFFS)}.")
        if not (math.isfinite(self.start) and self.start >= 0 and math.isfinite(self.depth) and self.depth > 0):
            raise DepthError(
                f"mist from {self.start:g} over {self.depth:g} is not possible. Give the start (0 or more) and "
                "the depth (above 0) of World > Mist Pass."
            )

    def along_z(self, stored: np.ndarray, intrinsics: np.ndarray, what: str) -> np.ndarray:
        """Depth along z.

        Args:
            stored: (H, W) mist, any floating type.
            intrinsics: (3, 3) in pixels.
            what: file and frame, for messages.

        Returns:
            (H, W) float32, infinite where the mist is full: how much farther such a point lies is not in the pass.

        Raises:
            DepthError: points nearer than the start, whose distance is not in the pass; or no mist at all.
        """
        mist = stored.astype(np.float64)
        # Rounding may put values a little outside.
        if np.nanmin(mist) < -1e-3 or np.nanmax(mist) > 1.001:
            raise DepthError(
                f"{what}: mist goes from 0 to 1, but this is {np.nanmin(mist):g} to {np.nanmax(mist):g}. Name the "
                "channel of the mist pass (--depth-key), or, if it is a depth (Z) pass, do not call it mist (--mist)."
            )
        nearer = int((mist <= 0).sum())
        if nearer:
            raise DepthError(
                f"{what}: {nearer} of {mist.size} points have no mist: they are nearer than its start "
                f"({self.start:g}), and how near is not in the pass. Render it with a smaller start."
            )
        distance = self.start + self.depth * mist ** (1 / MIST_FALLOFFS[self.falloff])
        depth = np.where(mist >= 1, np.inf, distance / _ray_lengths(mist.shape, intrinsics))
        return depth.astype(np.float32)


def _ray_lengths(size: tuple[int, int], intrinsics: np.ndarray) -> np.ndarray:
    """(H, W): distance along a pixel's ray for each unit along z, at pixel centres."""
    height, width = size
    x = (np.arange(width) + 0.5 - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (np.arange(height) + 0.5 - intrinsics[1, 2]) / intrinsics[1, 1]
    return np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)
