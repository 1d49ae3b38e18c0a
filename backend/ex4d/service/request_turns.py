"""`RequestTurns`: lets users take turns with their requests, and each have so many of them a second.

A request beyond that waits in its own user's queue, so that the others do not notice.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

# Requests that wait for each user, and their bytes: as many of the usual chunks.
_MAX_WAITING = 256
_MAX_WAITING_BYTES = 64 * 1024 * 1024
# The same of all users together.
_MAX_TOTAL_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Arrived:
    """A message of a client that has arrived, not yet decoded."""

    client: bytes
    user: str
    parts: list[bytes]

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(map(len, self.parts))


@dataclass
class _Queue:
    """The messages of a user that wait, and how many may be served at once (`None`: any number)."""

    allowance: float | None
    since: float
    waiting: deque[Arrived] = field(default_factory=deque)
    bytes: int = 0


class RequestTurns:
    """The messages that have arrived and wait; to be used on the service's loop only."""

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic):
        """Without messages.

        Args:
            rate: requests a second of each user, and as many at once; None for no limit.
            clock: seconds since any moment, without jumps.
        """
        self._rate, self._clock = rate, clock
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
        self._bytes = 0

    def add(self, message: Arrived) -> bool:
        """Let a message wait for its turn; returns False if too many of its user, or too large ones, wait already."""
        queue = self._queues.get(message.user)
        if queue is None:
            queue = self._queues[message.user] = _Queue(self._rate, self._clock())
        size = message.size
        if self._rate is not None and queue.waiting and not self._allowed(queue):
            too_many = len(queue.waiting) >= _MAX_WAITING or queue.bytes + size > _MAX_WAITING_BYTES
            if too_many or self._bytes + size > _MAX_TOTAL_BYTES:
                return False
        queue.waiting.append(message)
        queue.bytes += size
        self._bytes += size
        return True

    def next(self) -> Arrived | None:
        """The next message to serve; None if none may be served now."""
        ready = (user for user, queue in self._queues.items() if queue.waiting and self._allowed(queue))
        user = next(ready, None)
        if user is None:
            return None
        queue = self._queues[user]
        self._queues.move_to_end(user)
        if queue.allowance is not None:
            queue.allowance -= 1
        message = queue.waiting.popleft()
        size = message.size
        queue.bytes -= size
        self._bytes -= size
        return message

    def due(self) -> float:
        """Seconds until a message that waits may be served; infinite if none waits."""
        return min((self._seconds(queue) for queue in self._queues.values() if queue.waiting), default=float("inf"))

    def _seconds(self, queue: _Queue) -> float:
        if self._rate is None or self._allowed(queue) or queue.allowance is None:
            return 0.0
        return (1 - queue.allowance) / self._rate

    def _allowed(self, queue: _Queue) -> bool:
        if self._rate is None or queue.allowance is None:
            return True
        now = self._clock()
        queue.allowance = min(queue.allowance + (now - queue.since) * self._rate, self._rate)
        queue.since = now
        return queue.allowance >= 1
