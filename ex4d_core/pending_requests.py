"""`PendingRequests`: a client's requests without a reply yet, in the order in which they are sent, and sent again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ex4d_core.conversations import Task
from ex4d_core.messages import GetEvents, Hello, Message, answer_bytes
from ex4d_core.view_messages import GetCoverage, GetView
from ex4d_core.wire import encode

# A request without a reply is sent again after this long.
RESEND_SECONDS = 4.0
# The first view waits until the backend has loaded what it renders with.
VIEW_SECONDS = 120.0
# A backend that answers greetings has answered everything else long before; it hashes 64 GB meanwhile.
ANSWER_SECONDS = 600.0


@dataclass
class Pending:
    """A request without a reply yet.

    Attributes:
        message: the request.
        task: whose it is; None for a heartbeat, and for a conversation that has ended.
        sent: monotonic time when it was sent for the last time; 0 until a connection took it.
        since: since when its reply could have come; 0 until then.
    """

    message: Message
    task: Task[Any] | None
    sent: float = 0.0
    since: float = 0.0

    @property
    def overdue(self) -> bool:
        """Whether no backend takes so long."""
        return bool(self.since) and time.monotonic() - self.since > ANSWER_SECONDS


class PendingRequests:
    """Requests by their number.

    Attributes:
        owed: requests that were sent, less replies: a backend replies once to each.
    """

    def __init__(self) -> None:
        """Start without any."""
        self.owed = 0
        self._pending: dict[int, Pending] = {}
        self._unsent: deque[int] = deque()
        self._next_id = 1

    @property
    def tasks(self) -> list[Task[Any]]:
        """The conversations that wait for a reply, once for each of their requests."""
        return [one.task for one in self._pending.values() if one.task is not None]

    @property
    def has_unsent(self) -> bool:
        """Whether requests wait for a connection."""
        return bool(self._unsent)

    @property
    def answer_bytes(self) -> int:
        """Bytes that the replies may have together."""
        return sum(answer_bytes(one.message) for one in self._pending.values())

    def add(self, message: Message, task: Task[Any] | None) -> int:
        """Note a request that is to be sent; returns its number."""
        number = self._next_id
        self._next_id += 1
        self._pending[number] = Pending(message, task)
        self._unsent.append(number)
        return number

    def send(self, send: Callable[[list[bytes]], bool]) -> None:
        """Send what is not sent yet, in order, until ``send`` says that there is no connection."""
        while self._unsent:
            one = self._pending.get(self._unsent[0])
            if one is not None:
                if not send(encode(one.message, self._unsent[0])):
                    return
                self.owed += 1
                one.sent = time.monotonic()
                one.since = one.since or one.sent
            self._unsent.popleft()

    def take(self, number: int) -> Pending | None:
        """The request that a reply is for, which is not pending any more; None if no request matches."""
        return self._pending.pop(number, None)

    def forget(self, task: Task[Any]) -> None:
        """Do without the replies that a conversation waits for; those to sent requests may still come."""
        for number in task.waiting:
            if number in self._pending and self._pending[number].since:
                self._pending[number].task = None
            else:
                self._pending.pop(number, None)

    def forget_heartbeats(self) -> None:
        """Drop heartbeats without a reply, and what an ended conversation asked long ago."""
        self._pending = {
            number: one
            for number, one in self._pending.items()
            if one.task or not (isinstance(one.message, Hello) or one.overdue)
        }

    def overdue(self) -> Iterator[Pending]:
        """Requests of conversations that no backend takes so long to answer."""
        yield from [one for one in self._pending.values() if one.task and one.overdue]

    def repeat(self) -> None:
        """Send again what has had no reply for some time."""
        now = time.monotonic()
        self._repeat(lambda one: now - one.sent > _resend_seconds(one.message))

    def repeat_lost(self, before: float) -> None:
        """Send again what was sent before a time, to a backend that has come back since: it was lost with it."""
        self._repeat(lambda one: one.sent < before)
        for one in self._pending.values():
            one.since = time.monotonic() if one.since else 0.0

    def repeat_all(self) -> None:
        """Send everything, on another connection."""
        self._pending = {number: one for number, one in self._pending.items() if one.task}
        self._unsent = deque(self._pending)
        for one in self._pending.values():
            one.sent = one.since = 0.0

    def slept(self, seconds: float) -> None:
        """Time went by in which no reply was looked at."""
        for one in self._pending.values():
            one.since += seconds if one.since else 0.0

    def _repeat(self, due: Callable[[Pending], bool]) -> None:
        for number, one in self._pending.items():
            if one.task and one.sent and due(one):
                one.sent = 0.0
                self._unsent.append(number)


def _resend_seconds(message: Message) -> float:
    """Seconds after which a request without a reply is sent again."""
    if isinstance(message, GetEvents):
        return RESEND_SECONDS + message.wait
    return VIEW_SECONDS if isinstance(message, (GetView, GetCoverage)) else RESEND_SECONDS
