"""`Front` answers the requests of all clients on one ROUTER socket.

Nothing here may take long, since all clients wait for it: it only moves bytes, and reads and writes rows. Requests for
events are held back until there is news.
"""

from __future__ import annotations

import errno
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial

import zmq

from ex4d.service.audit import Audit
from ex4d.service.connections import ConnectionGuard
from ex4d.service.corrupt_database import is_corruption, is_locked
from ex4d.service.held_requests import HeldRequest, HeldRequests
from ex4d.service.inbox import Inbox
from ex4d.service.job_store import JobStore
from ex4d.service.live_views import LiveViewQueue
from ex4d.service.refusals import Later, Refusal, refusal_for
from ex4d.service.request_checks import require_hash, require_key
from ex4d.service.request_turns import Arrived, RequestTurns
from ex4d.service.settings import ServiceSettings
from ex4d.service.submissions import Submissions
from ex4d.service.uploads import Answer
from ex4d.service.users import Users
from ex4d.service.weight_fetches import WeightFetches
from ex4d.service.workers import Workers
from ex4d_core import messages
from ex4d_core.job_status import FINAL_STATES, JobStatus
from ex4d_core.messages import Message
from ex4d_core.wire import ProtocolError, decode, encode

log = logging.getLogger(__name__)

_MESSAGES_PER_TURN = 64
# What is read in a turn before it is served: as many chunks.
_BYTES_PER_TURN = 16 * 1024 * 1024
# Another process may keep the job database locked: requests that write wait so long for it, and nobody else does.
_LOCKED_SECONDS = 10.0
_RETRY_SECONDS = 0.02
_MAX_POSTPONED = 256
_WRITING = (messages.Submit, messages.Cancel, messages.Withdraw, messages.SetPriority)


@dataclass
class _Request:
    """A request of a user; ``deadline`` is monotonic, for one that writes while the job database is locked."""

    client: bytes
    user: str
    request_id: int
    message: Message
    answer: Answer
    deadline: float = field(default_factory=lambda: time.monotonic() + _LOCKED_SECONDS)


