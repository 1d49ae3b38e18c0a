"""Cuts inside a clip: depth does not carry over them, and the artist wants to know of them."""

from __future__ import annotations

import numpy as np

_BINS = 8  # for each colour channel
_SIDE = 48  # pixels; what two pictures are compared at
_HISTOGRAM_CHANGE = 0.45  # share of the pixels whose colour is of another bin
_PICTURE_CHANGE = 0.09  # mean absolute difference, of 1
_ABOVE_USUAL = 4.0  # times the usual difference of neighbouring frames
_REMEMBERED = 24  # frames that "usual" looks back


class CutFinder:
    """Looks at frames in order and notes where a new shot begins.

    A cut changes the colours and the picture at once, by much more than the frames before it did; a pan changes the
    picture only, and fast action has changed it before.

    Attributes:
        cuts: numbers of the frames that begin a new shot; frame 0 is not among them.
    """

    def __init__(self) -> None:
        self.cuts: list[int] = []
        self._count = 0
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self._usual: list[float] = []

    def look(self, picture: np.ndarray) -> bool:
        """Takes the next frame, (H, W, 3) uint8 or float in [0, 1]; true where it begins a new shot."""
        small = _thumbnail(picture)
        now = small, _histogram(small)
        is_cut = False
        if self._before is not None:
            difference = float(np.abs(small - self._before[0]).mean())
            colours = float(np.abs(now[1] - self._before[1]).sum() / 2)
            usual = float(np.median(self._usual)) if self._usual else 0.0
            is_cut = difference > max(_PICTURE_CHANGE, _ABOVE_USUAL * usual) and colours > _HISTOGRAM_CHANGE
            if is_cut:
                self.cuts.append(self._count)
                self._usual.clear()
            else:
                self._usual = [*self._usual[1 - _REMEMBERED :], difference]
        self._before = now
        self._count += 1
        return is_cut


def cuts_note(cuts: list[int]) -> str:
    """What an artist is told."""
    where = ", ".join(map(str, cuts[:8])) + (", ..." if len(cuts) > 8 else "")
    one = len(cuts) == 1
    return (
        f"the footage seems to have {'a cut' if one else f'{len(cuts)} cuts'} (at frame {where}): depth before and "
        "after may differ in scale. Reconstruct each shot by itself."
    )


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    """(<= 96, <= 96, 3) float32 in [0, 1]: means of blocks."""
    steps = [max(1, side // _SIDE) for side in picture.shape[:2]]
    rows, columns = (side // step * step for side, step in zip(picture.shape[:2], steps, strict=True))
    blocks = picture[:rows, :columns].reshape(rows // steps[0], steps[0], columns // steps[1], steps[1], 3)
    small = blocks.mean(axis=(1, 3), dtype=np.float32)
    return small / 255 if picture.dtype == np.uint8 else small


def _histogram(small: np.ndarray) -> np.ndarray:
    """Share of the pixels in each bin of each channel, blurred over neighbouring bins so that rounding is no change."""
    bins = np.clip(small.reshape(-1, 3) * _BINS - 0.5, 0, _BINS - 1)
    low = bins.astype(int)
    share = bins - low
    counts = np.zeros((3, _BINS), np.float32)
    for channel in range(3):
        np.add.at(counts[channel], low[:, channel], 1 - share[:, channel])
        np.add.at(counts[channel], np.minimum(low[:, channel] + 1, _BINS - 1), share[:, channel])
    return counts / (3 * len(bins))
