"""`ReplyGuard`: cuts a client's connection off when the server sends more than was asked for, and hears of handshakes.

ZeroMQ bounds a part of a message, not the message: one that never ends would take all memory before anybody sees a byte
of it. The system knows what has arrived, though (`ex4d_core.tcp_counts`), and a thread compares that with what the
replies under way may have. It also works while nobody polls the client, such as Blender in a long render.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from collections import deque
from contextlib import suppress

import zmq
from zmq.utils.monitor import recv_monitor_message

from ex4d_core.tcp_counts import borrowed_socket, tcp_counts

# Beyond the replies under way: handshakes, heartbeats, errors in place of short replies, frames around the parts.
_SLACK_BYTES = 2 * 1024 * 1024
# A sender on this machine manages some 50 MB meanwhile.
_TICK_SECONDS = 0.025
_IDLE_SECONDS = 1.0
# A pair of ints, which Windows has of 16 bits.
_AT_ONCE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
_FAILURES = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_ENDS = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
_EVENTS = zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | _FAILURES | _ENDS | zmq.EVENT_MONITOR_STOPPED


class ReplyGuard:
    """Watches the socket of a client in a thread.

    Attributes:
        allowed: bytes that the replies under way may have together; the client keeps it up to date.
        exceeded: bytes that had arrived when a connection was cut off, 0 if none was.
        connected: set while there is a connection whose handshake is over.
    """

    def __init__(self, dealer: zmq.Socket[bytes]):
        """Watch a socket that is not connected yet."""
        self.allowed = 0
        self.exceeded = 0
        self.connected = threading.Event()
        self._handshakes: deque[int] = deque(maxlen=100)
        # Bytes that had arrived when the last whole message was known, and whether there was one since the last look.
        self._handled, self._fresh = 0, False
        self._dealer = dealer
        self._descriptor: int | None = None
        self._monitor = dealer.get_monitor_socket(_EVENTS)
        self._thread = threading.Thread(target=self._watch, name="replies", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching; before the socket is closed."""
        self._dealer.disable_monitor()
        self._thread.join()
        self._monitor.close(linger=0)

    def heard(self) -> None:
        """A whole message has arrived."""
        self._fresh = True

    def handshakes(self) -> list[int]:
        """ZeroMQ's events of handshakes since the last call."""
        events = []
        while self._handshakes:
            events.append(self._handshakes.popleft())
        return events

    def _watch(self) -> None:
        due = 0.0
        while True:
            if self._monitor.poll(int((_IDLE_SECONDS if self._descriptor is None else _TICK_SECONDS) * 1000)):
                event = recv_monitor_message(self._monitor)
                if event["event"] == zmq.EVENT_MONITOR_STOPPED:
                    return
                self._note(event["event"], event["value"])
            if self._descriptor is not None and time.monotonic() >= due:
                with suppress(OSError):  # it has just ended
                    self._check(self._descriptor)
                due = time.monotonic() + _TICK_SECONDS

    def _note(self, event: int, value: int) -> None:
        if event == zmq.EVENT_CONNECTED:
            self._descriptor, self._handled = value, 0
        elif event & _ENDS:
            self._descriptor = None
            self.connected.clear()
        else:
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.connected.set()
            self._handshakes.append(event)

    def _check(self, descriptor: int) -> None:
        # Noted before the counts are read: what arrives in between counts as handled one look later.
        fresh, self._fresh = self._fresh, False
        allowed = self.allowed + _SLACK_BYTES
        if (counts := tcp_counts(descriptor)) is None:
            return
        if fresh:
            self._handled = counts.received
        if counts.received - self._handled > allowed:
            self.exceeded, self._descriptor = counts.received - self._handled, None
            with borrowed_socket(descriptor) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                one.shutdown(socket.SHUT_RDWR)
