"""Asks the system how many bytes a TCP connection has carried, by its descriptor: Linux, macOS, and Windows 10 on.

ZeroMQ tells only of whole messages; what has arrived of an unfinished one is known to the system alone.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

_TRIAL_BYTES = 1000
_TRIAL_SECONDS = 5.0


@dataclass(frozen=True)
class TcpCounts:
    """Bytes of a connection since it began.

    Attributes:
        received: from the other side.
        acknowledged: ours that the other side has.
    """

    received: int
    acknowledged: int


@contextmanager
def borrowed_socket(descriptor: int) -> Iterator[socket.socket]:
    """ZeroMQ's own socket, for as long as the block takes.

    Raises:
        OSError: there is no such socket any more.
    """
    borrowed = socket.socket(fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def tcp_counts(descriptor: int) -> TcpCounts | None:
    """The counts of a connection; None where the system has none that can be trusted.

    Raises:
        OSError: the connection has ended.
    """
    if (read := _trusted_reader()) is None:
        return None
    with borrowed_socket(descriptor) as one:
        return read(one)


@cache
def _trusted_reader() -> Callable[[socket.socket], TcpCounts | None] | None:
    """What reads the counts here; None if it is wrong about a connection of our own, or does not exist.

    A version of the system with another structure must not make us cut honest connections off.
    """
    read = {"linux": _read_linux, "darwin": _read_mac, "win32": _read_windows}.get(sys.platform)
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            sender = socket.create_connection(server.getsockname(), _TRIAL_SECONDS)
            receiver, _ = server.accept()
            with sender, receiver:
                receiver.settimeout(_TRIAL_SECONDS)
                sender.sendall(bytes(_TRIAL_BYTES))
                receiver.recv(_TRIAL_BYTES, socket.MSG_WAITALL)
                counts = read(receiver) if read else None
    except OSError:
        return None
    return read if counts and counts.received == _TRIAL_BYTES else None


# Linux, struct tcp_info (4.1 and later): tcpi_bytes_acked and tcpi_bytes_received.
_LINUX, _LINUX_AT = struct.Struct("=QQ"), 120


def _read_linux(one: socket.socket) -> TcpCounts | None:
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LINUX_AT + _LINUX.size)
    if len(info) < _LINUX_AT + _LINUX.size:
        return None
    acknowledged, received = _LINUX.unpack_from(info, _LINUX_AT)
    return TcpCounts(received, acknowledged)


# macOS, struct tcp_connection_info of <netinet/tcp.h>: what the send buffer holds (tcpi_snd_sbbytes), what was sent
# (tcpi_txbytes) and received (tcpi_rxbytes).
_TCP_CONNECTION_INFO, _MAC_BYTES = 0x106, 112
_MAC_BUFFERED, _MAC_SENT, _MAC_RECEIVED = ("=I", 32), ("=Q", 64), ("=Q", 88)


def _read_mac(one: socket.socket) -> TcpCounts | None:
    info = one.getsockopt(socket.IPPROTO_TCP, _TCP_CONNECTION_INFO, _MAC_BYTES)
    if len(info) < _MAC_BYTES:
        return None
    fields = (_MAC_BUFFERED, _MAC_SENT, _MAC_RECEIVED)
    buffered, sent, received = (struct.unpack_from(form, info, at)[0] for form, at in fields)
    return TcpCounts(received, max(sent - buffered, 0))


# Windows, TCP_INFO_v0 of <mstcpip.h>, from Windows 10 1703 on.
_SIO_TCP_INFO = 0xD8000027


class _WindowsInfo(ctypes.Structure):
    _fields_ = (
        ("state", ctypes.c_int32),
        ("mss", ctypes.c_uint32),
        ("connection_ms", ctypes.c_uint64),
        ("timestamps", ctypes.c_uint8),
        ("rtt_us", ctypes.c_uint32),
        ("min_rtt_us", ctypes.c_uint32),
        ("in_flight", ctypes.c_uint32),
        ("cwnd", ctypes.c_uint32),
        ("send_window", ctypes.c_uint32),
        ("receive_window", ctypes.c_uint32),
        ("receive_buffer", ctypes.c_uint32),
        ("sent", ctypes.c_uint64),
        ("received", ctypes.c_uint64),
        ("reordered", ctypes.c_uint32),
        ("retransmitted", ctypes.c_uint32),
        ("fast_retransmits", ctypes.c_uint32),
        ("duplicate_acks", ctypes.c_uint32),
        ("timeouts", ctypes.c_uint32),
        ("syn_retransmits", ctypes.c_uint8),
    )


def _read_windows(one: socket.socket) -> TcpCounts | None:
    version, info, size = ctypes.c_uint32(0), _WindowsInfo(), ctypes.c_uint32()
    failed = ctypes.WinDLL("ws2_32").WSAIoctl(  # type: ignore[attr-defined]
        *(ctypes.c_size_t(one.fileno()), ctypes.c_uint32(_SIO_TCP_INFO)),
        *(ctypes.byref(version), ctypes.sizeof(version), ctypes.byref(info), ctypes.sizeof(info)),
        *(ctypes.byref(size), None, None),
    )
    # An older Windows does not know the question; an ended connection shows in what follows.
    if failed or size.value < ctypes.sizeof(info):
        one.getpeername()
        return None
    return TcpCounts(info.received, max(info.sent - info.in_flight, 0))