class Front:
    """Answers clients; to be used on the service's loop only."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        store: JobStore,
        users: Users,
        views: LiveViewQueue,
        workers: Workers,
        settings: ServiceSettings,
        inbox: Inbox,
        weights: WeightFetches,
        guard: ConnectionGuard | None = None,
        tidy: Callable[[], None] = lambda: None,
        user_of: Callable[[zmq.Frame], str] = lambda frame: "",
        audit: Audit | None = None,
        observe: Callable[[str], None] = lambda job: None,
    ):
        """Args are the parts of the service.

        ``tidy`` is called when the job database is over its limit, ``user_of`` with a frame tells whose it is, and
        ``audit`` notes who did what; ``observe`` is called with a job that may have changed.
        """
        self._guard = guard
        self._socket = socket
        self._store = store
        self._users = users
        self._views = views
        self._workers = workers
        self._settings = settings
        self._tidy = tidy
        self._user_of = user_of
        self._audit = audit or Audit(None)
        self._observe = observe
        self._limits_set = False
        self._turns = RequestTurns(settings.user_requests if settings.many_users else None)
        self._postponed: deque[_Request] = deque()
        # Of a submission that waits for a thread, by its user and key: what must not overtake it.
        self._behind: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self._submissions = Submissions(settings, store, users, inbox, self._job_queued, self._refusal, self._audit)
        self._held = HeldRequests(self._shown)
        self._handlers: dict[type[Message], Callable[..., None]] = {
            messages.Hello: self._hello,
            messages.BlobStatus: self._blob_status,
            messages.PutBlob: self._put_blob,
            messages.GetBlob: self._get_blob,
            messages.DescribeFolders: self._describe_folders,
            messages.TakeFile: self._take_file,
            messages.Submit: self._submit,
            messages.Cancel: self._cancel,
            messages.Withdraw: self._withdraw,
            messages.ListJobs: self._list_jobs,
            messages.DescribeJobs: self._describe_jobs,
            messages.AskSilence: self._silence,
            messages.DescribeTurns: self._describe_turns,
            messages.SetPriority: self._set_priority,
            messages.GetEvents: self._get_events,
            messages.GetView: self._get_view,
            messages.GetCoverage: self._get_coverage,
            messages.DescribeWeights: lambda _, request: request.answer(weights.describe()),
            messages.FetchWeights: partial(self._change_weights, weights.fetch),
            messages.CancelFetch: partial(self._change_weights, weights.cancel),
        }

    def serve(self) -> bool:
        """Answer requests that have arrived; returns whether there may be more."""
        more = self._receive()
        for _ in range(_MESSAGES_PER_TURN):
            message = self._turns.next()
            if message is None:
                return more
            self._serve_one(message)
        return True

    def _receive(self) -> bool:
        """Let messages that have arrived wait for their turn; returns whether there may be more."""
        size = 0
        for _ in range(_MESSAGES_PER_TURN):
            try:
                first = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            parts = self._socket.recv_multipart() if first.more else []
            message = Arrived(first.bytes, self._user_of(first), parts)
            if self._guard:
                self._guard.heard(message.client, first.get(zmq.SRCFD), message.user)
            if not self._turns.add(message):
                self._refuse_busy(message)
            size += message.size
            if size > _BYTES_PER_TURN:
                break
        return True

    def job_changed(self, job: str) -> None:
        """Answer held requests about a job that a worker has changed, if there is news."""
        self._held.job_changed(job)
        self._observe(job)

    def job_left(self, job: str) -> None:
        """Count the results of a job, which a worker has left, as its owner's."""
        owner = self._store.owner(job)
        if owner is not None:
            self._users.stored(owner, self._store.result_bytes(job))
            if (status := self._store.status(job)) and status.state in ("done", "failed"):
                self._audit.record(status.state, owner, job=job, reason=status.reason)

    def tick(self) -> float:
        """Answer held requests at their deadline, and postponed ones; returns the seconds until the next call."""
        self._apply_accounts()
        self._audit.flush_due()
        while self._postponed and self._serve_message(self._postponed[0]):
            self._postponed.popleft()
        due = min(self._held.tick(), self._turns.due())
        return max(min(due, _RETRY_SECONDS) if self._postponed else due, 0.0)

    def _apply_accounts(self) -> None:
        """Have the job store know how many jobs of each user may run at once, at the start and after changes."""
        accounts = self._users.accounts
        if (changed := accounts.refresh()) is not None:
            self._limits_set = False
            for name, account in changed.items():
                self._audit.record("account", name, **asdict(account))
        if not self._limits_set:
            for user in {*self._store.owners(), *accounts.names()}:
                self._store.set_running_limit(user, accounts.running(user))
            self._limits_set = True
            self._workers.wake()

    def _serve_one(self, arrived: Arrived) -> None:
        client = arrived.client
        try:
            request_id, message = decode(arrived.parts, messages.REQUESTS)
        # No request may harm the other clients.
        except Exception as error:
            self._refuse(client, error.request_id if isinstance(error, ProtocolError) else 0, error)
            return
        answer = partial(self._reply, client, request_id)
        request = _Request(client, arrived.user, request_id, message, answer)
        waits = isinstance(message, _WRITING) and self._postponed
        if waits and len(self._postponed) >= _MAX_POSTPONED:
            text = "the job database is locked, and too many requests wait for it; try again"
            self._refuse(client, request_id, Refusal("storage", text))
        elif waits or not self._serve_message(request):
            self._postponed.append(request)

    def _serve_message(self, request: _Request) -> bool:
        """Answer a request; returns whether that is done, and need not be tried again when the database is unlocked."""
        message = request.message
        try:
            self._handlers[type(message)](message, request)
        except Later as later:
            # Served again when the blob in doubt is verified, or gone, or the user's store is tidied.
            if isinstance(message, messages.Submit):
                self._behind.setdefault((request.user, message.key), [])
            later.begin(partial(self._serve_again, request))
        except Exception as error:
            if isinstance(message, _WRITING) and is_locked(error) and time.monotonic() < request.deadline:
                return False
            self._refuse(request.client, request.request_id, error)
        return True

    def _serve_again(self, request: _Request, failure: BaseException | None) -> None:
        """Serve a request that has waited for a thread; ``failure`` is what stopped the thread."""
        name = (request.user, request.message.key) if isinstance(request.message, messages.Submit) else None
        behind = self._behind.pop(name, []) if name else []
        if failure is not None:
            self._refuse(request.client, request.request_id, failure)
        # Behind those that wait for the locked job database already: a withdrawal may be of one of them.
        elif (isinstance(request.message, _WRITING) and self._postponed) or not self._serve_message(request):
            self._postponed.append(request)
        if name in self._behind:  # it waits once more
            self._behind[name] += behind
            return
        for call in behind:
            call()

    def _refuse_busy(self, arrived: Arrived) -> None:
        try:
            request_id, _ = decode(arrived.parts, messages.REQUESTS)
        except Exception as error:
            request_id = error.request_id if isinstance(error, ProtocolError) else 0
        text = (
            f"too many of your requests wait, as you sent more than {self._settings.user_requests} a second, the limit "
            "for each user (--user-requests); send it again later"
        )
        self._refuse(arrived.client, request_id, Refusal("busy", text))

    def _refuse(self, client: bytes, request_id: int, error: BaseException) -> None:
        self._reply(client, request_id, self._refusal(error).message())
        if is_corruption(error):  # of the job database, which the service cannot do without
            raise error

    def _refusal(self, error: BaseException) -> Refusal:
        refusal = refusal_for(error, self._settings.data)
        if refusal.code in ("internal", "storage"):
            log.error("could not serve a request", exc_info=error)
        return refusal

    def _reply(self, client: bytes, request_id: int, message: Message) -> None:
        parts = encode(message, request_id)
        try:
            self._socket.send_multipart([client, *parts], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            # A client that has gone, or for which too many replies wait already; it asks again.
            if error.errno not in (errno.EAGAIN, errno.EHOSTUNREACH):
                raise
            return
        if self._guard:
            self._guard.replied(client, parts)

    def _hello(self, message: messages.Hello, request: _Request) -> None:
        request.answer(self._workers.welcome(busy=self._store.unfinished() > 0))

    def _blob_status(self, message: messages.BlobStatus, request: _Request) -> None:
        if len(message.hashes) > messages.MAX_HASHES:
            text = f"invalid number of blobs {len(message.hashes)}: expected at most {messages.MAX_HASHES}"
            raise Refusal("bad-request", text)
        for sha256 in message.hashes:
            require_hash(sha256)
        uploads = self._users.of(request.user).uploads
        uploads.when_settled(
            message.hashes,
            lambda: request.answer(messages.BlobStatusReply([uploads.received(one) for one in message.hashes])),
        )

    def _put_blob(self, message: messages.PutBlob, request: _Request) -> None:
        require_hash(message.sha256)
        self._audit.count("upload", request.user, bytes=len(message.payload))
        self._users.of(request.user).uploads.put(message, request.answer)

    def _get_blob(self, message: messages.GetBlob, request: _Request) -> None:
        require_hash(message.sha256)
        chunk = self._users.of(request.user).downloads.chunk(message)
        self._audit.count("fetch", request.user, files=int(not message.offset), bytes=len(chunk.payload))
        request.answer(chunk)

    def _describe_folders(self, message: messages.DescribeFolders, request: _Request) -> None:
        request.answer(messages.FoldersReply(self._users.folders.names(request.user)))

    def _take_file(self, message: messages.TakeFile, request: _Request) -> None:
        require_hash(message.sha256)
        opened = partial(self._users.folders.open, request.user, message.path)
        if self._users.of(request.user).uploads.take(message.sha256, message.size, opened, request.answer):
            about = {"path": message.path, "sha256": message.sha256, "bytes": message.size}
            self._audit.record("take file", request.user, **about)

    def _submit(self, message: messages.Submit, request: _Request) -> None:
        self._store.set_running_limit(request.user, self._users.accounts.running(request.user))
        self._submissions.submit(message, request.user, request.answer)

    def _job_queued(self) -> None:
        self._workers.wake()
        if self._store.used_bytes() > self._settings.jobs_gb * 1e9:
            self._tidy()

    def _get_view(self, message: messages.GetView, request: _Request) -> None:
        shot = self._users.of(request.user).checks.view(message.request)
        self._views.ask_view(request.client, request.user, request.request_id, shot, request.answer)

    def _get_coverage(self, message: messages.GetCoverage, request: _Request) -> None:
        shot = self._users.of(request.user).checks.shot(message.request)
        self._views.ask_coverage(request.client, request.user, request.request_id, shot, request.answer)

    def _cancel(self, message: messages.Cancel, request: _Request) -> None:
        whose = self._seen_by(request.user)
        self._stop(self._status(message.job, whose), request.user)
        request.answer(messages.StatusReply(self._status(message.job, whose)))

    def _withdraw(self, message: messages.Withdraw, request: _Request) -> None:
        require_key(message.key)
        again = partial(self._serve_again, request, None)
        if (waiting := self._behind.get((request.user, message.key))) is not None:
            waiting.append(again)
            return
        if self._submissions.when_checked(request.user, message.key, again):  # nearly a job
            return
        job = self._store.job_of_key(message.key, request.user)
        if job is not None:
            self._stop(self._status(job), request.user)
        request.answer(messages.Withdrawn(job or ""))

    def _stop(self, status: JobStatus, user: str) -> None:
        if status.state not in FINAL_STATES:
            self._store.cancel(status.job)
            log.info("cancelled job %s", status.job)
            self._audit.record("cancel", user, job=status.job, owner=self._store.owner(status.job))
            self._workers.job_cancelled(status.job)
            self.job_changed(status.job)
            self._workers.wake()  # its user may run another one now

    def _list_jobs(self, message: messages.ListJobs, request: _Request) -> None:
        jobs = self._store.jobs(message.limit, self._seen_by(request.user))
        request.answer(messages.JobsReply([self._workers.shown(one) for one in jobs]))

    def _describe_jobs(self, message: messages.DescribeJobs, request: _Request) -> None:
        request.answer(messages.JobsDescribed(self._store.details(message.limit, self._seen_by(request.user))))

    def _silence(self, message: messages.AskSilence, request: _Request) -> None:
        request.answer(messages.Silence(self._workers.silences(self._seen_by(request.user))))

    def _describe_turns(self, message: messages.DescribeTurns, request: _Request) -> None:
        jobs = self._store.priorities(message.limit, self._seen_by(request.user))
        request.answer(messages.TurnsReply(request.user, self._users.accounts.role(request.user), jobs))

    def _set_priority(self, message: messages.SetPriority, request: _Request) -> None:
        whose = self._seen_by(request.user)
        self._status(message.job, whose)
        if message.priority == "high" and self._users.accounts.role(request.user) != "admin":
            text = "a high priority goes before everybody's turn, so only an admin gives it"
            raise Refusal("bad-request", f"{text}; ask one, or give your other jobs a low one")
        self._store.set_priority(message.job, message.priority)
        about = {"job": message.job, "priority": message.priority, "owner": self._store.owner(message.job)}
        self._audit.record("priority", request.user, **about)
        request.answer(messages.StatusReply(self._status(message.job, whose)))

    def _change_weights(
        self,
        change: Callable[[str], Message],
        message: messages.FetchWeights | messages.CancelFetch,
        request: _Request,
    ) -> None:
        reply = change(message.part)
        self._audit.record("weights", request.user, part=message.part, request=type(message).__name__)
        request.answer(reply)

    def _get_events(self, message: messages.GetEvents, request: _Request) -> None:
        owner = self._store.owner(message.job)
        if owner not in (None, request.user) and self._seen_by(request.user) is None:
            text = f"job {message.job} is {owner}'s, and only {owner} fetches its results"
            raise Refusal("unknown-job", f"{text}; an admin lists, cancels and orders it")
        status = self._status(message.job, request.user)
        if message.after < 0:
            raise Refusal("bad-request", f"invalid event number {message.after}: expected 0 or more")
        wait = min(message.wait, messages.MAX_WAIT_SECONDS)  # `decode` lets finite numbers through only
        after = min(message.after, status.events)
        answer = partial(self._answer_events, message.job, after, request.answer)
        deadline = time.monotonic() + wait
        self._held.hold(HeldRequest(request.client, request.user, message.job, after, status, deadline, answer))

    def _answer_events(self, job: str, after: int, answer: Answer) -> None:
        events = self._store.events(job, after)
        try:
            answer(messages.EventsReply(self._status(job), events))
        except Refusal as forgotten:  # by the tidying, since the database is over its limit
            answer(forgotten.message())

    def _seen_by(self, user: str) -> str | None:
        """Whose jobs a user lists and cancels; None for everybody's."""
        if not self._settings.many_users:
            return user
        return None if self._users.accounts.role(user) == "admin" else user

    def _status(self, job: str, owner: str | None = None) -> JobStatus:
        """The status of an owner's job; that of another is as unknown as one that never was."""
        status = self._shown(job, owner)
        if status is None:
            raise Refusal("unknown-job", f"unknown job {job!r:.80}; it may be too old, or belong to another backend")
        return status

    def _shown(self, job: str, owner: str | None = None) -> JobStatus | None:
        status = self._store.status(job, owner)
        return self._workers.shown(status) if status else None
