"""`Task`: a conversation with a backend in progress, what it may ask for, and how it can end.

Conversations are generators that yield requests and receive replies (see `ex4d_core.remote_job`); `ex4d_core.client`
keeps them going.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from ex4d_core.errors import Ex4dError
from ex4d_core.messages import Message

Result = TypeVar("Result")
Conversation = Generator["Message | Sequence[Message] | Pause", Any, Result]


class ClientError(Ex4dError):
    """The backend cannot be used at all: an invalid address, unreadable keys, or no reply."""


class RequestRefused(Ex4dError):
    """The backend replied with an error. ``code`` is one of `messages.Error`'s codes."""

    def __init__(self, code: str, text: str):
        super().__init__(text)
        self.code = code


class UnexpectedReply(Ex4dError):
    """The backend replied what no backend of this version replies, or not at all, although it is there."""


@dataclass(frozen=True)
class Pause:
    """What a conversation yields to go on after some seconds; `Client` then sends it an empty list."""

    seconds: float


class Task(Generic[Result]):
    """A conversation in progress; see `Client.start`.

    Attributes:
        done: whether it has ended.
        result: what it returned, once done without error.
        error: what ended it, if anything did.
        conversation: the generator; this and what follows is for `Client`.
        waiting: numbers of the requests whose replies it waits for.
        replies: those that have come.
        single: whether it asked for one reply, not for a list.
    """

    def __init__(self, conversation: Conversation[Result]):
        """For `Client.start`."""
        self.conversation = conversation
        self.waiting: list[int] = []
        self.replies: dict[int, Message] = {}
        self.single = True
        self.done = False
        self.result: Result | None = None
        self.error: Exception | None = None

    def outcome(self) -> Result:
        """The result of a task that is done; raises its error."""
        if self.error:
            raise self.error
        return cast(Result, self.result)
