"""`Handshakes`: explains connections that fail over CURVE keys or a token: unknown, wrong, missing or not used.

ZeroMQ drops such connections silently; only the socket's monitor reports them (see `ex4d_core.reply_guard`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import zmq

# A handshake may also fail because the other side stops. With the wrong server key it fails every time; with keys that
# the backend does not use it may, since either side can find the fault first.
_FAILURES = 3

_UNKNOWN = (
    "refused: the backend does not know this computer's key; put its public part (*.key) into the folder 'clients' of "
    "the backend's keys, then connect again"
)
_REQUIRED = "refused: the backend requires keys; ask for a client's key and the server's public key, and set both files"
_UNUSED = "refused: the backend uses no keys; leave the key files out"
_WRONG = (
    "refused: the server's public key is not this backend's, or the backend uses no keys; ask for its server.key, or "
    "leave the key files out"
)
_WRONG_TOKEN = (
    "refused: the token in {file} is not this backend's; the user who started the backend is another one, or keeps it "
    "elsewhere: set EX4D_TOKENS to the same folder for both, or use keys (ex4d serve --create-keys)"
)
_NO_TOKEN = (
    "refused: the backend requires keys, or its token, which is not in {file}; if it has keys, set both key files; "
    "else start it as this user, or set EX4D_TOKENS to the same folder for both"
)
_UNUSED_TOKEN = (
    "refused: the backend takes no token, although {file} has one; set the key files if it has keys, or install "
    "matching versions of add-on and backend"
)


class Handshakes:
    """What a client tells of the handshakes of its socket."""

    def __init__(self, with_keys: bool, token_file: Path | None = None, with_token: bool = False):
        """Explain the handshakes of a socket, with or without keys or a token.

        Args:
            with_keys: whether it has keys.
            token_file: where its token is looked up, if that is done.
            with_token: whether it has one.
        """
        self._with_keys, self._cut_off = with_keys, 0
        self._token_file, self._with_token = token_file, with_token

    def refusal(self, events: Iterable[int]) -> str:
        """What the events of a socket's monitor mean, and what to do, for people; "" for nothing."""
        text = ""
        for event in events:
            cut_off = event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            self._cut_off = self._cut_off + 1 if cut_off else 0
            if self._token_file is not None:
                text = self._token_refusal(event) or text
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                text = _UNKNOWN
            elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                text = _UNUSED if self._with_keys else _REQUIRED
            elif cut_off and self._with_keys and self._cut_off >= _FAILURES:
                text = _WRONG
        return text

    def _token_refusal(self, event: int) -> str:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return _WRONG_TOKEN.format(file=self._token_file)
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            return (_UNUSED_TOKEN if self._with_token else _NO_TOKEN).format(file=self._token_file)
        return ""
