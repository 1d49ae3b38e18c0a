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
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="inbox")

    def post(self, call: Callable[[], None]) -> None:
        """Queue a call for the loop's thread."""
        self._calls.put(call)
        try:
            self.wakeup.send(b"!")
        except BlockingIOError:
            pass  # Full of unread bytes: the loop is about to wake anyway.
        except OSError:
            pass  # Closed: the loop has ended, and nobody makes the call.

    def run_in_thread(self, work: Callable[[], Result], then: Callable[[Future[Result]], None]) -> None:
        """Run ``work`` in a thread, and ``then(future)`` on the loop's thread."""
        self._threads.submit(work).add_done_callback(lambda future: self.post(lambda: then(future)))

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
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.readable.close()
        self.wakeup.close()
