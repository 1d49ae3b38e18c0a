"""How threads hand work to the front's loop: calls in a queue, and a socket that wakes the loop for them."""

from __future__ import annotations

import queue
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Inbox:
    """Calls from any thread, made on the loop's thread by `deliver`.

    Attributes:
        alarm: readable when there is something to deliver; for a poller.
        bell: any byte written here wakes the loop (`signal.set_wakeup_fd` wants such a socket).
    """

    def __init__(self) -> None:
        self.alarm, self.bell = socket.socketpair()
        self.alarm.setblocking(False)
        self.bell.setblocking(False)
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="aside")

    def post(self, call: Callable[[], None]) -> None:
        """Have ``call`` made on the loop's thread."""
        self._calls.put(call)
        try:
            self.bell.send(b"!")
        except BlockingIOError:
            pass  # Full of bytes that nobody has read: the loop is about to wake anyway.
        except OSError:
            pass  # Closed: the loop has ended, and nobody will make the call.

    def aside(self, work: Callable[[], Any], then: Callable[[Future], None]) -> None:
        """Do ``work`` in a thread, and ``then(future)`` on the loop's thread."""
        self._threads.submit(work).add_done_callback(lambda future: self.post(lambda: then(future)))

    def deliver(self) -> None:
        """Make every call that has arrived."""
        try:
            while self.alarm.recv(4096):
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
        """Drop what was not begun; what is under way in a thread may end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.alarm.close()
        self.bell.close()
