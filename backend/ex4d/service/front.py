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
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import zmq

from ex4d.service.blob_store import BlobStore
from ex4d.service.connections import ConnectionGuard
from ex4d.service.corrupt_database import is_corruption, is_locked
from ex4d.service.inbox import Inbox
from ex4d.service.job_store import JobStore
from ex4d.service.live_views import LiveViewQueue
from ex4d.service.refusals import Refusal, refusal_for
from ex4d.service.settings import ServiceSettings
from ex4d.service.uploads import Answer, Uploads
from ex4d.service.weight_fetches import WeightFetches
from ex4d.service.workers import Workers
from ex4d_core import messages
from ex4d_core.messages import FINAL_STATES, JobStatus, Message
from ex4d_core.reconstruction import ReconstructionRequest, request_from_wire
from ex4d_core.scene_manifest import MAX_MANIFEST_BYTES, RENDER_FILES, SceneManifest, is_sha256
from ex4d_core.shot import ShotRequest
from ex4d_core.wire import ProtocolError, decode, encode

log = logging.getLogger(__name__)

# libzmq drops a larger part before it allocates memory for it, and disconnects the peer that sent it.
_MAX_PART_BYTES = messages.MAX_HEADER_BYTES + 1024 * 1024
# Replies waiting for one client to read them: 16 MB of chunks. Any more are dropped, and the client asks again.
_MAX_QUEUED_REPLIES = 64
_MAX_KEY = 128
# A live view is for a window, and its JPEG must fit in one message.
_MAX_VIEW_SIDE = 2048
# Queued and running jobs; each keeps its request in the database.
_MAX_UNFINISHED = 1000
# Requests for events that are held back for one client; one more, and the oldest is answered.
_MAX_HELD = 32
# Progress is reported at most this often.
_PROGRESS_SECONDS = 0.25
_MESSAGES_PER_TURN = 64
# Files of a request that is checked at once; those of a longer one take seconds, and a thread.
_MAX_FILES_AT_ONCE = 500
# Another process may keep the job database locked: requests that write wait so long for it, and nobody else does.
_LOCKED_SECONDS = 10.0
_RETRY_SECONDS = 0.02
_MAX_POSTPONED = 256
_WRITING = (messages.Submit, messages.Cancel, messages.Withdraw)


def bind_router(socket: zmq.Socket[bytes], address: str) -> str:
    """Set a ROUTER socket's limits and bind it; returns the address, with the real port in place of port 0.

    Raises:
        zmq.ZMQError: it cannot be bound.
    """
    socket.setsockopt(zmq.MAXMSGSIZE, _MAX_PART_BYTES)
    socket.setsockopt(zmq.SNDHWM, _MAX_QUEUED_REPLIES)
    socket.setsockopt(zmq.RCVHWM, _MAX_QUEUED_REPLIES)
    socket.setsockopt(zmq.LINGER, 200)
    # A dropped reply is known to be dropped, and not counted as one that waits; see `Front._reply`.
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    # A connection that says nothing else; its handshake has two round trips.
    socket.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
    # Forget a client that disappeared (a closed laptop).
    socket.setsockopt(zmq.HEARTBEAT_IVL, 15_000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 60_000)
    # A client that reconnects under its name gets the replies, instead of its lost connection.
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    socket.setsockopt(zmq.IPV6, int("[" in address))
    socket.bind(address)
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


@dataclass
class _HeldRequest:
    """A request for events without a reply yet; times are monotonic."""

    client: bytes
    answer: Answer
    job: str
    after: int
    progress: tuple[str, int, int]
    deadline: float
    since: float = field(default_factory=time.monotonic)


@dataclass
class _Postponed:
    """A request that writes, while the job database is locked; ``deadline`` is monotonic."""

    client: bytes
    request_id: int
    message: Message
    deadline: float = field(default_factory=lambda: time.monotonic() + _LOCKED_SECONDS)


