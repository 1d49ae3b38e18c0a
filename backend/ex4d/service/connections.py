"""`bind_router` and `ConnectionGuard`: limit the connections of a service's socket and the memory that they take.

ZeroMQ bounds a part of a message, not the message, and neither connections nor what they hold in total. Its monitor
names each connection's descriptor, though, and the system counts the bytes of each (`ex4d_core.tcp_counts`): a thread
compares these with what the service has handled, and cuts connections off that go beyond a limit. Honest clients
connect again by themselves and repeat their requests.
"""

from __future__ import annotations

import logging
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import zmq
from zmq.utils.monitor import recv_monitor_message

from ex4d_core.message_base import MAX_HEADER_BYTES
from ex4d_core.messages import CHUNK_BYTES
from ex4d_core.tcp_counts import borrowed_socket, tcp_counts

log = logging.getLogger(__name__)

# libzmq drops a larger part before it allocates memory for it, and disconnects the peer that sent it.
_MAX_PART_BYTES = MAX_HEADER_BYTES + 1024 * 1024
# Replies waiting for one client to read them: 16 MB of chunks. Any more are dropped, and the client asks again.
_MAX_QUEUED_REPLIES = 64
# Descriptors that files, pipes to workers and the job database need.
_OTHER_DESCRIPTORS = 256
_WANTED_DESCRIPTORS = 65536
_MAX_CONNECTIONS = 1000
# Of those, the share of one user, where there are several.
_SHARE_OF_USER = 0.25
# Of those, connections that have sent no message yet. Honest ones do so after two or three round trips.
_MAX_NEW = 64
_NEW_SECONDS = 20.0
# Bytes of one connection since its last whole message: the largest message twice, as a client may repeat it.
MAX_UNHANDLED_BYTES = 2 * (MAX_HEADER_BYTES + CHUNK_BYTES)
# The same of all connections together, and replies that clients have not fetched.
MAX_TOTAL_BYTES = 256 * 1024 * 1024
# By so much may this process grow while messages are unfinished: a frame of 2 bytes takes 64 in memory.
MAX_GROWTH_BYTES = 256 * 1024 * 1024
# Less than that of one connection is nothing to worry about: a window of chunks.
_USUAL_BYTES = 2 * 1024 * 1024
# A sender on this machine manages some 50 MB meanwhile.
_TICK_SECONDS = 0.025
_IDLE_SECONDS = 1.0
# A pair of ints, which Windows has of 16 bits.
_AT_ONCE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_MONITOR_STOPPED
# A report of each kind is logged at most this often.
_LOG_SECONDS = 10.0


def bind_router(socket: zmq.Socket[bytes], address: str) -> str:
    """Set a ROUTER socket's limits and bind it; returns the address, with the real port in place of port 0.

    Raises:
        zmq.ZMQError: it cannot be bound.
    """
    socket.setsockopt(zmq.MAXMSGSIZE, _MAX_PART_BYTES)
    socket.setsockopt(zmq.SNDHWM, _MAX_QUEUED_REPLIES)
    socket.setsockopt(zmq.RCVHWM, _MAX_QUEUED_REPLIES)
    socket.setsockopt(zmq.LINGER, 200)
    # A dropped reply is known to be dropped, and not counted as one that waits; see `ex4d.service.front`.
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    # A connection that says nothing else; its handshake has two round trips.
    socket.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
    # Forget a client that disappeared (a closed laptop).
    socket.setsockopt(zmq.HEARTBEAT_IVL, 15_000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 60_000)
    # A client that reconnects under its name gets the replies, instead of its lost connection.
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    socket.setsockopt(zmq.IPV6, int("[" in address))
    socket.bind(address)
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


@dataclass
class _Connection:
    """A connection of a client.

    Attributes:
        descriptor: of its TCP socket.
        peer: the address of the other side.
        since: monotonic time when it was accepted.
        announced: whether the monitor has named it; its first message may arrive before that.
        heard: whether it has sent a whole message.
        user: who sent it; None before.
        fresh: whether it has done so since the last tick.
        handled: bytes that had arrived when its last whole message was known.
        received, acknowledged: bytes that came, and bytes of ours that the other side has.
        replied: bytes of replies, and what other side had before them.
    """

    descriptor: int
    peer: str = ""
    since: float = field(default_factory=time.monotonic)
    announced: bool = False
    heard: bool = False
    user: str | None = None
    fresh: bool = False
    handled: int = 0
    received: int = 0
    acknowledged: int = 0
    replied: int = 0

    @property
    def unhandled(self) -> int:
        """Bytes since its last whole message."""
        return self.received - self.handled

    @property
    def unfetched(self) -> int:
        """Bytes of replies that the other side has not fetched."""
        return self.replied - self.acknowledged


