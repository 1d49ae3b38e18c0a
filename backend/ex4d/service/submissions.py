"""`Submissions`: takes jobs in, each once, after a check of its request, and within the limits of its user."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from typing import Any

from ex4d.service.audit import Audit
from ex4d.service.inbox import Inbox
from ex4d.service.job_store import JobStore
from ex4d.service.refusals import Later, Refusal
from ex4d.service.request_checks import require_key
from ex4d.service.settings import ServiceSettings
from ex4d.service.uploads import Answer
from ex4d.service.users import User, Users
from ex4d_core import messages
from ex4d_core.messages import Message

log = logging.getLogger(__name__)

# Queued and running jobs of all users; each keeps its request in the database.
_MAX_UNFINISHED = 1000
# Each user's share of the bytes that waiting requests may take in the database.
_SHARE_OF_JOBS_GB = 0.25
# Files of a request that is checked at once; those of a longer one take seconds, and a thread.
_MAX_FILES_AT_ONCE = 500

# The user and the key of a submission.
_Name = tuple[str, str]


class Submissions:
    """To be used on the service's loop only."""

    def __init__(
        self,
        settings: ServiceSettings,
        store: JobStore,
        users: Users,
        inbox: Inbox,
        queued: Callable[[], None],
        refusal: Callable[[BaseException], Refusal],
        audit: Audit,
    ):
        """Without any under way.

        Args:
            settings, store, users, inbox: of the service.
            queued: called after a job was queued.
            refusal: the reply for an exception.
            audit: notes who submitted what.
        """
        self._settings, self._store, self._users, self._inbox = settings, store, users, inbox
        self._job_queued, self._refusal, self._audit = queued, refusal, audit
        # Of a submission that a thread checks: what to do with its job or refusal.
        self._checking: dict[_Name, list[Callable[[Message], None]]] = {}

    def submit(self, message: messages.Submit, user: str, answer: Answer) -> None:
        """Queue a job and answer with its name, later if its check takes long.

        Raises:
            Refusal: the request is invalid, or over a limit.
            Later: see `ex4d.service.request_checks.RequestChecks` and `ex4d.service.users.UserRoom`.
        """
        require_key(message.key)
        job = self._store.job_of_key(message.key, user)
        if job is not None:
            answer(messages.Submitted(job))
            return
        name = user, message.key
        if name in self._checking:
            self._checking[name].append(answer)
            return
        self._require_place(user)
        owner = self._users.of(user)
        owner.room.require(0)
        if _files_of(message.request) <= _MAX_FILES_AT_ONCE:
            answer(self._accepted(user, self._queue(self._store, owner, user, message)))
            return
        self._checking[name] = [answer]
        self._check(name, message, None)

    def when_checked(self, user: str, key: str, call: Callable[[], None]) -> bool:
        """Make ``call`` when the check of a submission is over; returns False if there is none under way."""
        waiting = self._checking.get((user, key))
        if waiting is not None:
            waiting.append(lambda _: call())
        return waiting is not None

    def _require_place(self, user: str) -> None:
        if self._store.unfinished() + len(self._checking) >= _MAX_UNFINISHED:
            raise Refusal("bad-request", f"{_MAX_UNFINISHED} jobs are queued or running; cancel some, or wait")
        if not self._settings.many_users:
            return
        limit, checking = self._users.accounts.jobs(user), sum(user == one for one, _ in self._checking)
        if self._store.unfinished(user) + checking >= limit:
            text = f"{limit} of your jobs are queued or running, your limit of jobs (--user-jobs, or ex4d keys set)"
            raise Refusal("bad-request", f"{text}; cancel some, or wait")

    def _queue(self, store: JobStore, owner: User, user: str, message: messages.Submit) -> str:
        """Check a request, and queue it as a job; the blobs and the store are all that it uses."""
        request, needs = owner.checks.job(message.request)
        for sha256 in needs:
            owner.blobs.touch(sha256)
        limit = self._settings.jobs_gb * 1e9
        share = limit * (_SHARE_OF_JOBS_GB if self._settings.many_users else 1)
        job = store.submit(message.key, request, needs, limit, owner=user, owner_limit_bytes=share)
        log.info("job %s submitted%s: %s, %r", job, f" by {user}" if user else "", request.engine, request.label)
        return job

    def _check(self, name: _Name, message: messages.Submit, failure: BaseException | None) -> None:
        """Check a long request in a thread; ``failure`` prevented a look at a blob that was in doubt."""
        if failure is not None:
            self._answer(name, self._refusal(failure).message())
            return
        work = partial(self._queue_in_thread, self._users.of(name[0]), name[0], message)
        self._inbox.run_in_thread(work, partial(self._queued, name, message), "requests")

    def _queue_in_thread(self, owner: User, user: str, message: messages.Submit) -> str:
        with closing(JobStore(self._settings.database)) as store:
            return self._queue(store, owner, user, message)

    def _queued(self, name: _Name, message: messages.Submit, outcome: Future[str]) -> None:
        error = outcome.exception()
        if isinstance(error, Later):
            error.begin(partial(self._check, name, message))
        else:
            self._answer(name, self._refusal(error).message() if error else self._accepted(name[0], outcome.result()))

    def _answer(self, name: _Name, reply: Message) -> None:
        for answer in self._checking.pop(name):
            answer(reply)

    def _accepted(self, user: str, job: str) -> Message:
        if status := self._store.status(job):
            self._audit.record("submit", user, job=job, engine=status.engine, label=status.label)
        self._job_queued()
        return messages.Submitted(job)


def _files_of(request: dict[str, Any]) -> int:
    """About how many files a request names, before it is checked."""
    depth, parts = request.get("depth"), [request.get(name) for name in ("footage", "camera")]
    files = [*parts, depth.get("files") if isinstance(depth, dict) else None]
    sizes = [one.get("size") for one in files if isinstance(one, dict)]
    return sum(len(one) // 8 for one in sizes if isinstance(one, bytes))
