"""`Client`: the connection to a backend service, for Blender, the command line and the tests.

Nothing here blocks and nothing runs in a thread: the owner calls `Client.poll` from a timer (Blender) or `Client.wait`
in a loop (command line). Conversations are generators that yield requests and receive replies (see
`ex4d_core.remote_job`); the client sends the requests, and again after a lost connection: they are idempotent. A
conversation with work of its own (hashing a long file) does it in pieces, and yields an empty list after each.
"""

from __future__ import annotations

import heapq
import time
import uuid
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import zmq

from ex4d_core import __version__
from ex4d_core.errors import Ex4dError
from ex4d_core.handshakes import Handshakes
from ex4d_core.local_token import USER, read_token, token_file
from ex4d_core.messages import (
    ANSWERS,
    DEFAULT_ADDRESS,
    MAX_HEADER_BYTES,
    MAX_IMAGE_BYTES,
    REPLIES,
    Error,
    GetCoverage,
    GetEvents,
    GetView,
    Hello,
    Message,
    Welcome,
)
from ex4d_core.wire import ProtocolError, decode, encode

HEARTBEAT_SECONDS = 2.0
# Three heartbeats without a reply: the backend or the network is down.
UNREACHABLE_SECONDS = 6.0
# An owner that polls less often than this was busy with something else; its timer is far quicker.
ASLEEP_SECONDS = 2.0
# A request without a reply is sent again after this long.
RESEND_SECONDS = 4.0
# The token of a backend on this machine is looked up again after this long, while it does not let us in.
TOKEN_SECONDS = 0.1
# A backend that has just started listens for a moment before its token is in the file.
_REFUSALS = 3
# The first view waits until the backend has loaded what it renders with.
VIEW_SECONDS = 120.0

Result = TypeVar("Result")
Conversation = Generator["Message | Sequence[Message] | Pause", Any, Result]


@dataclass(frozen=True)
class Pause:
    """What a conversation yields to go on after some seconds; `Client` then sends it an empty list."""

    seconds: float


class ConnectionState(str, Enum):
    """Whether the backend replies."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


class ClientError(Ex4dError):
    """The backend cannot be used at all: an invalid address, unreadable keys, or no reply."""


class RequestRefused(Ex4dError):
    """The backend replied with an error. ``code`` is one of `messages.Error`'s codes."""

    def __init__(self, code: str, text: str):
        """See the class; the text is for people."""
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class ClientKeys:
    """CURVE keys: our certificate (``*.key_secret``) and the server's public one (``*.key``), in pyzmq's format."""

    client_secret: Path
    server_public: Path


class Task(Generic[Result]):
    """A conversation in progress; see `Client.start`.

    Attributes:
        done: whether it has ended.
        result: what it returned, once done without error.
        error: what ended it, if anything did.
    """

    def __init__(self, conversation: Conversation[Result]):
        """For `Client.start`."""
        self._conversation = conversation
        self._waiting: list[int] = []
        self._replies: dict[int, Message] = {}
        self._single = True
        self.done = False
        self.result: Result | None = None
        self.error: Exception | None = None

    def outcome(self) -> Result:
        """The result of a task that is done; raises its error."""
        if self.error:
            raise self.error
        return cast(Result, self.result)


@dataclass
class _Pending:
    """A request without a reply yet. ``sent`` is 0 until a connection took it."""

    message: Message
    task: Task[Any] | None
    sent: float = 0.0