class ConnectionGuard:
    """Watches the connections of one socket in a thread; `heard` and `replied` are for the service's loop."""

    def __init__(self, router: zmq.Socket[bytes], max_connections: int = _MAX_CONNECTIONS, *, many_users: bool = False):
        """Watch a socket that is not bound yet; of ``many_users`` none has more than a quarter of the connections."""
        self._max = max_connections
        self._max_of_user = int(max_connections * _SHARE_OF_USER) if many_users else max_connections
        self._connections: dict[int, _Connection] = {}
        self._of_client: dict[bytes, int] = {}
        self._lock = threading.Lock()
        self._reported: dict[str, float] = {}
        self._router = router
        self._process = psutil.Process()
        self._usual_memory = self._process.memory_info().rss
        self._monitor = router.get_monitor_socket(_EVENTS)
        self._thread = threading.Thread(target=self._watch, name="connections", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching; before the socket is closed."""
        self._router.disable_monitor()
        self._thread.join()
        self._monitor.close(linger=0)

    def heard(self, client: bytes, descriptor: int, user: str = "") -> None:
        """A whole message of a client, which is a user's, has arrived on this connection."""
        with self._lock:
            connection = self._connections.get(descriptor)
            if connection is None:
                connection = self._connections[descriptor] = _Connection(descriptor)
            connection.heard = connection.fresh = True
            self._of_client[client] = descriptor
            if connection.user is None:
                connection.user = user
                if sum(one.user == user for one in self._connections.values()) > self._max_of_user:
                    self._cut(connection, f"its user has {self._max_of_user} connections already")

    def replied(self, client: bytes, parts: Sequence[bytes]) -> None:
        """A reply to a client was queued."""
        with self._lock:
            connection = self._connections.get(self._of_client.get(client, -1))
            if connection is not None:
                connection.replied += sum(map(len, parts))

    def _watch(self) -> None:
        due = 0.0
        while True:
            if self._monitor.poll(int((_TICK_SECONDS if self._connections else _IDLE_SECONDS) * 1000)):
                event = recv_monitor_message(self._monitor)
                if event["event"] == zmq.EVENT_MONITOR_STOPPED:
                    return
                with self._lock:
                    self._note(event["event"], event["value"])
            if time.monotonic() >= due:
                with self._lock:
                    self._check()
                due = time.monotonic() + _TICK_SECONDS

    def _note(self, event: int, descriptor: int) -> None:
        if event == zmq.EVENT_DISCONNECTED:
            self._forget(descriptor)
            return
        connection = self._connections.get(descriptor)
        if connection is None or connection.announced:
            self._forget(descriptor)
            connection = self._connections[descriptor] = _Connection(descriptor)
        connection.announced = True
        with suppress(OSError), borrowed_socket(descriptor) as accepted:
            connection.peer = str(accepted.getpeername()[0])
        new = [one for one in self._connections.values() if not one.heard]
        if len(new) > _MAX_NEW or (len(self._connections) > self._max and new):
            # Whoever opens many at once loses its own.
            crowd, _ = Counter(one.peer for one in new).most_common(1)[0]
            oldest = next(one for one in new if one.peer == crowd)
            self._cut(oldest, f"more than {min(_MAX_NEW, self._max)} connections say nothing")
        elif len(self._connections) > self._max:
            self._cut(connection, f"there are {self._max} connections already")

    def _check(self) -> None:
        now = time.monotonic()
        for one in list(self._connections.values()):
            if not one.heard and now - one.since > _NEW_SECONDS:
                self._cut(one, f"it said nothing for {_NEW_SECONDS:.0f} s")
            elif not self._count(one):
                self._forget(one.descriptor)
            elif one.unhandled > MAX_UNHANDLED_BYTES:
                self._cut(one, f"a message is longer than {MAX_UNHANDLED_BYTES >> 20} MB")
        memory = self._process.memory_info().rss
        largest = max(self._connections.values(), key=_unhandled, default=None)
        if largest is None or largest.unhandled <= _USUAL_BYTES:
            self._usual_memory = memory
        elif memory - self._usual_memory > MAX_GROWTH_BYTES:
            self._cut(largest, f"its message takes more than {MAX_GROWTH_BYTES >> 20} MB")
        for measure, what in ((_unhandled, "unfinished messages"), (_unfetched, "replies that nobody fetches")):
            while sum(map(measure, self._connections.values())) > MAX_TOTAL_BYTES:
                largest = max(self._connections.values(), key=measure)
                self._cut(largest, f"{what} take more than {MAX_TOTAL_BYTES >> 20} MB")

    def _count(self, connection: _Connection) -> bool:
        """Read the system's counts; False if the connection has ended."""
        try:
            counts = tcp_counts(connection.descriptor)
        except OSError:
            return False
        if counts is None:
            return True
        connection.acknowledged, connection.received = counts.acknowledged, counts.received
        if connection.fresh:
            connection.fresh, connection.handled = False, connection.received
        # More was fetched than replied: handshakes, heartbeats and the frames around messages count, too.
        connection.replied = max(connection.replied, connection.acknowledged)
        return True

    def _cut(self, connection: _Connection, why: str) -> None:
        if (now := time.monotonic()) - self._reported.get(why, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._reported[why] = now
            log.warning("cut off a connection from %s: %s", connection.peer or "a client", why)
        with suppress(OSError), borrowed_socket(connection.descriptor) as one:
            # The other side learns it at once; otherwise one that waits for room to send would wait for two minutes.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            one.shutdown(socket.SHUT_RDWR)
        self._forget(connection.descriptor)

    def _forget(self, descriptor: int) -> None:
        if self._connections.pop(descriptor, None) is not None:
            self._of_client = {client: one for client, one in self._of_client.items() if one != descriptor}


def raise_descriptor_limit() -> int:
    """Let this process open as many files and connections as the system allows; returns the most connections."""
    limit = _WANTED_DESCRIPTORS
    if sys.platform != "win32":
        import resource

        limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _WANTED_DESCRIPTORS)
        if limit != resource.RLIM_INFINITY and limit < wanted:
            with suppress(OSError, ValueError):  # a sandbox may forbid it
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                limit = wanted
        if limit == resource.RLIM_INFINITY:
            limit = wanted
    most = min(_MAX_CONNECTIONS, max(limit - _OTHER_DESCRIPTORS, limit // 2))
    if most < _MAX_CONNECTIONS:
        log.warning("at most %d connections, as the system allows %d open files; raise 'ulimit -n'", most, limit)
    return most


def _unhandled(connection: _Connection) -> int:
    return connection.unhandled


def _unfetched(connection: _Connection) -> int:
    return connection.unfetched
