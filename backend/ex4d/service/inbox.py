"""`Inbox`: calls that other threads post to the service's loop, and a socket that wakes the loop for them."""

from __future__ import annotations

import queue
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class Inbox:
    """Calls from any thread, made on the loop's thread by `run_calls`.

    Attributes:
        readable: a socket that is readable when there are calls; for a poller.
        wakeup: a socket; any byte written to it wakes the loop, as `signal.set_wakeup_fd` needs it.
    """

    def __init__(self) -> None:
        """Without calls."""
        self.readable, self.wakeup = socket.socketpair()
        self.readable.setblocking(False)
        self.wakeup.setblocking(False)
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # A clip of many gigabytes is hashed for minutes; what clients wait for, and tidying, have threads of their own.
        self._threads = {
            kind: ThreadPoolExecutor(max_workers=count, thread_name_prefix=kind)
            for kind, count in (("files", 2), ("copies", 2), ("requests", 1), ("tidying", 1))
        }

    def post(self, call: Callable[[], None]) -> None:
        """Queue a call for the loop's thread."""
        self._calls.put(call)
        try:
            self.wakeup.send(b"!")
        except BlockingIOError:
            pass  # Full of unread bytes: the loop is about to wake anyway.
        except OSError:
            pass  # Closed: the loop has ended, and nobody makes the call.

    def run_in_thread(
        self, work: Callable[[], Result], then: Callable[[Future[Result]], None], kind: str = "files"
    ) -> None:
        """Run ``work`` in a thread, and ``then(future)`` on the loop's thread.

        Args:
            work: what takes long.
            then: gets its result or its exception.
            kind: "files", "copies", "requests" or "tidying"; work of one kind does not wait for another's.
        """
        self._threads[kind].submit(work).add_done_callback(lambda future: self.post(lambda: then(future)))

    def run_calls(self) -> None:
        """Make every call that has arrived."""
        try:
            while self.readable.recv(4096):
                pass
        except BlockingIOError:
            pass
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            call()

    def close(self) -> None:
        """Drop work that has not begun; work under way in a thread may end."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        self.readable.close()
        self.wakeup.close()
