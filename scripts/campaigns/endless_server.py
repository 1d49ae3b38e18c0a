"""A server that never ends a message, which libzmq would not do; it speaks ZeroMQ's protocol 3 by hand."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

_MORE, _LARGE, _COMMAND = 1, 2, 4
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_MEGABYTE = 1024 * 1024


class EndlessServer:
    """Sends parts of one size to whoever connects, all of one message, until the connection ends.

    Attributes:
        address: where it listens.
        sent: bytes that were taken by the system.
    """

    def __init__(self, part_bytes: int):
        """Listen."""
        self._part_bytes, self.sent = part_bytes, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._stop = threading.Event()
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._stop.set()
        if (connection := self._connection) is not None:
            with suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(None)
            self._connection = connection
            with connection, suppress(OSError):
                self._flood(connection)

    def _flood(self, connection: socket.socket) -> None:
        connection.sendall(_GREETING)
        connection.recv(64, socket.MSG_WAITALL)
        ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"ROUTER"
        connection.sendall(_frame(ready, _COMMAND))
        connection.recv(_MEGABYTE)
        part = _frame(bytes(self._part_bytes), _MORE)
        data = part * max(1, _MEGABYTE // len(part))
        while not self._stop.is_set():
            connection.sendall(data)
            self.sent += len(data)


def _frame(data: bytes, flags: int) -> bytes:
    if len(data) > 255:
        return struct.pack(">BQ", flags | _LARGE, len(data)) + data
    return struct.pack("BB", flags, len(data)) + data
