"""`ClientSocket`: the ZeroMQ socket of a client, with its keys or token, and what watches it."""

from __future__ import annotations

import logging
import os
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path

import zmq

from ex4d_core.conversations import ClientError
from ex4d_core.handshakes import Handshakes
from ex4d_core.local_token import USER, token_file
from ex4d_core.message_base import MAX_HEADER_BYTES
from ex4d_core.reply_guard import ReplyGuard
from ex4d_core.view_messages import MAX_IMAGE_BYTES

log = logging.getLogger(__name__)

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class ClientKeys:
    """What a backend with keys asks for: this computer's secret certificate, and the backend's public one."""

    client_secret: Path
    server_public: Path


class ClientSocket:
    """A DEALER socket that connects, and connects again, to one address."""

    def __init__(self, address: str, keys: ClientKeys | None, token: str):
        """Start to connect.

        Raises:
            ClientError: the address is invalid, or the keys cannot be used.
        """
        self._socket = _socket(address)
        self.guard = ReplyGuard(self._socket)
        self._handshakes = Handshakes(keys is not None, token_file(address) if keys is None else None, bool(token))
        try:
            if keys:
                _use_keys(self._socket, keys)
            elif token:
                self._socket.plain_username, self._socket.plain_password = USER.encode(), token.encode()
            self._socket.connect(address)
        except (OSError, ValueError, TypeError, zmq.ZMQError, ClientError) as error:
            self.close()
            if isinstance(error, ClientError):
                raise
            raise ClientError(f"invalid address {address!r} ({error}): expected tcp://HOST:PORT") from error

    def close(self) -> None:
        """Drop the connection; again does nothing."""
        if not self._socket.closed:
            self.guard.close()
            self._socket.close(linger=0)

    def refusal(self) -> str:
        """Why handshakes failed since the last call, for people; "" for nothing."""
        return self._handshakes.refusal(self.guard.handshakes())

    def send(self, parts: list[bytes]) -> bool:
        """Send a message; False while there is no connection, or no room.

        Without one it would be queued, and arrive besides what is sent again then.
        """
        if not self.guard.connected.is_set():
            return False
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> list[bytes] | None:
        """A message that has arrived, or None."""
        try:
            parts = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        self.guard.heard()
        return parts

    def wait(self, seconds: float, *, to_send: bool = False) -> bool:
        """Sleep until something arrives, or with ``to_send`` until there is a connection; returns whether it did."""
        if to_send and not self.guard.connected.is_set():
            # What arrived before the connection ended is there already; no more comes without another.
            return bool(self._socket.poll(0)) or self.guard.connected.wait(seconds)
        return bool(self._socket.poll(int(seconds * 1000), zmq.POLLIN | (zmq.POLLOUT if to_send else 0)))


def _socket(address: str) -> zmq.Socket[bytes]:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    # Not `zmq.IMMEDIATE`: with it libzmq 4.3.5 drops what is half read when a connection ends, and then aborts the
    # process ("Assertion failed: !_more"). `ClientSocket.send` looks at the connection instead.
    # Reconnect when a connection falls silent (another network, a sleeping router).
    socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
    # Drop a part that is larger than our messages before it takes memory; the guard bounds the whole message.
    socket.setsockopt(zmq.MAXMSGSIZE, max(MAX_HEADER_BYTES, MAX_IMAGE_BYTES) + 1024 * 1024)
    socket.setsockopt(zmq.IPV6, int("[" in address))
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
    socket.setsockopt(zmq.ROUTING_ID, uuid.uuid4().bytes)
    return socket


def _use_keys(socket: zmq.Socket[bytes], keys: ClientKeys) -> None:
    from zmq.auth import load_certificate

    _keep_secret(keys.client_secret)
    try:
        socket.curve_serverkey, _ = load_certificate(keys.server_public)
        socket.curve_publickey, socket.curve_secretkey = load_certificate(keys.client_secret)
    except (OSError, ValueError, TypeError, zmq.ZMQError) as error:
        raise ClientError(
            f"cannot use the keys {keys.client_secret} and {keys.server_public}: {error}; expected this computer's own "
            "NAME.key_secret, and the backend's server.key"
        ) from error


def _keep_secret(path: Path) -> None:
    """Take other users' rights from a file with a secret key.

    Raises:
        ClientError: others can use it, and we cannot stop that.
    """
    if os.name == "nt" or not path.is_file():  # a user's files are private there; what is missing is reported later
        return
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & _OTHERS:
            return
        path.chmod(mode & ~_OTHERS)
        # Some file systems (FAT, network shares) say yes, and change nothing.
        kept, why = path.stat().st_mode & _OTHERS == 0, "its file system keeps no permissions"
    except OSError as error:
        kept, why = False, error.strerror or str(error)
    if not kept:
        raise ClientError(
            f"other users of this computer can use the secret key {path} ({why}); copy it into a folder of your own, "
            "make it yours (chown), and run: chmod go-rwx on it"
        )
    log.warning("others could use %s until now; if somebody may have, ask for a new key", path)
