"""Fills in the frames between generated ones, of fast footage of which only every n-th frame is generated.

By motion compensation between two neighbours, with FFmpeg's filter minterpolate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import av.filter
import numpy as np

from ex4d_core.final_sizes import generated_frames

_MOTION = "mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1:scd=none"
# The filter's blocks and search need some room.
_LEAST_SIDE = 64


def generated_places(frames: int, stride: int) -> list[int]:
    """The frames of a shot that are generated: every ``stride``-th, and the last one."""
    return [min(number * stride, frames - 1) for number in range(generated_frames(frames, stride))]


def fill_between(
    images: Iterable[np.ndarray], places: Iterable[int], before: tuple[int, np.ndarray] | None = None
) -> Iterator[np.ndarray]:
    """Yield every frame of a shot from its generated ones.

    Args:
        images: (H, W, 3) uint8, generated frames.
        places: the number of each in the shot.
        before: number and image of the generated frame before these, which is not yielded again.
    """
    for image, place in zip(images, places, strict=False):
        if before is not None:
            yield from frames_between(before[1], image, place - before[0] - 1)
        yield image
        before = place, image


def frames_between(before: np.ndarray, after: np.ndarray, count: int) -> list[np.ndarray]:
    """``count`` (H, W, 3) uint8 frames evenly between two, moving what moves between both."""
    if not count:
        return []
    height, width = before.shape[:2]
    if min(height, width) < _LEAST_SIDE:
        return [_mixed(before, after, (number + 1) / (count + 1)) for number in range(count)]
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=Fraction(1))
    chain = [
        graph.add("format", "yuv444p"),
        graph.add("minterpolate", f"fps={count + 1}:{_MOTION}"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    for one, next_one in zip([source, *chain], chain, strict=False):
        one.link_to(next_one)
    graph.configure()
    # The filter looks at a frame before and at two after those that it is between.
    first, found = count + 2, {}
    for time, image in enumerate((before, before, after, after, after)):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = time, Fraction(1)
        graph.push(frame)
        try:
            while True:
                made = graph.pull()
                assert isinstance(made, av.VideoFrame), "of a filter for video"
                found[made.pts] = made.to_ndarray()
        except (BlockingIOError, EOFError):
            pass
    return [found[first + number] for number in range(count)]


def _mixed(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    return ((1 - share) * before + share * after + 0.5).astype(np.uint8)
