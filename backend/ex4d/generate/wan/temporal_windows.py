"""A shot of any length as windows that the transformer can make at once, each going on from the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from ex4d.generate.wan.conditioning import round_up
from ex4d.raster import RenderedFrame


@dataclass(frozen=True)
class Window:
    """Some frames of a shot.

    Attributes:
        number: from 0.
        frames: 4n + 1, the last one repeated where the shot ends earlier.
        known: how many of the first frames the window before has made already.
        new: how many frames after these are new; what is left is padding.
    """

    number: int
    frames: tuple[RenderedFrame, ...]
    known: int
    new: int

    @property
    def start(self) -> int:
        """The shot's number of the first frame."""
        return self.frames[0].index


def windows(frames: Iterable[RenderedFrame], window: int, overlap: int) -> Iterator[Window]:
    """Cut a shot while it is being rendered; frames are read only as far as a window needs them.

    Args:
        window, overlap: frames, 4n + 1.
    """
    stream = iter(frames)
    tail: tuple[RenderedFrame, ...] = ()
    number = 0
    while new := tuple(islice(stream, window - len(tail))):
        real = tail + new
        padding = (real[-1],) * (round_up(len(real)) - len(real))
        yield Window(number, real + padding, len(tail), len(new))
        if len(real) < window:
            return
        tail = real[-overlap:]
        number += 1
