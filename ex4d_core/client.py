"""`Client`: the connection to a backend service, for Blender, the command line and the tests.

Nothing here blocks and nothing runs in a thread: the owner calls `Client.poll` from a timer (Blender) or `Client.wait`
in a loop (command line). Conversations are generators that yield requests and receive replies (see
`ex4d_core.remote_job`); the client sends the requests, and again after a lost connection: they are idempotent. A
conversation with work of its own (hashing a long file) does it in pieces, and yields an empty list after each.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from enum import Enum
from typing import Any

from ex4d_core import __version__
from ex4d_core.client_socket import ClientKeys, ClientSocket
from ex4d_core.conversations import ClientError, Conversation, Pause, RequestRefused, Result, Task, UnexpectedReply
from ex4d_core.local_token import read_token, token_file
from ex4d_core.messages import (
    ANSWERS,
    DEFAULT_ADDRESS,
    REPLIES,
    Error,
    Hello,
    Message,
    Reply,
    Welcome,
)
from ex4d_core.pending_requests import Pending, PendingRequests
from ex4d_core.sizes import size_text
from ex4d_core.wire import ProtocolError, decode

HEARTBEAT_SECONDS = 2.0
# Three heartbeats without a reply: the backend or the network is down.
UNREACHABLE_SECONDS = 6.0
# An owner that polls less often than this was busy with something else; its timer is far quicker.
ASLEEP_SECONDS = 2.0
# The token of a backend on this machine is looked up again after this long, while it does not let us in.
TOKEN_SECONDS = 0.1
# A backend that has just started listens for a moment before its token is in the file.
_REFUSALS = 3
# The code of our own error in place of a reply that cannot be read; no backend sends it.
_UNREADABLE = "unreadable"


class ConnectionState(str, Enum):
    """Whether the backend replies."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


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
        # Whether the other side has shown that it is no backend, so that it is not connected to any more.
        self._gave_up = False
        self._socket = ClientSocket(address, keys, self._token)
        self._pending = PendingRequests()
        self._working: deque[Task[Any]] = deque()
        # Conversations that pause, by the time when they go on.
        self._pausing: list[tuple[float, int, Task[Any]]] = []
        self._pauses = 0
        self._heard = self._polled = time.monotonic()
        self._hello_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether any conversation is under way."""
        return bool(self._working or self._pausing or self._pending.tasks)

    def close(self) -> None:
        """Drop the connection; conversations in progress end with an error."""
        for task in [*self._pending.tasks, *self._working, *(task for _, _, task in self._pausing)]:
            if not task.done:
                self._end(task, ClientError("the connection was closed"))
        self._pending = PendingRequests()
        self._working.clear()
        self._pausing.clear()
        self._socket.close()

    def start(self, conversation: Conversation[Result]) -> Task[Result]:
        """Begin a conversation; it continues whenever `poll` or `wait` is called."""
        task = Task(conversation)
        self._advance(task, None)
        return task

    def stop(self, task: Task[Any]) -> None:
        """Abandon a conversation on this side (a job of the backend continues; see `messages.Cancel`)."""
        self._pending.forget(task)
        task.conversation.close()
        task.done = True

    def poll(self, budget: float = 0.004) -> None:
        """Handle messages that have arrived, for ``budget`` seconds at most; never waits.

        One message takes well under a millisecond (chunks are `messages.CHUNK_BYTES`), so the budget is kept.
        """
        deadline = time.monotonic() + budget
        if refusal := self._socket.refusal():
            self._refused += 1
            if not self._local or self._refused >= _REFUSALS:
                self._refuse(refusal)
        if self._socket.guard.exceeded and not self._gave_up:
            self._give_up(f"sends {size_text(self._socket.guard.exceeded)} that nobody asked for")
        self._keep_alive()
        self._flush()
        while not self._gave_up and time.monotonic() < deadline and (parts := self._socket.receive()) is not None:
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
        timeout = 0.0 if self._working else timeout
        if self._gave_up:
            time.sleep(timeout)
        else:
            self._socket.wait(timeout, to_send=self._pending.has_unsent)
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
            self._pending.slept(asleep)
        if self._local and not self._gave_up and (self._refused or self.state is not ConnectionState.CONNECTED):
            self._look_up_token(now)
        if now - self._hello_at > HEARTBEAT_SECONDS:
            self._hello_at = now
            self._pending.forget_heartbeats()
            self._pending.add(Hello(self.name), None)
        if now - self._heard > UNREACHABLE_SECONDS and self.state is not ConnectionState.REFUSED:
            self._change_state(ConnectionState.UNREACHABLE)
        self._pending.repeat()
        if self.state is ConnectionState.CONNECTED:
            for pending in self._pending.overdue():
                self._end_unanswered(pending)

    def _end_unanswered(self, pending: Pending) -> None:
        """End a conversation that would wait for ever, although greetings are answered."""
        task, asked = pending.task, type(pending.message).__name__
        if task is not None and not task.done:
            self._pending.forget(task)
            seconds = time.monotonic() - pending.since
            text = f"has not answered {asked} for {seconds:.0f} s, although it is there; restart it, then resume"
            self._end(task, UnexpectedReply(f"the backend at {self.address} {text}"))

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
        self._socket.close()
        self._socket = ClientSocket(self.address, None, token)
        self._pending.repeat_all()
        if self.state is ConnectionState.REFUSED:
            self._change_state(ConnectionState.CONNECTING)

    def _flush(self) -> None:
        """Send requests that wait for a connection, in order."""
        if not self._gave_up:
            self._socket.guard.allowed = self._pending.answer_bytes
            self._pending.send(self._socket.send)

    def _receive(self, parts: list[bytes]) -> None:
        self._pending.owed -= 1
        if self._pending.owed < 0:
            self._give_up("sends replies that nobody asked for")
            return
        try:
            request_id, reply = decode(parts, REPLIES)
        except ProtocolError as error:
            if error.code == "version":
                self._refuse(f"wrong version: {error}")
                return
            request_id, reply = error.request_id, _unreadable(self.address, str(error))
        self._heard = time.monotonic()
        if isinstance(reply, Error) and reply.code == "version":
            self._refuse(f"wrong version: {reply.text}")
            return
        if isinstance(reply, Welcome):
            self.server, self._refused = reply, 0
            self._change_state(ConnectionState.CONNECTED)
        pending = self._pending.take(request_id)
        task = pending.task if pending is not None else None
        if pending is not None and not isinstance(reply, (ANSWERS.get(type(pending.message), Reply), Error)):
            asked, got = type(pending.message).__name__, type(reply).__name__
            reply = _unreadable(self.address, f"it answered {asked} with {got}")
        if task is None:
            if isinstance(reply, Error) and reply.code == _UNREADABLE:
                if pending is None:
                    self._give_up("sends what is no reply")
                else:
                    self._refuse(reply.text)
            return
        task.replies[request_id] = reply
        if all(one in task.replies for one in task.waiting):
            replies = [task.replies.pop(one) for one in task.waiting]
            task.replies.clear()
            self._advance(task, replies)

    def _refuse(self, text: str) -> None:
        self.refusal = text
        self._change_state(ConnectionState.REFUSED)

    def _give_up(self, what: str) -> None:
        """Have nothing more to do with a server that is not ours."""
        self._gave_up = True
        self._socket.close()
        self._refuse(f"the backend at {self.address} {what}; is it EX-4D? check the address, then connect again")

    def _change_state(self, state: ConnectionState) -> None:
        if state is self.state:
            return
        back = state is ConnectionState.CONNECTED
        self.state = state
        self.since = time.monotonic()
        if back:
            # Requests to a backend that went away were lost with it: send them again now.
            self._pending.repeat_lost(self._hello_at)

    def _advance(self, task: Task[Any], replies: list[Message] | None) -> None:
        """Give the conversation its replies and send its next requests."""
        refused = next((reply for reply in replies or [] if isinstance(reply, Error)), None)
        try:
            if replies is None:
                asked = next(task.conversation)
            elif refused:
                asked = task.conversation.throw(_error_of(refused))
            else:
                asked = task.conversation.send(replies[0] if task.single else replies)
        except StopIteration as stop:
            task.result, task.done = stop.value, True
            return
        # A conversation is the owner's code, and a timer that raised would end all conversations.
        except Exception as error:
            self._end(task, error)
            return
        if isinstance(asked, Pause):
            task.single, task.waiting, self._pauses = False, [], self._pauses + 1
            heapq.heappush(self._pausing, (time.monotonic() + asked.seconds, self._pauses, task))
            return
        task.single = isinstance(asked, Message)
        messages = [asked] if isinstance(asked, Message) else asked
        task.waiting = [self._pending.add(message, task) for message in messages]
        if not task.waiting:
            self._working.append(task)

    def _end(self, task: Task[Any], error: Exception) -> None:
        task.conversation.close()
        task.error, task.done = error, True


def _unreadable(address: str, why: str) -> Error:
    """In place of a reply that cannot be read."""
    text = f"the backend at {address} sent a reply that cannot be used ({why}); is it EX-4D, and of this version?"
    return Error(_UNREADABLE, text)


def _error_of(reply: Error) -> RequestRefused | UnexpectedReply:
    return UnexpectedReply(reply.text) if reply.code == _UNREADABLE else RequestRefused(reply.code, reply.text)
