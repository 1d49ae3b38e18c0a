"""`Framing`: footage of any size to samples of one size: scaled until it covers them, and its middle taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ex4d.media.pixels import resized


@dataclass(frozen=True)
class Framing:
    """From footage to samples.

    Attributes:
        width, height: of the footage, pixels.
        size: (width, height) of the samples.
        pixel_aspect: width of a footage pixel by its height; samples have square ones.
    """

    width: int
    height: int
    size: tuple[int, int]
    pixel_aspect: float = 1.0

    @property
    def scaled(self) -> tuple[int, int]:
        """(width, height) of the footage after scaling; it covers the samples."""
        shown = self.width * self.pixel_aspect
        scale = max(self.size[0] / shown, self.size[1] / self.height)
        return max(self.size[0], round(shown * scale)), max(self.size[1], round(self.height * scale))

    @property
    def corner(self) -> tuple[int, int]:
        """Column and row of the scaled footage at which samples begin."""
        return (self.scaled[0] - self.size[0]) // 2, (self.scaled[1] - self.size[1]) // 2

    def color(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 of a footage frame (H, W, 3) uint8."""
        scaled = self.scaled
        if scaled != (self.width, self.height):
            image = resized(image, *scaled)
        return np.ascontiguousarray(image[self._part])

    def depth(self, depth: np.ndarray) -> np.ndarray:
        """(h, w) of depth (H, W): each pixel takes the nearest one's, since means of two surfaces are neither."""
        columns, rows = (
            np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
            for new, old in zip(self.scaled, depth.shape[::-1], strict=True)
        )
        return np.ascontiguousarray(depth[rows[self._part[0], None], columns[None, self._part[1]]], dtype=np.float32)

    def intrinsics(self, intrinsics: np.ndarray) -> np.ndarray:
        """(..., 3, 3) of samples, from those of the footage."""
        framed = np.array(intrinsics, dtype=np.float64)
        framed[..., 0, :] *= self.scaled[0] / self.width
        framed[..., 1, :] *= self.scaled[1] / self.height
        framed[..., :2, 2] -= self.corner
        return framed

    @property
    def _part(self) -> tuple[slice, slice]:
        left, top = self.corner
        return slice(top, top + self.size[1]), slice(left, left + self.size[0])
