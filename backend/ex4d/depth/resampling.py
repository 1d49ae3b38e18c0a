"""Resamples stored depth to the footage's size without new depths at edges: no surface lies between two surfaces."""

from __future__ import annotations

import math

import numpy as np

# Neighbours that differ by more than this share of the larger are taken for two surfaces, and never mixed.
_ONE_SURFACE = 0.03
# Sides that tools round sizes to: MegaSaM 8, Depth Anything 14, autoencoders 16 to 64. More than this share would be a
# crop, which stretching does not undo.
_ROUNDED_TO = (1, 2, 8, 14, 16, 32, 64)
_MOST_STRETCHED = 0.08


def same_shape(size: tuple[int, int], footage: tuple[int, int]) -> bool:
    """Whether depth of (width, height) shows all of the footage: its shape, but for sides rounded to a multiple."""
    (width, height), (wide, high) = size, footage
    if abs(math.log(width * high / (height * wide))) > _MOST_STRETCHED:
        return False
    errors = min(abs(height - width * high / wide), abs(width - height * wide / high))
    return any(width % step == 0 and height % step == 0 and errors <= step / 2 for step in _ROUNDED_TO)


class DepthResampler:
    """Depth maps of one size to another.

    Within a surface values are interpolated, across edges the nearest one is taken. Invalid values (NaN, infinite, a
    renderer's "nothing hit") are edges as well.

    Args:
        size: (width, height) of what is resampled.
        target: (width, height).
    """

    def __init__(self, size: tuple[int, int], target: tuple[int, int]) -> None:
        self._left, self._right, self._across = _positions(size[0], target[0])
        self._above, self._below, self._down = _positions(size[1], target[1])

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """(h, w) of any numeric type to (H, W): float32 for integers and halves, else the type as it is."""
        values = stored.astype(np.result_type(stored.dtype, np.float32), copy=False)
        upper, lower = values[self._above], values[self._below]
        corners = (upper[:, self._left], upper[:, self._right], lower[:, self._left], lower[:, self._right])
        low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
        across, down = self._across[None, :], self._down[:, None]
        with np.errstate(invalid="ignore", over="ignore"):
            smooth = (corners[0] * (1 - across) + corners[1] * across) * (1 - down) + (
                corners[2] * (1 - across) + corners[3] * across
            ) * down
            one_surface = high - low <= _ONE_SURFACE * np.maximum(np.abs(high), np.abs(low))
        nearest = np.where(
            down < 0.5, np.where(across < 0.5, *corners[:2]), np.where(across < 0.5, corners[2], corners[3])
        )
        # Rounding must not leave the range of the four either.
        return np.where(one_surface, np.clip(smooth, low, high), nearest).astype(values.dtype)


def _positions(count: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each target pixel the two stored ones around its centre, and how far it is from the first to the second."""
    at = np.clip((np.arange(target) + 0.5) * count / target - 0.5, 0, count - 1)
    first = np.minimum(at.astype(np.int64), max(count - 2, 0))
    return first, np.minimum(first + 1, count - 1), (at - first).astype(np.float32)
