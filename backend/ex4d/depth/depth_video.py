"""Depth in a video file: grey levels from 0 (black) to 1 (white), at the video's bit depth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from ex4d.depth.depth_clip import DepthError
from ex4d.media import FootageInfo, probe, read_deep_frames, read_frames

# Compression of a grey video leaves a little colour at most; a colour map has much of it.
_COLOURED = 24


def require_grey(video: FootageInfo) -> None:
    """Raises DepthError for a video whose first frame has colours: a colour map, which depth cannot be read from."""
    image = next(iter(read_frames(video.path, count=1))).astype(np.int16)
    coloured = (image.max(axis=2) - image.min(axis=2) > _COLOURED).mean()
    if coloured > 0.01:
        raise DepthError(
            f"{video.path}: {coloured:.0%} of its pixels are coloured: it shows depth through a colour map, from which "
            "depth cannot be read. Export a grey video, or better an .npz or EXRs."
        )


def read_grey_levels(video: FootageInfo) -> Iterator[np.ndarray]:
    """Yields (H, W) float32 from 0 to 1 for every frame, upright.

    Raises:
        MediaError: a frame cannot be decoded.
    """
    if _bits(video.path) <= 8:
        for image in read_frames(video.path, count=video.frames):
            yield image[..., 1] / np.float32(255)
        return
    for image in read_deep_frames(video.path, count=video.frames):
        yield image[..., 1]


def probed_video(path: Path) -> tuple[FootageInfo, str]:
    """The video, and what it is, for messages.

    Raises:
        MediaError: it cannot be read.
    """
    video = probe(path)
    return video, f"a video of {video.frames} frames of {video.width}x{video.height} in {_bits(path)} bits"


def _bits(path: Path) -> int:
    with av.open(str(path)) as container:
        stream = container.streams.best("video") or container.streams.video[0]
        return max((part.bits for part in stream.codec_context.format.components), default=8)
