"""`StereoFrame`: what two eyes see of a frame of a shot, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ex4d.raster.frames import RenderedFrame

# Arrays of a frame that have a value for each pixel.
_IMAGES = ("color", "mask", "depth", "alpha", "remembered", "deep_color")


@dataclass(frozen=True)
class StereoFrame(RenderedFrame):
    """A frame whose images have the left eye's at their left, and the right eye's at their right.

    Attributes:
        eyes: the left and the right one's frame alone.
    """

    eyes: tuple[RenderedFrame, ...] = ()


def side_by_side(left: RenderedFrame, right: RenderedFrame) -> StereoFrame:
    """Both eyes' frames, which have the same size and the same images, as one of twice the width."""
    images = {name: (getattr(left, name), getattr(right, name)) for name in _IMAGES}
    joined: dict[str, Any] = {name: None if pair[0] is None else np.hstack(pair) for name, pair in images.items()}
    return StereoFrame(left.index, **joined, pixel_aspect=left.pixel_aspect, eyes=(left, right))


def eyes_of(frame: RenderedFrame) -> tuple[RenderedFrame, ...]:
    """The frames of a stereo frame's eyes; another frame is the only one's."""
    return frame.eyes if isinstance(frame, StereoFrame) else (frame,)