class Client:
    """A connection to one backend.

    Attributes:
        state: CONNECTED means that the backend replied within the last seconds.
        since: monotonic time of the last change of state.
        server: how the backend introduced itself, or None.
        refusal: why the state is REFUSED (another protocol version, wrong keys), for people.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, name: str = "", keys: ClientKeys | None = None):
        """Start to connect.

        Args:
            address: ``tcp://HOST:PORT``.
            name: of this client, for the backend.
            keys: for a backend that needs them. Without, the token of a backend on this machine is looked up by the
                address (see `ex4d_core.local_token`).

        Raises:
            ClientError: the address is invalid, or the keys cannot be read.
        """
        self.address = address
        self.name = name or f"ex4d {__version__}"
        self.state = ConnectionState.CONNECTING
        self.since = time.monotonic()
        self.server: Welcome | None = None
        self.refusal = ""
        # Whether a token is asked for, the one in use, and how often in a row it was refused.
        self._local = keys is None and token_file(address) is not None
        self._token = read_token(address) if self._local else ""
        self._refused, self._token_at = 0, 0.0
        self._socket, self._handshakes = _connect(address, keys, self._token)
        self._pending: dict[int, _Pending] = {}
        self._unsent: deque[int] = deque()
        self._working: deque[Task[Any]] = deque()
        # Conversations that pause, by the time when they go on.
        self._pausing: list[tuple[float, int, Task[Any]]] = []
        self._next_id, self._pauses = 1, 0
        self._heard = self._polled = time.monotonic()
        self._hello_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether any conversation is under way."""
        return bool(self._working or self._pausing) or any(
            pending.task is not None for pending in self._pending.values()
        )

    def close(self) -> None:
        """Drop the connection; conversations in progress end with an error."""
        for task in [*(pending.task for pending in self._pending.values()), *self._working, *self._paused_tasks()]:
            if task and not task.done:
                self._end(task, ClientError("the connection was closed"))
        self._pending.clear()
        self._working.clear()
        self._pausing.clear()
        self._handshakes.close()
        self._socket.close(linger=0)

    def start(self, conversation: Conversation[Result]) -> Task[Result]:
        """Begin a conversation; it continues whenever `poll` or `wait` is called."""
        task = Task(conversation)
        self._advance(task, None)
        return task

    def stop(self, task: Task[Any]) -> None:
        """Abandon a conversation on this side (a job of the backend continues; see `messages.Cancel`)."""
        for request_id in task._waiting:
            self._pending.pop(request_id, None)
        task._conversation.close()
        task.done = True

    def poll(self, budget: float = 0.004) -> None:
        """Handle messages that have arrived, for ``budget`` seconds at most; never waits.

        One message takes well under a millisecond (chunks are `messages.CHUNK_BYTES`), so the budget is kept.
        """
        deadline = time.monotonic() + budget
        if refusal := self._handshakes.refusal():
            self._refused += 1
            if not self._local or self._refused >= _REFUSALS:
                self._refuse(refusal)
        self._keep_alive()
        self._flush()
        while time.monotonic() < deadline:
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._receive(parts)
            self._flush()
        while self._pausing and self._pausing[0][0] <= time.monotonic():
            self._working.append(heapq.heappop(self._pausing)[2])
        # Conversations with work of their own get the rest of the time, at least for one piece.
        while self._working:
            task = self._working.popleft()
            if not task.done:
                self._advance(task, [])
            if time.monotonic() >= deadline:
                break
        self._flush()

    def wait(self, timeout: float = 0.1) -> None:
        """Sleep up to ``timeout`` seconds until something arrives, then handle it; for programs without a UI."""
        self._keep_alive()
        self._flush()
        if self._pausing:
            timeout = min(timeout, max(self._pausing[0][0] - time.monotonic(), 0.0))
        self._socket.poll(0 if self._working else int(timeout * 1000))
        self.poll(budget=0.05)

    def ask(self, message: Message, timeout: float | None = None) -> Any:
        """Send a request and return its reply, blocking; raises as `run` does."""

        def conversation() -> Conversation[Message]:
            return (yield message)

        return self.run(conversation(), timeout)

    def run(self, conversation: Conversation[Result], timeout: float | None = None) -> Result:
        """Run a whole conversation, blocking; for programs without a UI.

        Raises:
            ClientError: no reply from the backend for ``timeout`` seconds, or it has another version.
            RequestRefused: the backend replied with an error.
        """
        task = self.start(conversation)
        try:
            while not task.done:
                self.wait()
                self.require_answer(timeout)
        except ClientError:
            self.stop(task)
            raise
        return task.outcome()

    def require_answer(self, timeout: float | None) -> None:
        """Check that the backend replies.

        Raises:
            ClientError: it has another version, or has not replied for ``timeout`` seconds.
        """
        if self.state is ConnectionState.REFUSED:
            raise ClientError(self.refusal)
        if timeout is not None and time.monotonic() - self._heard > timeout:
            raise ClientError(f"no backend replies at {self.address}; start one with 'ex4d serve'")

    def _keep_alive(self) -> None:
        now = time.monotonic()
        # Time in which nobody polled (a render, a modal dialog) is not the backend's silence.
        asleep, self._polled = now - self._polled, now
        if asleep > ASLEEP_SECONDS:
            self._heard += asleep
        if self._local and (self._refused or self.state is not ConnectionState.CONNECTED):
            self._look_up_token(now)
        if now - self._hello_at > HEARTBEAT_SECONDS:
            self._hello_at = now
            # Drop earlier heartbeats without a reply; a conversation's own greeting has a task and stays.
            self._pending = {key: one for key, one in self._pending.items() if one.task}
            self._ask(Hello(self.name), None)
        if now - self._heard > UNREACHABLE_SECONDS and self.state is not ConnectionState.REFUSED:
            self._change_state(ConnectionState.UNREACHABLE)
        for request_id, pending in self._pending.items():
            if pending.sent and now - pending.sent > _resend_seconds(pending.message):
                pending.sent = 0.0
                self._unsent.append(request_id)

    def _look_up_token(self, now: float) -> None:
        """Connect again with a new token; after a refusal also with the same one, which may be in time now."""
        if now - self._token_at < TOKEN_SECONDS:
            return
        self._token_at = now
        token = read_token(self.address)
        if token != self._token:
            self._refused = 0
        elif not 0 < self._refused < _REFUSALS:
            return
        self._token = token
        self._handshakes.close()
        self._socket.close(linger=0)
        self._socket, self._handshakes = _connect(self.address, None, token)
        self._unsent = deque(self._pending)
        for pending in self._pending.values():
            pending.sent = 0.0
        if self.state is ConnectionState.REFUSED:
            self._change_state(ConnectionState.CONNECTING)

    def _flush(self) -> None:
        """Send requests that wait for a connection, in order."""
        while self._unsent:
            pending = self._pending.get(self._unsent[0])
            if pending is not None:
                try:
                    self._socket.send_multipart(encode(pending.message, self._unsent[0]), zmq.NOBLOCK)
                except zmq.Again:
                    return
                pending.sent = time.monotonic()
            self._unsent.popleft()

    def _ask(self, message: Message, task: Task[Any] | None) -> int:
        request_id = self._next_id
        self._next_id += 1
        self._pending[request_id] = _Pending(message, task)
        self._unsent.append(request_id)
        return request_id

    def _receive(self, parts: list[bytes]) -> None:
        try:
            request_id, reply = decode(parts, REPLIES)
        except ProtocolError as error:
            # Only another version of the backend sends this; asking again would not help.
            self._refuse(f"wrong version: {error}")
            return
        self._heard = time.monotonic()
        if isinstance(reply, Error) and reply.code == "version":
            self._refuse(f"wrong version: {reply.text}")
            return
        if isinstance(reply, Welcome):
            self.server, self._refused = reply, 0
            self._change_state(ConnectionState.CONNECTED)
        pending = self._pending.pop(request_id, None)
        if pending is None or pending.task is None:
            return
        if not isinstance(reply, (ANSWERS.get(type(pending.message), Message), Error)):
            asked, got = type(pending.message).__name__, type(reply).__name__
            reply = Error("bad-message", f"the backend at {self.address} answered {asked} with {got}; is it ours?")
        task = pending.task
        task._replies[request_id] = reply
        if all(one in task._replies for one in task._waiting):
            replies = [task._replies.pop(one) for one in task._waiting]
            task._replies.clear()
            self._advance(task, replies)

    def _refuse(self, text: str) -> None:
        self.refusal = text
        self._change_state(ConnectionState.REFUSED)

    def _change_state(self, state: ConnectionState) -> None:
        if state is self.state:
            return
        back = state is ConnectionState.CONNECTED
        self.state = state
        self.since = time.monotonic()
        if back:
            # Requests to a backend that went away were lost with it: send them again now.
            for request_id, pending in self._pending.items():
                if pending.task and pending.sent and pending.sent < self._hello_at:
                    pending.sent = 0.0
                    self._unsent.append(request_id)

    def _advance(self, task: Task[Any], replies: list[Message] | None) -> None:
        """Give the conversation its replies and send its next requests."""
        refused = next((reply for reply in replies or [] if isinstance(reply, Error)), None)
        try:
            if replies is None:
                asked = next(task._conversation)
            elif refused:
                asked = task._conversation.throw(RequestRefused(refused.code, refused.text))
            else:
                asked = task._conversation.send(replies[0] if task._single else replies)
        except StopIteration as stop:
            task.result, task.done = stop.value, True
            return
        # A conversation is the owner's code, and a timer that raised would end all conversations.
        except Exception as error:
            self._end(task, error)
            return
        if isinstance(asked, Pause):
            task._single, task._waiting, self._pauses = False, [], self._pauses + 1
            heapq.heappush(self._pausing, (time.monotonic() + asked.seconds, self._pauses, task))
            return
        task._single = isinstance(asked, Message)
        task._waiting = [self._ask(message, task) for message in ([asked] if isinstance(asked, Message) else asked)]
        if not task._waiting:
            self._working.append(task)

    def _paused_tasks(self) -> list[Task[Any]]:
        return [task for _, _, task in self._pausing]

    def _end(self, task: Task[Any], error: Exception) -> None:
        task._conversation.close()
        task.error, task.done = error, True