class _InDoubt(Exception):
    """A blob does not fit the request; reading all of it, in a thread, tells which of the two is wrong."""

    def __init__(self, sha256: str):
        super().__init__(sha256)
        self.sha256 = sha256


class Front:
    """Answers clients; to be used on the service's loop only."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        store: JobStore,
        blobs: BlobStore,
        uploads: Uploads,
        views: LiveViewQueue,
        workers: Workers,
        settings: ServiceSettings,
        inbox: Inbox,
        weights: WeightFetches,
        guard: ConnectionGuard | None = None,
        tidy: Callable[[], None] = lambda: None,
    ):
        """Args are the parts of the service; ``tidy`` is called when the job database is over its limit."""
        self._guard = guard
        self._socket = socket
        self._store = store
        self._blobs = blobs
        self._uploads = uploads
        self._views = views
        self._workers = workers
        self._settings = settings
        self._inbox = inbox
        self._tidy = tidy
        self._postponed: deque[_Postponed] = deque()
        # By the key of a submission that a thread checks: what to do with its job or refusal.
        self._checking: dict[str, list[Callable[[Message], None]]] = {}
        self._held: list[_HeldRequest] = []
        self._handlers: dict[type[Message], Callable[..., None]] = {
            messages.Hello: self._hello,
            messages.BlobStatus: self._blob_status,
            messages.PutBlob: self._put_blob,
            messages.GetBlob: self._get_blob,
            messages.Submit: self._submit,
            messages.Cancel: self._cancel,
            messages.Withdraw: self._withdraw,
            messages.ListJobs: self._list_jobs,
            messages.DescribeJobs: self._describe_jobs,
            messages.AskSilence: self._silence,
            messages.DescribeWeights: lambda _, answer: answer(weights.describe()),
            messages.FetchWeights: lambda message, answer: answer(weights.fetch(message.part)),
            messages.CancelFetch: lambda message, answer: answer(weights.cancel(message.part)),
        }

    def serve(self) -> bool:
        """Answer requests that have arrived; returns whether there may be more."""
        for _ in range(_MESSAGES_PER_TURN):
            try:
                first = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            parts = self._socket.recv_multipart() if first.more else []
            if self._guard:
                self._guard.heard(first.bytes, first.get(zmq.SRCFD))
            self._serve_one(first.bytes, parts)
        return True

    def job_changed(self, job: str) -> None:
        """Answer held requests about a job that a worker has changed, if there is news."""
        for held in [one for one in self._held if one.job == job]:
            status = self._status(job)
            if status.events > held.after or status.state in FINAL_STATES:
                self._release(held)
            elif _progress(status) != held.progress:
                # A little later, together with further progress.
                held.deadline = min(held.deadline, held.since + _PROGRESS_SECONDS)

    def tick(self) -> float:
        """Answer held requests at their deadline, and postponed ones; returns the seconds until the next call."""
        while self._postponed and self._serve_message(self._postponed[0]):
            self._postponed.popleft()
        now = time.monotonic()
        for held in [one for one in self._held if one.deadline <= now]:
            self._release(held)
        due = min((one.deadline for one in self._held), default=now + 60.0) - now
        return max(min(due, _RETRY_SECONDS) if self._postponed else due, 0.0)

    def _serve_one(self, client: bytes, parts: list[bytes]) -> None:
        try:
            request_id, message = decode(parts, messages.REQUESTS)
        # No request may harm the other clients.
        except Exception as error:
            self._refuse(client, error.request_id if isinstance(error, ProtocolError) else 0, error)
            return
        request = _Postponed(client, request_id, message)
        waits = isinstance(message, _WRITING) and self._postponed
        if waits and len(self._postponed) >= _MAX_POSTPONED:
            text = "the job database is locked, and too many requests wait for it; try again"
            self._refuse(client, request_id, Refusal("storage", text))
        elif waits or not self._serve_message(request):
            self._postponed.append(request)

    def _serve_message(self, request: _Postponed) -> bool:
        """Answer a request; returns whether that is done, and need not be tried again when the database is unlocked."""
        client, request_id, message = request.client, request.request_id, request.message
        try:
            answer = partial(self._reply, client, request_id)
            if isinstance(message, messages.GetEvents):
                self._get_events(message, answer, client)
            elif isinstance(message, messages.GetView):
                self._get_view(message, answer, client, request_id)
            elif isinstance(message, messages.GetCoverage):
                self._views.ask_coverage(client, request_id, self._shot(message.request), answer)
            else:
                self._handlers[type(message)](message, answer)
        except _InDoubt as doubt:
            # Served again when the blob is verified, or gone and to be uploaded again.
            self._uploads.when_verified(doubt.sha256, partial(self._serve_again, request))
        except Exception as error:
            if isinstance(message, _WRITING) and is_locked(error) and time.monotonic() < request.deadline:
                return False
            self._refuse(client, request_id, error)
        return True

    def _serve_again(self, request: _Postponed, failure: BaseException | None) -> None:
        """Serve a request whose blob was in doubt; ``failure`` prevented a look at it."""
        if failure is not None:
            self._refuse(request.client, request.request_id, failure)
        elif not self._serve_message(request):
            self._postponed.append(request)

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
            # A client that has gone, or that `_MAX_QUEUED_REPLIES` wait for already; it asks again.
            if error.errno not in (errno.EAGAIN, errno.EHOSTUNREACH):
                raise
            return
        if self._guard:
            self._guard.replied(client, parts)

    def _hello(self, message: messages.Hello, answer: Answer) -> None:
        answer(self._workers.welcome(busy=self._store.unfinished() > 0))

    def _blob_status(self, message: messages.BlobStatus, answer: Answer) -> None:
        if len(message.hashes) > messages.MAX_HASHES:
            text = f"invalid number of blobs {len(message.hashes)}: expected at most {messages.MAX_HASHES}"
            raise Refusal("bad-request", text)
        for sha256 in message.hashes:
            _require_hash(sha256)
        received = self._uploads.received
        self._uploads.when_settled(
            message.hashes, lambda: answer(messages.BlobStatusReply([received(one) for one in message.hashes]))
        )

    def _put_blob(self, message: messages.PutBlob, answer: Answer) -> None:
        _require_hash(message.sha256)
        self._uploads.put(message, answer)

    def _get_blob(self, message: messages.GetBlob, answer: Answer) -> None:
        _require_hash(message.sha256)
        size = self._blobs.size(message.sha256)
        if size is None:
            raise Refusal("unknown-blob", f"unknown blob {message.sha256}; results are kept for a limited time")
        if not 0 <= message.offset <= size or message.length < 1:
            raise Refusal(
                "bad-request", f"invalid range of {message.length} bytes at {message.offset} in a blob of {size} bytes"
            )
        if message.offset == 0:
            self._blobs.touch(message.sha256)
        data = self._blobs.read(message.sha256, message.offset, min(message.length, messages.CHUNK_BYTES))
        answer(messages.BlobChunk(message.sha256, size, message.offset, data))

    def _submit(self, message: messages.Submit, answer: Answer) -> None:
        _require_key(message.key)
        job = self._store.job_of_key(message.key)
        if job is not None:
            answer(messages.Submitted(job))
            return
        if message.key in self._checking:
            self._checking[message.key].append(answer)
            return
        if self._store.unfinished() + len(self._checking) >= _MAX_UNFINISHED:
            raise Refusal("bad-request", f"{_MAX_UNFINISHED} jobs are queued or running; cancel some, or wait")
        if _files_of(message.request) <= _MAX_FILES_AT_ONCE:
            answer(self._accepted(self._queue(self._store, message)))
            return
        self._checking[message.key] = [answer]
        self._inbox.run_in_thread(
            partial(self._queue_in_thread, message), partial(self._queued, message.key), "requests"
        )

    def _queue(self, store: JobStore, message: messages.Submit) -> str:
        """Check a request, and queue it as a job; the blobs and the store are all that it uses."""
        request, needs = self._job_request(message.request)
        for sha256 in needs:
            self._blobs.touch(sha256)
        job = store.submit(message.key, request, needs, self._settings.jobs_gb * 1e9)
        log.info("job %s submitted: %s, %r", job, request.engine, request.label)
        return job

    def _queue_in_thread(self, message: messages.Submit) -> str:
        with closing(JobStore(self._settings.database)) as store:
            return self._queue(store, message)

    def _queued(self, key: str, outcome: Future[str]) -> None:
        error = outcome.exception()
        reply = self._refusal(error).message() if error else self._accepted(outcome.result())
        for answer in self._checking.pop(key):
            answer(reply)

    def _accepted(self, job: str) -> Message:
        self._workers.wake()
        if self._store.used_bytes() > self._settings.jobs_gb * 1e9:
            self._tidy()
        return messages.Submitted(job)

    def _get_view(self, message: messages.GetView, answer: Answer, client: bytes, request_id: int) -> None:
        request = self._shot(message.request)
        if len(request.camera) != 1:
            text = f"a view has a camera of 1 frame, not {len(request.camera)}; submit a shot instead"
            raise Refusal("bad-request", text)
        if max(request.camera.width, request.camera.height) > _MAX_VIEW_SIDE:
            text = f"a view has at most {_MAX_VIEW_SIDE} x {_MAX_VIEW_SIDE} pixels; submit a shot instead"
            raise Refusal("bad-request", text)
        self._views.ask_view(client, request_id, request, answer)

    def _job_request(self, values: dict[str, Any]) -> tuple[ShotRequest | ReconstructionRequest, list[str]]:
        """A checked request of either kind, and the hashes of the blobs that it needs, which are all here."""
        request = request_from_wire(values)
        if isinstance(request, ShotRequest):
            manifest = self._manifest(request)
            return request, [request.scene, *(manifest.files[part].sha256 for part in RENDER_FILES)]
        for file in request.files:
            size = self._blobs.size(file.sha256)
            if size is None:
                raise Refusal("unknown-blob", f"{file.label!r} is not here; upload it", {"missing": [file.sha256]})
            if size != file.size:
                self._require_verified(file.sha256)
                raise Refusal("bad-request", f"{file.label!r} has {size} bytes, the request says {file.size}")
        return request, [file.sha256 for file in request.files]

    def _shot(self, values: dict[str, Any]) -> ShotRequest:
        """A checked request, whose scene is here."""
        request = ShotRequest.from_wire(values)
        self._manifest(request)
        return request

    def _manifest(self, request: ShotRequest) -> SceneManifest:
        """The manifest of a shot's scene, which is here and covers the shot."""
        digest = request.scene
        size = self._blobs.size(digest)
        # A damaged one is not here; it is so small that it takes no thread.
        if size is None or (size <= MAX_MANIFEST_BYTES and not self._blobs.verify(digest)):
            text = f"scene {digest} is not here; upload its manifest"
            raise Refusal("unknown-scene", text, {"missing": ["manifest"]})
        manifest = SceneManifest.from_json(self._blobs.read(digest, 0, MAX_MANIFEST_BYTES + 1))
        sizes = {part: self._blobs.size(manifest.files[part].sha256) for part in RENDER_FILES}
        missing = [part for part, size in sizes.items() if size is None]
        if missing:
            text = f"scene {manifest.name!r} is incomplete here; upload its {', '.join(missing)}"
            raise Refusal("unknown-scene", text, {"missing": missing})
        for part, size in sizes.items():
            if size != manifest.files[part].size:
                self._require_verified(manifest.files[part].sha256)
                expected = manifest.files[part].size
                text = f"the {part} of scene {manifest.name!r} has {size} bytes, its manifest says {expected}"
                raise Refusal("bad-request", f"{text}; reconstruct the scene")
        request.require_footage(manifest.frames)
        return manifest

    def _require_verified(self, sha256: str) -> None:
        """Before a client is told that its request is wrong: the blob may be what is damaged."""
        if not self._blobs.is_verified(sha256):
            raise _InDoubt(sha256)

    def _cancel(self, message: messages.Cancel, answer: Answer) -> None:
        self._stop(message.job)
        answer(messages.StatusReply(self._status(message.job)))

    def _withdraw(self, message: messages.Withdraw, answer: Answer) -> None:
        _require_key(message.key)
        if message.key in self._checking:  # nearly a job
            self._checking[message.key].append(lambda _: self._withdraw_checked(message, answer))
            return
        job = self._store.job_of_key(message.key)
        if job is not None:
            self._stop(job)
        answer(messages.Withdrawn(job or ""))

    def _withdraw_checked(self, message: messages.Withdraw, answer: Answer) -> None:
        try:
            self._withdraw(message, answer)
        except Exception as error:
            answer(self._refusal(error).message())

    def _stop(self, job: str) -> None:
        if self._status(job).state not in FINAL_STATES:
            self._store.cancel(job)
            log.info("cancelled job %s", job)
            self._workers.job_cancelled(job)
            self.job_changed(job)

    def _list_jobs(self, message: messages.ListJobs, answer: Answer) -> None:
        answer(messages.JobsReply([self._workers.shown(one) for one in self._store.jobs(message.limit)]))

    def _describe_jobs(self, message: messages.DescribeJobs, answer: Answer) -> None:
        answer(messages.JobsDescribed(self._store.details(message.limit)))

    def _silence(self, message: messages.AskSilence, answer: Answer) -> None:
        answer(messages.Silence(self._workers.silences()))

    def _get_events(self, message: messages.GetEvents, answer: Answer, client: bytes) -> None:
        status = self._status(message.job)
        if message.after < 0:
            raise Refusal("bad-request", f"invalid event number {message.after}: expected 0 or more")
        wait = min(message.wait, messages.MAX_WAIT_SECONDS)  # `decode` lets finite numbers through only
        after = min(message.after, status.events)
        held = _HeldRequest(client, answer, message.job, after, _progress(status), time.monotonic() + wait)
        self._held.append(held)
        if status.events > after or status.state in FINAL_STATES or wait <= 0:
            self._release(held)
        elif len(of_client := [one for one in self._held if one.client == client]) > _MAX_HELD:
            self._release(of_client[0])

    def _release(self, held: _HeldRequest) -> None:
        self._held.remove(held)
        events = self._store.events(held.job, held.after)
        held.answer(messages.EventsReply(self._status(held.job), events))

    def _status(self, job: str) -> JobStatus:
        status = self._store.status(job)
        if status is None:
            raise Refusal("unknown-job", f"unknown job {job!r:.80}; it may be too old, or belong to another backend")
        return self._workers.shown(status)


def _progress(status: JobStatus) -> tuple[str, int, int]:
    return status.stage, status.done, status.total


def _files_of(request: dict[str, Any]) -> int:
    """About how many files a request names, before it is checked."""
    depth, parts = request.get("depth"), [request.get(name) for name in ("footage", "camera")]
    files = [*parts, depth.get("files") if isinstance(depth, dict) else None]
    sizes = [one.get("size") for one in files if isinstance(one, dict)]
    return sum(len(one) // 8 for one in sizes if isinstance(one, bytes))


def _require_key(key: str) -> None:
    if not 0 < len(key) <= _MAX_KEY:
        raise Refusal("bad-request", f"invalid key of {len(key)} characters: expected 1 to {_MAX_KEY}")


def _require_hash(sha256: str) -> None:
    if not is_sha256(sha256):
        raise Refusal("bad-request", f"invalid blob name {sha256!r:.80}: expected a SHA-256 in lower-case hexadecimal")
