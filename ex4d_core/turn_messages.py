"""The messages about whose job is next: the priorities of queued jobs, and who asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from ex4d_core.job_status import Line
from ex4d_core.message_base import Message, Reply
from ex4d_core.schema import Length

# Of all queued jobs those of the highest priority come first, the users in turns; "high" is for admins to give.
Priority = Literal["low", "normal", "high"]
# The least first.
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
Role = Literal["artist", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

# As many jobs as a list of them has.
_MAX_TURNS = 200


@dataclass(frozen=True)
class SetPriority(Message):
    """Sets the priority of a queued or running job; answered with a `StatusReply`.

    Services up to version 0.1.0 refuse it, and `DescribeTurns`, as an unknown type.
    """

    job: str
    priority: Priority


@dataclass(frozen=True)
class DescribeTurns(Message):
    """Asks who the client is to the service, and what priority the newest jobs have."""

    limit: int = _MAX_TURNS


@dataclass(frozen=True)
class JobTurn:
    """The priority of a job that has not ended."""

    job: Line
    priority: Priority


@dataclass(frozen=True)
class TurnsReply(Reply):
    """The answer to `DescribeTurns`.

    Attributes:
        user: whose key it is; "" where all are one user.
        role: an admin lists, cancels and orders the jobs of all.
        jobs: those that have not ended, newest first.
    """

    user: Line
    role: Role
    jobs: Annotated[list[JobTurn], Length(_MAX_TURNS)]
