"""Undoes lens distortion in frames and their depth with one map, so that both stay aligned, and brings it back."""

from __future__ import annotations

import numpy as np

from ex4d_core.lens_distortion import LensDistortion

# Rows of a frame that are interpolated at a time, which bounds memory.
_ROWS_AT_ONCE = 128


class _Resampler:
    """Images whose pixels come from other places of images of the same size.

    Attributes:
        beyond: (H, W) bool, pixels from outside of the image, or from nowhere, which get those of its edge.
    """

    def __init__(self, at: np.ndarray) -> None:
        """Keep the map, 8 bytes a pixel.

        Args:
            at: (H, W, 2) float32 where each pixel comes from, x and y with pixel centres at +0.5; NaN for nowhere.
        """
        self._height, self._width = at.shape[:2]
        inside = (at >= 0) & (at <= (self._width, self._height))
        self.beyond = ~inside.all(axis=-1)
        at = np.nan_to_num(at)
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

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Values (H, W, ...) of a frame: the nearest pixel's, since a mean of two surfaces is on neither."""
        return values[np.rint(self._y).astype(np.int32), np.rint(self._x).astype(np.int32)]


class Undistorter(_Resampler):
    """Resamples the frames of some footage to those of a pinhole camera, as `LensDistortion.zoomed` describes it."""

    def __init__(self, distortion: LensDistortion) -> None:
        """Compute the map.

        Args:
            distortion: for images of the footage's size.
        """
        super().__init__(distortion.footage_pixels())

    def depth(self, depth: np.ndarray) -> np.ndarray:
        """Depth along z (H, W) of a frame."""
        return self.nearest(depth)


class Distorter(_Resampler):
    """The inverse of `Undistorter`: frames of the pinhole camera as the footage's lens would have filmed them."""

    def __init__(self, distortion: LensDistortion, width: int, height: int) -> None:
        """Compute the map.

        Args:
            distortion: for images of the footage's size.
            width, height: of the frames, in the footage's shape.

        Raises:
            RequestError: they have another shape.
        """
        self._pixels = distortion.resized(width, height).take_pixels(distortion.zoom())
        super().__init__(self._pixels)

    def st_map(self) -> np.ndarray:
        """(H, W, 2) float32 as compositors take it: shares of the frame, from its bottom left corner."""
        across, down = (self._pixels / (self._width, self._height)).transpose(2, 0, 1)
        return np.nan_to_num(np.stack([across, 1 - down], axis=-1)).astype(np.float32)
