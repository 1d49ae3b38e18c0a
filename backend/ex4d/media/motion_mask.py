"""`MotionMask`: the artist's mask of what moves in some footage, from a video or images, white where something does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ex4d.media.footage import FootageInfo, probe, read_frames
from ex4d_core.motion_masks import WHITE, empty_notes, nearest_resized, resize_notes


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
            MediaError: it cannot be read.
            RequestError: it has another number of frames, or another shape.
        """
        found = probe(path)
        frames = found.frames if whole is not None and found.frames == whole.frames else footage.frames
        extents = (found.frames, found.width, found.height), (frames, footage.width, footage.height)
        notes = (*found.notes, *resize_notes(str(path), extents[0], footage.path.name, extents[1]))
        white = [float(frame.mean()) for frame in MotionMask(path, footage).frames()]
        return MotionMask(path, footage, (*notes, *empty_notes(min(white), max(white))))

    def frames(self) -> Iterator[np.ndarray]:
        """(H, W) bool for each frame of the footage: where something moves."""
        for image in read_frames(self.path, count=self.footage.frames):
            white = image.sum(axis=2, dtype=np.uint16) >= 3 * WHITE
            yield nearest_resized(white, self.footage.width, self.footage.height)
