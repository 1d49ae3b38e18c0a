"""`CoverageParts`: the coverage of a shot while it is computed in parts, by the live view process and idle workers.

The process takes parts from the shot's beginning, others take larger ones from its end, and whoever is first with a
frame's values counts. Once all is dealt out, the process computes again what has not come: nobody waits for a node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ex4d_core.view_messages import Coverage

Values = Mapping[str, list[float]]

# Frames of a part for the live view process: about as slow as one view of full size.
_FRAMES = 8
# Of a part for another worker, which costs some milliseconds on top; shorter shots stay here.
_FRAMES_ELSEWHERE = 32
_NAMES = ("seen", "view_angle", "remembered")


class CoverageHelpers(Protocol):
    """Workers elsewhere that compute coverage while they are idle."""

    def free(self) -> int:
        """How many parts they could begin now."""
        ...

    def cover(self, message: Mapping[str, Any], done: Callable[[Values], None]) -> None:
        """Have a part computed; ``done`` is called on the loop's thread, or never if nobody was idle after all.

        Args:
            message: as for the live view process.
        """
        ...


class CoverageParts:
    """See the module."""

    def __init__(self, frames: int):
        """Of a shot of so many frames, none of which is computed."""
        self._frames, self._lacking = frames, frames
        # 1 for a frame that somebody computes, or that is there: what is left is in one piece.
        self._taken, self._there = bytearray(frames), bytearray(frames)
        self._values = {name: [0.0] * frames for name in _NAMES}

    def take(self) -> range:
        """The next frames for the live view process; what others have not brought yet if nothing else is left."""
        start = self._taken.find(0)
        if start < 0:
            start = self._there.find(0)
        return self._mark(start, min(start + _FRAMES, self._frames))

    def take_elsewhere(self) -> range | None:
        """Frames for another worker, from the end; None if there are too few."""
        start, stop = self._taken.find(0), self._taken.rfind(0) + 1
        if stop - start < 2 * _FRAMES_ELSEWHERE:
            return None
        return self._mark(stop - _FRAMES_ELSEWHERE, stop)

    def put(self, start: int, values: Values) -> None:
        """Enter the values of frames from ``start`` on; those that are there stay."""
        for index, frame in enumerate(range(start, start + len(values["seen"]))):
            if not self._there[frame]:
                self._there[frame] = 1
                self._lacking -= 1
                for name in _NAMES:
                    self._values[name][frame] = values[name][index]

    def reply(self) -> Coverage | None:
        """The coverage of all frames; None while some are missing."""
        return None if self._lacking else Coverage(**self._values)

    def _mark(self, start: int, stop: int) -> range:
        self._taken[start:stop] = b"\1" * (stop - start)
        return range(start, stop)
