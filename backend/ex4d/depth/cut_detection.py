"""Detects cuts inside a clip (shot boundary detection): depth is not aligned across them, and the artist is warned."""

from __future__ import annotations

import numpy as np

_BINS = 8  # for each colour channel
_SIDE = 48  # pixels; the size that two images are compared at
_HISTOGRAM_CHANGE = 0.45  # share of the pixels whose colour is of another bin
_IMAGE_CHANGE = 0.09  # mean absolute difference, of 1
_ABOVE_USUAL = 4.0  # times the usual difference of neighbouring frames
_USUAL_FRAMES = 24  # over which "usual" is the median


class CutDetector:
    """Takes frames in order and notes where a new shot begins.

    A cut changes the colours and the image at once, by much more than the frames before it did; a pan changes the
    image only, and fast action has changed it before.

    Attributes:
        cuts: numbers of the frames that begin a new shot; frame 0 is not among them.
    """

    def __init__(self) -> None:
        self.cuts: list[int] = []
        self._count = 0
        self._previous: tuple[np.ndarray, np.ndarray] | None = None
        self._differences: list[float] = []

    def begins_shot(self, image: np.ndarray) -> bool:
        """Takes the next frame, (H, W, 3) uint8 or float in [0, 1]; true where it begins a new shot."""
        small = _thumbnail(image)
        histogram = _histogram(small)
        is_cut = False
        if self._previous is not None:
            difference = float(np.abs(small - self._previous[0]).mean())
            colours = float(np.abs(histogram - self._previous[1]).sum() / 2)
            usual = float(np.median(self._differences)) if self._differences else 0.0
            is_cut = difference > max(_IMAGE_CHANGE, _ABOVE_USUAL * usual) and colours > _HISTOGRAM_CHANGE
            if is_cut:
                self.cuts.append(self._count)
                self._differences.clear()
            else:
                self._differences = [*self._differences[1 - _USUAL_FRAMES :], difference]
        self._previous = small, histogram
        self._count += 1
        return is_cut


def cuts_note(cuts: list[int]) -> str:
    """The sentence about cuts for the artist."""
    where = ", ".join(map(str, cuts[:8])) + (", ..." if len(cuts) > 8 else "")
    count = "a cut" if len(cuts) == 1 else f"{len(cuts)} cuts"
    return (
        f"the footage seems to contain {count} (at frame {where}): depth before and after may differ in scale. "
        "Reconstruct each shot separately."
    )


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """(<= 96, <= 96, 3) float32 in [0, 1]: means of blocks."""
    row_step, column_step = (max(1, side // _SIDE) for side in image.shape[:2])
    rows, columns = image.shape[0] // row_step, image.shape[1] // column_step
    image = image[: rows * row_step, : columns * column_step]
    small = image.reshape(rows, row_step, columns, column_step, 3).mean(axis=(1, 3), dtype=np.float32)
    return small / 255 if image.dtype == np.uint8 else small


def _histogram(small: np.ndarray) -> np.ndarray:
    """Share of the pixels in each bin of each channel, with overlapping bins, so that rounding changes little.

    Returns:
        (3, bins) float32.
    """
    bins = np.clip(small.reshape(-1, 3) * _BINS - 0.5, 0, _BINS - 1)
    low = bins.astype(int)
    share = bins - low
    counts = np.zeros((3, _BINS), np.float32)
    for channel in range(3):
        np.add.at(counts[channel], low[:, channel], 1 - share[:, channel])
        np.add.at(counts[channel], np.minimum(low[:, channel] + 1, _BINS - 1), share[:, channel])
    return counts / (3 * len(bins))
