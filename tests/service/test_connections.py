"""Connections that would take a service's memory or descriptors are cut off, and the others do not notice."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable
from contextlib import ExitStack

import psutil
import pytest

from ex4d.service import create_keys
from ex4d.service.connections import MAX_GROWTH_BYTES, MAX_TOTAL_BYTES
from ex4d_core.client import Client
from ex4d_core.client_socket import ClientKeys
from ex4d_core.local_token import USER, read_token
from ex4d_core.messages import CHUNK_BYTES, GetBlob, Hello, Welcome
from ex4d_core.wire import encode

resource = pytest.importorskip("resource", reason="Windows has no limit of descriptors")
PATIENCE = 240.0
MEGABYTE = 1024 * 1024
# What is too much for one client, however it is sent.
LIMIT = MAX_GROWTH_BYTES
MORE, LARGE, COMMAND = 1, 2, 4

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only tried on Linux")


def frame(data: bytes, flags: int) -> bytes:
    """A frame of ZeroMQ's protocol 3."""
    if len(data) > 255:
        return struct.pack(">BQ", flags | LARGE, len(data)) + data
    return struct.pack("BB", flags, len(data)) + data


def text(data: bytes) -> bytes:
    return bytes([len(data)]) + data


class RawClient:
    """A client of ZeroMQ's protocol 3 on a plain socket, which may do what libzmq never does."""

    def __init__(self, address: str, receive_buffer: int = 0):
        host, port = address.removeprefix("tcp://").split(":")
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((host, int(port)))
        self.socket.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"PLAIN".ljust(20, b"\0") + bytes(32))
        self._receive(64)
        hello = text(b"HELLO") + text(USER.encode()) + text(read_token(address).encode())
        self.socket.sendall(frame(hello, COMMAND))
        assert b"WELCOME" in self.receive_frame()
        self.socket.sendall(frame(text(b"INITIATE") + text(b"Socket-Type") + struct.pack(">I", 6) + b"DEALER", COMMAND))
        assert b"READY" in self.receive_frame()

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            received = self.socket.recv(count - len(data))
            if not received:
                raise ConnectionError("the service closed the connection")
            data += received
        return data

    def receive_frame(self) -> bytes:
        flags, short = self._receive(2)
        size = struct.unpack(">Q", bytes([short]) + self._receive(7))[0] if flags & LARGE else short
        return self._receive(size)

    def send(self, message) -> None:
        self.socket.sendall(frame(encode(message, 1)[0], 0))

    def flood(self, data: bytes, at_most: int, sent: Callable[[], None]) -> int:
        """Send the same bytes until the connection ends; returns how many were sent."""
        count = 0
        try:
            while count < at_most:
                self.socket.sendall(data)
                count += len(data)
                sent()
        except ConnectionError:
            pass
        return count


def memory(service) -> int:
    return psutil.Process(service.process.pid).memory_info().rss


@pytest.mark.parametrize("size", [0, 100, 60_000, 20 * MEGABYTE])
def test_an_endless_message_is_cut_off(start_service, connect, size):
    service = start_service()
    wire = connect(service)
    assert isinstance(wire.ask(Hello()), Welcome)
    before = memory(service)
    endless = RawClient(service.address)
    part, grown = frame(bytes(size), MORE), [0]
    data = part * max(1, MEGABYTE // len(part))
    sent = endless.flood(data, 4 * LIMIT, lambda: grown.append(memory(service) - before))
    print(f"{size=} sent {sent / MEGABYTE:.0f} MB, memory grew by {max(grown) / MEGABYTE:.0f} MB")
    assert sent < 4 * LIMIT, "nobody cut it off"
    assert max(grown) < 2 * LIMIT
    assert isinstance(wire.ask(Hello()), Welcome)
    assert service.wait_for_log("cut off a connection from 127.0.0.1: (a|its) message ")
    endless.socket.close()


def test_clients_that_never_read_are_cut_off_together(start_service, connect):
    """Each of them may have replies waiting; all of them together take no more than a bound."""
    service = start_service()
    wire = connect(service)
    blob = wire.upload(bytes(CHUNK_BYTES))
    before = memory(service)
    greedy = []
    for _ in range(40):
        greedy.append(RawClient(service.address, receive_buffer=8192))
        for _ in range(60):
            greedy[-1].send(GetBlob(blob, 0))
        assert isinstance(wire.ask(Hello()), Welcome)
    assert service.wait_for_log("cut off a connection from 127.0.0.1: replies that nobody fetches")
    grown = memory(service) - before
    assert grown < 1.5 * MAX_TOTAL_BYTES, f"{grown / MEGABYTE:.0f} MB"
    assert wire.download(blob) == bytes(CHUNK_BYTES)
    for one in greedy:
        one.socket.close()


def test_idle_strangers_do_not_keep_clients_with_a_key_out(start_service, tmp_path):
    """With as few descriptors as some systems give; and no file of the service is in want of one."""
    keys = create_keys(tmp_path / "keys")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        service = start_service(keys=str(tmp_path / "keys"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    host, port = service.address.removeprefix("tcp://").split(":")
    with ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE))
        client = Client(service.address, keys=ClientKeys(*keys))
        stack.callback(client.close)
        assert isinstance(client.ask(Hello(), timeout=PATIENCE), Welcome)
        process = psutil.Process(service.process.pid)
        assert process.num_fds() < 200
        assert process.rlimit(psutil.RLIMIT_NOFILE)[0] > 256
    assert service.wait_for_log("cut off a connection from 127.0.0.1: more than .* connections say nothing")
