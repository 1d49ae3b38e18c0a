"""A `VideoWriter` that encodes in a thread of its own, so that whoever makes the frames does not wait for x264."""

from __future__ import annotations

import queue
import threading

import numpy as np

from ex4d.media.video_writer import VideoWriter

# Frames that wait for the encoder at most: enough for a burst of decoded frames, and 50 MB at 1920x1080.
_WAITING = 8


class BackgroundVideoWriter(VideoWriter):
    """Writes the same file as `VideoWriter`, frame after frame in a thread.

    An error of the thread is raised by the next `write`, or by `finish`; the file then appears no more than there.
    Frames must not change after they were handed over.
    """

    _thread: threading.Thread | None = None
    _failure: BaseException | None = None
    _dropped = False

    def write(self, frame: np.ndarray) -> None:
        """Hand one frame over; waits while `_WAITING` of them have not been encoded."""
        self._raise_failure()
        self._require_open()
        if self._thread is None:
            self._waiting: queue.Queue[np.ndarray | None] = queue.Queue(_WAITING)
            self._thread = threading.Thread(target=self._encode, name=f"encode {self.path.name}", daemon=True)
            self._thread.start()
        self._waiting.put(frame)

    def finish(self) -> None:
        """As `VideoWriter.finish`, after the last frame that waits."""
        self._end_thread()
        self._raise_failure()
        super().finish()

    def _encode(self) -> None:
        """In the thread: encode what is handed over; after a failure read on, so that nobody waits for a place."""
        while (frame := self._waiting.get()) is not None:
            if self._failure is None and not self._dropped:
                try:
                    super().write(frame)
                except BaseException as error:  # handed to the thread that writes
                    self._failure = error

    def _end_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _abandon(self) -> None:
        self._dropped = True
        self._end_thread()
        super()._abandon()
