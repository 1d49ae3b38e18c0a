"""`Message` and `Reply`, the bases of all messages on the wire, with how long their parts may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

# The header of a request holds a camera path at most: 100,000 frames x 25 float64, and room for words.
MAX_HEADER_BYTES = 24 * 1024 * 1024
# That of most replies holds a few texts.
_REPLY_HEADER_BYTES = 1024 * 1024
# And that of replies with a list of jobs with reasons, or the coverage of 100,000 frames.
LONG_HEADER_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Message:
    """Base of all messages. A type with a raw part has a field ``payload`` for it.

    Attributes:
        max_header: bytes that the header of a type may have.
        max_payload: and its raw part; 0 for a type without one.
    """

    max_header: ClassVar[int] = MAX_HEADER_BYTES
    max_payload: ClassVar[int] = 0


@dataclass(frozen=True)
class Reply(Message):
    """Base of what a service answers."""

    max_header: ClassVar[int] = _REPLY_HEADER_BYTES
