"""`WaitingFront` answers the clients of a service that cannot start yet, since its disk is full."""

from __future__ import annotations

import logging
import threading
import time

import zmq

from ex4d_core import __version__
from ex4d_core.messages import REQUESTS, Error, GetEvents, Hello, Message, Welcome
from ex4d_core.stages import PAUSED
from ex4d_core.wire import ProtocolError, decode, encode

log = logging.getLogger(__name__)

_RETRY_SECONDS = 2.0
_LOOK_MILLISECONDS = 100


class StoppedWaiting(Exception):
    """The service was asked to end while it waited."""


class WaitingFront:
    """Tells everybody why the service waits; to be used until it can open its stores."""

    def __init__(self, socket: zmq.Socket[bytes], address: str, stop: threading.Event):
        """Answer on a ROUTER socket that is bound to an address, until ``stop`` is set."""
        self._socket, self._address, self._stop = socket, address, stop
        self._reported = ""

    def wait(self, reason: str) -> None:
        """Answer clients for some seconds.

        Raises:
            StoppedWaiting: the service is to end.
        """
        if not self._reported:
            log.info("listening on %s", self._address)
        if reason != self._reported:
            log.error("cannot start: %s; the service waits for room", reason)
            self._reported = reason
        until = time.monotonic() + _RETRY_SECONDS
        while time.monotonic() < until:
            if self._stop.is_set():
                raise StoppedWaiting
            if self._socket.poll(_LOOK_MILLISECONDS):
                self._answer(reason)

    def _answer(self, reason: str) -> None:
        client, *parts = self._socket.recv_multipart()
        try:
            number, message = decode(parts, REQUESTS)
        except ProtocolError as error:
            number, reply = error.request_id, Error(error.code, str(error))
        else:
            reply = _reply(message, reason)
        if reply:
            try:
                self._socket.send_multipart([client, *encode(reply, number)], zmq.NOBLOCK)
            except zmq.ZMQError:  # it has gone, or does not read; it will ask again
                return


def _reply(message: Message, reason: str) -> Message | None:
    if isinstance(message, Hello):
        return Welcome("ex4d", __version__, [f"no device{PAUSED}{reason}"], {}, {})
    # A client that follows a job asks again, and is to go on by itself; any other waits for a user.
    if isinstance(message, GetEvents):
        return None
    text = f"the backend cannot open its job database yet: {reason}; it starts by itself when there is room"
    return Error("disk-full", text)
