"""Writes a take's frames as PNGs in other threads, and delivers them in order in the caller's thread.

Compressing a frame of 1920x1080 takes nine times as long as one of 512x512, and a GPU would wait for it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from ex4d.generation import EngineState
from ex4d.media.media_errors import translate_write_errors
from ex4d.media.png import png_bytes

# More threads than this only wait for the disk.
_MOST_THREADS = 4


class FrameFiles:
    """Frames on their way to a sink.

    A frame is a complete file before it is delivered, and no frame is delivered before the one before it. What the
    delivery raises, such as a cancel, and an error in writing, such as a full disk, are raised by the next call.
    """

    def __init__(self, deliver: Callable[[int, Path], None], metadata: Mapping[str, str]) -> None:
        """Prepare threads.

        Args:
            deliver: takes a frame's index and its file, in the thread that calls `write`.
            metadata: texts that are written into each file.
        """
        self._deliver, self._metadata = deliver, metadata
        self._threads = min(_MOST_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads, "write frames")
        self._waiting: deque[tuple[int, Path, Future[None]]] = deque()
        self._failed = False

    def __enter__(self) -> FrameFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After an error elsewhere, still deliver the frames that were handed over before it, as far as that works."""
        if error is not None and not self._failed:
            with suppress(Exception):  # the error that ended the work is told
                self.deliver_all()
        self._pool.shutdown(cancel_futures=True)

    def write(
        self,
        index: int,
        path: Path,
        image: np.ndarray,
        metadata: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        """Hand over a frame (H, W, 3) uint8, which must not change any more, with further texts.

        Waits while twice as many frames as threads are under way.

        Args:
            before: writes another file of the frame, which is complete when the frame is.
        """
        self.deliver_ready()
        while len(self._waiting) >= 2 * self._threads:
            self._deliver_first()
        texts = {**self._metadata, **(metadata or {})}
        self._waiting.append((index, path, self._pool.submit(_write, before, path, image, texts)))

    def deliver_ready(self) -> None:
        """Deliver what is complete, without waiting."""
        while self._waiting and self._waiting[0][2].done():
            self._deliver_first()

    def deliver_all(self) -> None:
        """Deliver all that was handed over."""
        while self._waiting:
            self._deliver_first()

    def _deliver_first(self) -> None:
        index, path, written = self._waiting.popleft()
        try:
            written.result()
            self._deliver(index, path)
        except BaseException:
            self._failed = True
            raise


class StateAfterFrames(EngineState):
    """An engine's state that is never ahead of the frames that a sink has: a resumed take relies on both."""

    def __init__(self, state: EngineState, files: FrameFiles) -> None:
        """Keep the state where ``state`` does."""
        super().__init__(state.path)
        self._state, self._files = state, files

    def save(self, values: Mapping[str, object]) -> None:
        """As `EngineState.save`, once all frames that the engine has yielded are delivered."""
        self._files.deliver_all()
        self._state.save(values)


def _write(before: Callable[[], None] | None, path: Path, image: np.ndarray, texts: Mapping[str, str]) -> None:
    if before is not None:
        before()
    write_for_sink(path, image, texts)


def write_for_sink(path: Path, image: np.ndarray, metadata: Mapping[str, str] | None = None) -> None:
    """Write a PNG into the work folder, where nothing has to last: the sink puts it on disk, once, under its name."""
    with translate_write_errors(path):
        path.write_bytes(png_bytes(image, metadata))
