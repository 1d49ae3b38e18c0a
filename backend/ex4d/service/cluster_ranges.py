"""Ranges of a shot that several workers render: `SharedShot` deals them out, `RangesToRender` puts them together.

One worker, the owner, runs the job: it fills, encodes and delivers all frames in order, since that depends on the
frames before. Rendering does not (see `ex4d.pipeline.render`), and takes most of the time: idle workers with the same
kind of device render ranges ahead of the owner, which renders itself whatever nobody else has begun. So every file is
bit-equal to one worker's. With the clip's memory each worker draws the key frames of the windows that it renders.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ex4d_core.cameras import CameraPath
from ex4d_core.reconstruction import AnyRequest
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest

if TYPE_CHECKING:
    from ex4d.raster import RenderedFrame

# Colour, mask, depth and alpha of a pixel of a rendered frame.
_BYTES_PER_PIXEL = 9
# Of a range: large enough to outweigh its start, small enough for a few in the object store.
_RANGE_BYTES = 64e6
_MOST_FRAMES = 16
# Helpers render at most so many ranges for each of them ahead of the owner.
_AHEAD = 2


def ranges_of(request: AnyRequest) -> tuple[int, ...]:
    """First frames of the ranges of a shot, and its number of frames; () where it is not worth sharing, or may not be.

    Only previews of 8 bits and one eye are: in the engine wan rendering is a small part, and such a shot may have
    hidden frames.
    """
    if not isinstance(request, ShotRequest) or request.engine != "preview":
        return ()
    if request.draws_deep or request.stereo.is_on:
        return ()
    camera, frames = request.camera, len(request.camera)
    length = max(1, min(_MOST_FRAMES, int(_RANGE_BYTES // (camera.width * camera.height * _BYTES_PER_PIXEL))))
    return (*range(0, frames, length), frames) if frames >= 2 * length else ()


class SharedShot:
    """Which range of a shot is whose; for any thread of the driver."""

    def __init__(self, ranges: Sequence[int]):
        """Args: ranges: see `ranges_of`."""
        self._ranges = ranges
        # "" for a range that nobody has begun, else "owner" or "helper".
        self._whose = [""] * (len(ranges) - 1)
        self._wanted, self._helpers, self._over = -1, 0, False
        self._lock = threading.Lock()

    def frames(self, number: int) -> tuple[int, int]:
        """First frame of a range, and the one behind its last."""
        return self._ranges[number], self._ranges[number + 1]

    def is_for_owner(self, number: int) -> bool:
        """The owner needs a range next: whether it must render it itself; a helper delivers it otherwise."""
        with self._lock:
            self._wanted = number
            if not self._whose[number]:
                self._whose[number] = "owner"
            return self._whose[number] == "owner"

    def take(self) -> int | None:
        """A range for a helper, the first that nobody has begun; None if there is none now."""
        with self._lock:
            if self._over or self._wanted < 0:
                return None
            # The next one is left to the owner, who is about to begin it.
            first = self._wanted + 1
            for number in range(first, min(first + _AHEAD * (self._helpers + 1), len(self._whose))):
                if not self._whose[number]:
                    self._whose[number] = "helper"
                    self._helpers += 1
                    return number
            return None

    def give_back(self, number: int, *, rendered: bool) -> bool:
        """A helper ends with a range; returns whether the owner waits for it and must now render it itself."""
        with self._lock:
            self._helpers -= 1
            if rendered:
                return False
            self._whose[number] = "owner" if number == self._wanted else ""
            return number == self._wanted

    def end(self) -> None:
        """The job is over: no range is taken any more."""
        with self._lock:
            self._over = True


class RangesToRender:
    """The owner's `render_shot`: asks for each range in turn, and renders it or takes what a helper has rendered."""

    def __init__(self, ranges: Sequence[int], want: Callable[[int], None]):
        """Without any frame.

        Args:
            ranges: see `ranges_of`.
            want: called with the number of the range that is needed next; may raise to stop.
        """
        self._ranges, self._want = ranges, want
        self._supplied: dict[int, list[RenderedFrame] | None] = {}
        self._came = threading.Condition()
        self._stopped = False

    def supply(self, number: int, frames: list[RenderedFrame] | None) -> None:
        """A range's frames; None: the owner renders them. For any thread."""
        with self._came:
            self._supplied[number] = frames
            self._came.notify_all()

    def stop(self) -> None:
        """Wait for nothing any more."""
        with self._came:
            self._stopped = True
            self._came.notify_all()

    def __call__(
        self, scene: Scene, camera: CameraPath, settings: RenderSettings, **options: Any
    ) -> Iterator[RenderedFrame]:
        """Frames as `ex4d.pipeline.render.render_shot` yields them."""
        from ex4d.pipeline.clip_memory import ClipMemory
        from ex4d.pipeline.render import render_shot

        where = {name: options[name] for name in ("device", "machine")}
        memory = ClipMemory(scene, settings, **where) if settings.remember else None
        render = partial(render_shot, scene, camera, settings, **options, memory=memory)
        for number in range(len(self._ranges) - 1):
            self._want(number)
            with self._came:
                self._came.wait_for(lambda number=number: self._stopped or number in self._supplied)
                frames = self._supplied.pop(number, None)
            if self._stopped:
                self._want(number)  # which raises
            part = range(self._ranges[number], self._ranges[number + 1])
            yield from render(part=part) if frames is None else map(_writable, frames)


def _writable(frame: RenderedFrame) -> RenderedFrame:
    """A frame with arrays of its own: those from the object store can only be read."""
    values = {one.name: getattr(frame, one.name) for one in fields(frame)}
    return replace(frame, **{name: value.copy() for name, value in values.items() if isinstance(value, np.ndarray)})
