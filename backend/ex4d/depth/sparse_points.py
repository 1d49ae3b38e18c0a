"""`SparsePoints`: points of a static scene as a solver triangulated them, each where the frames see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class SparsePoints:
    """Observations of triangulated points: which frame sees one where, and how far away it is.

    Attributes:
        frame: (N,) int64, the footage frame of each observation, ascending.
        pixel: (N, 2) float64, x and y in pixels of the footage, pixel centres at +0.5.
        depth: (N,) float64 along z of that frame's camera, above 0, in the unit of the camera's positions.
    """

    frame: np.ndarray
    pixel: np.ndarray
    depth: np.ndarray

    @classmethod
    def joined(cls, frames: Sequence[int], pixels: Sequence[np.ndarray], depths: Sequence[np.ndarray]) -> SparsePoints:
        """Of one frame after another: what each sees, (n, 2) pixels and (n,) depths; behind the camera is left out."""
        numbers = np.repeat(np.asarray(frames, dtype=np.int64), [len(depth) for depth in depths])
        pixel = np.concatenate([np.zeros((0, 2)), *pixels])
        depth = np.concatenate([np.zeros(0), *depths])
        seen = np.isfinite(depth) & (depth > 0) & np.isfinite(pixel).all(axis=1)
        order = np.argsort(numbers[seen], kind="stable")
        return cls(numbers[seen][order], pixel[seen][order], depth[seen][order])

    def __len__(self) -> int:
        return len(self.frame)

    def scaled(self, factor: float) -> SparsePoints:
        """The same points where the camera's positions are multiplied by a factor."""
        return replace(self, depth=self.depth * factor)

    def resized(self, across: float, down: float) -> SparsePoints:
        """The same points in images that are so many times as wide and as high."""
        return replace(self, pixel=self.pixel * (across, down))

    def of_frame(self, frame: int) -> slice:
        """Which observations are of a frame."""
        first, last = np.searchsorted(self.frame, [frame, frame + 1])
        return slice(int(first), int(last))
