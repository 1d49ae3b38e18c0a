"""Undoes lens distortion in frames and their depth with one map, so that both stay aligned."""

from __future__ import annotations

import numpy as np

from ex4d_core.lens_distortion import LensDistortion

# Rows of a frame that are interpolated at a time, which bounds memory.
_ROWS_AT_ONCE = 128


class Undistorter:
    """Resamples the frames of some footage to those of a pinhole camera, as `LensDistortion.zoomed` describes it."""

    def __init__(self, distortion: LensDistortion) -> None:
        """Compute the map, 8 bytes a pixel.

        Args:
            distortion: for images of the footage's size.
        """
        self._height, self._width = distortion.height, distortion.width
        at = distortion.footage_pixels()
        # From pixel centres at +0.5 to indices of pixels.
        self._x = np.clip(at[..., 0] - 0.5, 0, self._width - 1)
        self._y = np.clip(at[..., 1] - 0.5, 0, self._height - 1)

    def color(self, image: np.ndarray) -> np.ndarray:
        """A frame (H, W, 3) uint8 or float32, bilinearly."""
        result = np.empty_like(image)
        for top in range(0, self._height, _ROWS_AT_ONCE):
            rows = slice(top, top + _ROWS_AT_ONCE)
            x, y = self._x[rows], self._y[rows]
            left, above = x.astype(np.int32), y.astype(np.int32)
            right, below = np.minimum(left + 1, self._width - 1), np.minimum(above + 1, self._height - 1)
            across, down = (x - left)[..., None], (y - above)[..., None]
            upper = image[above, left] * (1 - across) + image[above, right] * across
            lower = image[below, left] * (1 - across) + image[below, right] * across
            mean = upper * (1 - down) + lower * down
            result[rows] = np.rint(mean) if image.dtype == np.uint8 else mean
        return result

    def depth(self, depth: np.ndarray) -> np.ndarray:
        """Depth along z (H, W) of a frame: the nearest pixel's, since a mean of two surfaces is on neither."""
        return depth[np.rint(self._y).astype(np.int32), np.rint(self._x).astype(np.int32)]
