"""`HeldRequests`: the clients' requests for events, which are held back until there is news of the job."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ex4d_core.job_status import FINAL_STATES, JobStatus

# Of one client, and of one user; one more, and the oldest is answered.
_MAX_OF_CLIENT = 32
_MAX_OF_USER = 1000
# Progress is reported at most this often.
_PROGRESS_SECONDS = 0.25


@dataclass(eq=False)
class HeldRequest:
    """A request for events without a reply yet; times are monotonic.

    Attributes:
        client, user: who asked.
        job: the job.
        after: the newest event that they know.
        known: the job's status when they asked.
        deadline: when it is answered without news.
        answer: sends the reply.
    """

    client: bytes
    user: str
    job: str
    after: int
    known: JobStatus
    deadline: float
    answer: Callable[[], None]
    since: float = field(default_factory=time.monotonic)


class HeldRequests:
    """To be used on the service's loop only."""

    def __init__(self, status: Callable[[str], JobStatus | None]):
        """Without requests; ``status`` is the present one of a job, None where it was forgotten."""
        self._status = status
        self._held: list[HeldRequest] = []

    def hold(self, request: HeldRequest) -> None:
        """Answer a request as soon as there is news, at once if there is some already."""
        self._held.append(request)
        known = request.known
        if known.events > request.after or known.state in FINAL_STATES or request.deadline <= request.since:
            self._release(request)
            return
        for count, whose in ((_MAX_OF_CLIENT, "client"), (_MAX_OF_USER, "user")):
            same = [one for one in self._held if getattr(one, whose) == getattr(request, whose)]
            if len(same) > count:
                self._release(same[0])

    def job_changed(self, job: str) -> None:
        """Answer the requests about a job, if there is news."""
        for held in [one for one in self._held if one.job == job]:
            status = self._status(job)
            if status is None or status.events > held.after or status.state in FINAL_STATES:
                self._release(held)
            elif _progress(status) != _progress(held.known):
                # A little later, together with further progress.
                held.deadline = min(held.deadline, held.since + _PROGRESS_SECONDS)

    def tick(self) -> float:
        """Answer requests at their deadline; returns the seconds until the next one."""
        now = time.monotonic()
        for held in [one for one in self._held if one.deadline <= now]:
            self._release(held)
        return min((one.deadline for one in self._held), default=now + 60.0) - now

    def _release(self, held: HeldRequest) -> None:
        self._held.remove(held)
        held.answer()


def _progress(status: JobStatus) -> tuple[str, int, int]:
    return status.stage, status.done, status.total