def _resend_seconds(message: Message) -> float:
    """Seconds after which a request without a reply is sent again."""
    if isinstance(message, GetEvents):
        return RESEND_SECONDS + message.wait
    return VIEW_SECONDS if isinstance(message, (GetView, GetCoverage)) else RESEND_SECONDS


def _connect(address: str, keys: ClientKeys | None, token: str) -> tuple[zmq.Socket[bytes], Handshakes]:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    # Without a connection a send fails at once, instead of queueing requests that would arrive twice.
    socket.setsockopt(zmq.IMMEDIATE, 1)
    # Reconnect when a connection falls silent (another network, a sleeping router).
    socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
    # Drop anything larger than our messages before it takes memory.
    socket.setsockopt(zmq.MAXMSGSIZE, max(MAX_HEADER_BYTES, MAX_IMAGE_BYTES) + 1024 * 1024)
    socket.setsockopt(zmq.IPV6, int("[" in address))
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
    socket.setsockopt(zmq.ROUTING_ID, uuid.uuid4().bytes)
    try:
        if keys:
            _use_keys(socket, keys)
        elif token:
            socket.plain_username, socket.plain_password = USER.encode(), token.encode()
        handshakes = Handshakes(socket, keys is not None, token_file(address) if keys is None else None, bool(token))
        socket.connect(address)
    except (OSError, ValueError, TypeError, zmq.ZMQError, ClientError) as error:
        socket.disable_monitor()
        socket.close(linger=0)
        if isinstance(error, ClientError):
            raise
        raise ClientError(f"invalid address {address!r} ({error}): expected tcp://HOST:PORT") from error
    return socket, handshakes


def _use_keys(socket: zmq.Socket[bytes], keys: ClientKeys) -> None:
    from zmq.auth import load_certificate

    try:
        socket.curve_serverkey, _ = load_certificate(keys.server_public)
        socket.curve_publickey, socket.curve_secretkey = load_certificate(keys.client_secret)
    except (OSError, ValueError, TypeError, zmq.ZMQError) as error:
        raise ClientError(
            f"cannot use the keys {keys.client_secret} and {keys.server_public}: {error}; expected this computer's own "
            "NAME.key_secret, and the backend's server.key"
        ) from error
