"""`MotionMask`: the artist's mask of what moves in some footage, from a video or images, white where something does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ex4d.media.footage import FootageInfo, probe, read_frames
from ex4d.media.media_errors import MediaError

# Sum of three channels from which on a pixel is white: compressed videos and soft edges are never quite 0 or 255.
_WHITE = 3 * 128


@dataclass(frozen=True)
class MotionMask:
    """A mask that fits its footage; its frames are read as often as they are asked for.

    Attributes:
        path: a video, or a folder or pattern of images.
        footage: that it is a mask of.
        notes: sentences for the artist about what is changed, or what it does not do.
    """

    path: Path
    footage: FootageInfo
    notes: tuple[str, ...] = ()

    @staticmethod
    def open(path: Path, footage: FootageInfo, whole: FootageInfo | None = None) -> MotionMask:
        """Read all of a mask once, so that nothing long is done in vain with one that cannot be used.

        Args:
            path: with as many frames as the footage, or as the whole; another size is resized, each pixel from the
                nearest.
            footage: of `ex4d.media.probe`.
            whole: all of the footage, where only its first frames are used.

        Raises:
            MediaError: it cannot be read, or has another number of frames or another shape.
        """
        found, size = probe(path), (footage.width, footage.height)
        if found.frames != footage.frames and found.frames != (whole or footage).frames:
            raise MediaError(
                f"{path}: the motion mask has {found.frames} frames, but the footage {footage.path.name} has "
                f"{footage.frames}. Export one image of the mask for each frame."
            )
        # Half of a footage's odd side is rounded: shapes may differ by less than a pixel.
        if abs(found.width * size[1] - found.height * size[0]) > max(*size, found.width, found.height):
            raise MediaError(
                f"{path}: the motion mask is {found.width}x{found.height}, another shape than the footage "
                f"{footage.path.name}, which is {size[0]}x{size[1]}. Export the mask in the footage's size."
            )
        notes = found.notes
        if (found.width, found.height) != size:
            notes += (f"the motion mask is resized from {found.width}x{found.height} to {size[0]}x{size[1]}",)
        white = [float(frame.mean()) for frame in MotionMask(path, footage).frames()]
        return MotionMask(path, footage, (*notes, *mask_notes(min(white), max(white))))

    def frames(self) -> Iterator[np.ndarray]:
        """(H, W) bool for each frame of the footage: where something moves."""
        height, width = self.footage.height, self.footage.width
        for image in read_frames(self.path, count=self.footage.frames):
            white = image.sum(axis=2, dtype=np.uint16) >= _WHITE
            yield nearest_resized(white, width, height)


def mask_notes(least: float, most: float) -> Iterator[str]:
    """Sentences for the artist about a mask that says nothing.

    Args:
        least, most: white shares of its frames.
    """
    if least == 1.0:
        yield "the motion mask is white in all frames: everything moves, so the clip's memory has nothing to remember"
    if most == 0.0:
        yield "the motion mask is black in all frames: it marks nothing. What moves must be white (128 or more, of 255)"


def nearest_resized(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Values (h, w) at another size, each from the nearest pixel."""
    if values.shape == (height, width):
        return values
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip((height, width), values.shape, strict=True)
    )
    return np.ascontiguousarray(values[rows[:, None], columns])
