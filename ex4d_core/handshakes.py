"""Why a backend does not even say hello: keys that it does not know, or that are wanted on one side only.

ZeroMQ drops such connections without a word to the program; what it tells is on the socket's monitor.
"""

from __future__ import annotations

import zmq
from zmq.utils.monitor import recv_monitor_message

# A connection may end in its handshake because the other side stops. The wrong server key ends it every time, and keys
# that the backend does not use may: which side finds the fault first is a race.
_TIMES = 3

_UNKNOWN = (
    "refused: the backend does not know this computer's key; put its public part (*.key) into the folder 'clients' of "
    "the backend's keys, then connect again"
)
_WANTED = "refused: the backend wants keys; ask for a client's key and the server's public one, and name their files"
_UNWANTED = "refused: the backend uses no keys; leave the key files out"
_WRONG = (
    "refused: the server's public key is not this backend's, or the backend uses no keys; ask for its server.key, or "
    "leave the key files out"
)


class Handshakes:
    """Watches the handshakes of a client's socket."""

    def __init__(self, socket: zmq.Socket, with_keys: bool):
        self._socket, self._with_keys, self._cut_off = socket, with_keys, 0
        self._monitor = socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        )

    def close(self) -> None:
        self._socket.disable_monitor()

    def refusal(self) -> str:
        """What failed since the last call, and what to do, for people; "" if nothing did."""
        text = ""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            cut_off = event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            self._cut_off = self._cut_off + 1 if cut_off else 0
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                text = _UNKNOWN
            elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                text = _UNWANTED if self._with_keys else _WANTED
            elif cut_off and self._with_keys and self._cut_off >= _TIMES:
                text = _WRONG
        return text
