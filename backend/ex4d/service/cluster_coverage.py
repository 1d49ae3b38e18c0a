"""Coverage of long shots on the nodes of a cluster: `CoverageQuestions` keeps the parts until an idle worker takes one.

Only workers whose processor or GPU is of the same model as the one that the service's live views use take them, so that
the values are equal bit for bit to one machine's.
"""

from __future__ import annotations

import base64
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import msgpack

# The service computes such a part itself in the meantime.
_OLDEST_SECONDS = 2.0


@dataclass(frozen=True)
class CoverageQuestion:
    """A part of a shot's coverage.

    Attributes:
        number: by which the answer is known.
        user: whose scene it is.
        coverage: the part, as a `ex4d_core.shot.ShotRequest` in the wire's form.
        index: which frame of the shot is its first.
    """

    number: int
    user: str
    coverage: dict[str, Any]
    index: int


class CoverageQuestions:
    """Parts that wait for an idle worker; for any thread of the driver."""

    def __init__(self) -> None:
        """Without any."""
        self._waiting: deque[tuple[float, CoverageQuestion]] = deque()
        self._lock = threading.Lock()

    def add(self, number: int, part: str) -> list[int]:
        """Add one, as the service's line has it; returns the numbers of older ones that nobody has taken in time."""
        question, now, dropped = CoverageQuestion(number, **unpacked(part)), time.monotonic(), []
        with self._lock:
            while self._waiting and self._waiting[0][0] < now - _OLDEST_SECONDS:
                dropped.append(self._waiting.popleft()[1].number)
            self._waiting.append((now, question))
        return dropped

    def take(self) -> CoverageQuestion | None:
        """The newest, since an artist waits for that; None if there is none."""
        with self._lock:
            return self._waiting.pop()[1] if self._waiting else None


def packed(values: Any) -> str:
    """Plain values as a word of a line."""
    return base64.b64encode(msgpack.packb(values) or b"").decode()


def unpacked(word: str) -> Any:
    """What `packed` packed."""
    return msgpack.unpackb(base64.b64decode(word))
