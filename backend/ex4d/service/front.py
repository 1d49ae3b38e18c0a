"""The service's side of the wire: one ROUTER socket, one loop, one answer to each request.

Nothing here may take long, since every client waits for it: it moves bytes, and reads and writes rows. Requests for
events are parked until there is something to tell.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import zmq

from ex4d.service.blob_store import BlobStore
from ex4d.service.damage import is_damage
from ex4d.service.job_store import JobStore
from ex4d.service.refusal import Refusal
from ex4d.service.uploads import Answer, Uploads
from ex4d.service.views import Views
from ex4d.service.workers import Workers
from ex4d_core import __version__
from ex4d_core.messages import (
    CHUNK_BYTES,
    FINAL_STATES,
    MAX_HASHES,
    MAX_HEADER_BYTES,
    MAX_WAIT_SECONDS,
    REQUESTS,
    BlobChunk,
    BlobStatus,
    BlobStatusReply,
    Cancel,
    EventsReply,
    GetBlob,
    GetCoverage,
    GetEvents,
    GetView,
    Hello,
    JobsReply,
    JobStatus,
    ListJobs,
    Message,
    PutBlob,
    StatusReply,
    Submit,
    Submitted,
    Welcome,
    Withdraw,
    Withdrawn,
)
from ex4d_core.reconstruction import ReconstructionRequest, request_from_wire
from ex4d_core.scene import MAX_MANIFEST_BYTES, RENDER_FILES, SceneError, SceneManifest, is_sha256
from ex4d_core.shot import RequestError, ShotRequest
from ex4d_core.wire import ProtocolError, decode, encode

log = logging.getLogger(__name__)

# libzmq itself drops a larger part before it takes memory for it, and disconnects the peer that sent it.
MAX_PART_BYTES = MAX_HEADER_BYTES + 1024 * 1024
# Answers waiting for one client to read them: 16 MB of chunks. What is over is dropped, and asked for again.
_QUEUE = 64
_MAX_KEY = 128
# A view is for a window, and its JPEG must fit in one message.
_MAX_VIEW_SIDE = 2048
# Queued and running jobs; each keeps its request in the database.
_MAX_UNFINISHED = 1000
# Requests for events that one client may have parked; the oldest is answered when there is one more.
_MAX_PARKED = 32
# News of progress is worth a message this often.
_PROGRESS_SECONDS = 0.25
_MESSAGES_A_TURN = 64


def bind_router(socket: zmq.Socket, address: str) -> str:
    """Set a ROUTER socket's limits and bind it; returns the address, with the port that port 0 became.

    Raises:
        zmq.ZMQError: it cannot be bound.
    """
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_PART_BYTES)
    socket.setsockopt(zmq.SNDHWM, _QUEUE)
    socket.setsockopt(zmq.RCVHWM, _QUEUE)
    socket.setsockopt(zmq.LINGER, 200)
    # A client that vanished without a word (a laptop closed) is forgotten.
    socket.setsockopt(zmq.HEARTBEAT_IVL, 15_000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 60_000)
    # A client that comes back under its name gets the answers, instead of the connection it lost.
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    socket.setsockopt(zmq.IPV6, int("[" in address))
    socket.bind(address)
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


@dataclass
class _Parked:
    """A request for events that is held back; times are monotonic."""

    client: bytes
    answer: Answer
    job: str
    after: int
    progress: tuple[str, int, int]
    deadline: float
    since: float = field(default_factory=time.monotonic)


class Front:
    """Answers clients. `job_changed` tells it what workers did."""

    def __init__(self, socket: zmq.Socket, store: JobStore, blobs: BlobStore, uploads: Uploads, views: Views):
        self._socket = socket
        self._store = store
        self._blobs = blobs
        self._uploads = uploads
        self._views = views
        self._parked: list[_Parked] = []
        self.workers: Workers | None = None
        self._handlers: dict[type[Message], Callable[..., None]] = {
            Hello: self._hello,
            BlobStatus: self._blob_status,
            PutBlob: self._put_blob,
            GetBlob: self._get_blob,
            Submit: self._submit,
            Cancel: self._cancel,
            Withdraw: self._withdraw,
            ListJobs: self._list_jobs,
        }

    def serve(self) -> bool:
        """Answer what has arrived; returns whether there may be more."""
        for _ in range(_MESSAGES_A_TURN):
            try:
                client, *parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            self._serve_one(client, parts)
        return True

    def job_changed(self, job: str) -> None:
        """Answer parked requests that now have something to tell."""
        for parked in [one for one in self._parked if one.job == job]:
            status = self._store.status(job)
            if status.events > parked.after or status.state in FINAL_STATES:
                self._unpark(parked)
            elif _progress(status) != parked.progress:
                # A little later, together with what else will have happened by then.
                parked.deadline = min(parked.deadline, parked.since + _PROGRESS_SECONDS)

    def tick(self) -> float:
        """Answer parked requests whose time is up; returns the seconds until the next one's is."""
        now = time.monotonic()
        for parked in [one for one in self._parked if one.deadline <= now]:
            self._unpark(parked)
        return max(min((one.deadline for one in self._parked), default=now + 60.0) - now, 0.0)

    def _serve_one(self, client: bytes, parts: list[bytes]) -> None:
        request_id = 0
        try:
            request_id, message = decode(parts, REQUESTS)
            answer = partial(self._reply, client, request_id)
            if isinstance(message, GetEvents):
                self._get_events(message, answer, client)
            elif isinstance(message, GetView):
                self._get_view(message, answer, client, request_id)
            elif isinstance(message, GetCoverage):
                request, _ = self._request(message.request)
                self._views.ask_coverage(client, request_id, request, answer)
            else:
                self._handlers[type(message)](message, answer)
        except ProtocolError as error:
            self._reply(client, error.request_id, Refusal(error.code, str(error)).message())
        except Refusal as refusal:
            self._reply(client, request_id, refusal.message())
        except sqlite3.OperationalError as error:
            full = "full" in str(error)
            log.error("the job database cannot be used: %s", error)
            text = f"the backend's job database cannot be written: {error}; make room or see the backend's log"
            self._reply(client, request_id, Refusal("disk-full" if full else "internal", text).message())
        # Whatever a message may provoke, the other clients must not pay for it.
        except Exception as error:
            log.exception("a request could not be served")
            text = f"the backend failed on this request ({type(error).__name__}); see its log"
            self._reply(client, request_id, Refusal("internal", text).message())
            if is_damage(error):  # of the job database, without which there is nothing to serve
                raise

    def _reply(self, client: bytes, request_id: int, message: Message) -> None:
        # What is over `_QUEUE` a ROUTER drops without a word, and so what is for a client that has gone.
        self._socket.send_multipart([client, *encode(message, request_id)], zmq.NOBLOCK)

    def _hello(self, message: Hello, answer: Answer) -> None:
        workers = self.workers
        busy = self._store.unfinished() > 0
        answer(
            Welcome("ex4d", __version__, workers.devices, workers.engines, workers.rasterizers, busy, workers.lacking)
        )

    def _blob_status(self, message: BlobStatus, answer: Answer) -> None:
        if len(message.hashes) > MAX_HASHES:
            raise Refusal("bad-request", f"ask for {MAX_HASHES} blobs at a time, not {len(message.hashes)}")
        for sha256 in message.hashes:
            _require_hash(sha256)
        self._uploads.when_settled(
            message.hashes, lambda: answer(BlobStatusReply([self._uploads.received(one) for one in message.hashes]))
        )

    def _put_blob(self, message: PutBlob, answer: Answer) -> None:
        _require_hash(message.sha256)
        self._uploads.put(message, answer)

    def _get_blob(self, message: GetBlob, answer: Answer) -> None:
        _require_hash(message.sha256)
        size = self._blobs.size(message.sha256)
        if size is None:
            raise Refusal("unknown-blob", f"there is no blob {message.sha256}; results are kept for a limited time")
        if not 0 <= message.offset <= size or message.length < 1:
            raise Refusal(
                "bad-request", f"{message.length} bytes from {message.offset} on are not part of a blob of {size} bytes"
            )
        if message.offset == 0:
            self._blobs.touch(message.sha256)
        data = self._blobs.read(message.sha256, message.offset, min(message.length, CHUNK_BYTES))
        answer(BlobChunk(message.sha256, size, message.offset, data))

    def _submit(self, message: Submit, answer: Answer) -> None:
        _require_key(message.key)
        job = self._store.job_of_key(message.key)
        if job is None:
            request, needs = self._job_request(message.request)
            for sha256 in needs:
                self._blobs.touch(sha256)
            if self._store.unfinished() >= _MAX_UNFINISHED:
                raise Refusal("bad-request", f"{_MAX_UNFINISHED} jobs are waiting already; cancel some, or wait")
            job = self._store.submit(message.key, request, needs)
            log.info("job %s submitted: %s, %r", job, request.engine, request.label)
            self.workers.wake()
        answer(Submitted(job))

    def _get_view(self, message: GetView, answer: Answer, client: bytes, request_id: int) -> None:
        request, _ = self._request(message.request)
        if len(request.camera) != 1:
            raise Refusal("bad-request", f"a view has a camera of 1 frame, not {len(request.camera)}; submit a shot")
        if max(request.camera.width, request.camera.height) > _MAX_VIEW_SIDE:
            raise Refusal("bad-request", f"a view may be {_MAX_VIEW_SIDE} pixels wide and high; submit a shot")
        self._views.ask(client, request_id, request, answer)

    def _job_request(self, values: dict[str, Any]) -> tuple[ShotRequest | ReconstructionRequest, list[str]]:
        """A checked request of either kind, and the hashes of all that it needs, which is here."""
        if "kind" not in values:
            request, manifest = self._request(values)
            return request, [request.scene, *(manifest.files[part].sha256 for part in RENDER_FILES)]
        try:
            request = request_from_wire(values)
        except RequestError as error:
            raise Refusal("bad-request", str(error)) from error
        for file in request.files:
            size = self._blobs.size(file.sha256)
            if size is None:
                raise Refusal("unknown-blob", f"{file.label!r} is not here; send it", {"missing": [file.sha256]})
            if size != file.size:
                raise Refusal("bad-request", f"{file.label!r} has {size} bytes, the request says {file.size}")
        return request, [file.sha256 for file in request.files]

    def _request(self, values: dict[str, Any]) -> tuple[ShotRequest, SceneManifest]:
        """A checked request, and the manifest of its scene, whose files are all here."""
        try:
            request = ShotRequest.from_wire(values)
            manifest = self._manifest(request.scene)
            request.require_footage(manifest.frames)
        except RequestError as error:
            raise Refusal("bad-request", str(error)) from error
        return request, manifest

    def _manifest(self, digest: str) -> SceneManifest:
        """The manifest of a scene whose files are all here."""
        size = self._blobs.size(digest)
        if size is None:
            raise Refusal("unknown-scene", f"scene {digest} is not here; send its manifest", {"missing": ["manifest"]})
        try:
            manifest = SceneManifest.from_json(self._blobs.read(digest, 0, MAX_MANIFEST_BYTES + 1))
        except SceneError as error:
            raise Refusal("bad-request", str(error)) from error
        sizes = {part: self._blobs.size(manifest.files[part].sha256) for part in RENDER_FILES}
        missing = [part for part, size in sizes.items() if size is None]
        if missing:
            text = f"scene {manifest.name!r} is not whole here; send its {', '.join(missing)}"
            raise Refusal("unknown-scene", text, {"missing": missing})
        for part, size in sizes.items():
            if size != manifest.files[part].size:
                said = manifest.files[part].size
                text = f"the {part} of scene {manifest.name!r} has {size} bytes, its manifest says {said}"
                raise Refusal("bad-request", f"{text}; reconstruct the scene")
        return manifest

    def _cancel(self, message: Cancel, answer: Answer) -> None:
        self._stop(message.job)
        answer(StatusReply(self._status(message.job)))

    def _withdraw(self, message: Withdraw, answer: Answer) -> None:
        _require_key(message.key)
        job = self._store.job_of_key(message.key)
        if job is not None:
            self._stop(job)
        answer(Withdrawn(job or ""))

    def _stop(self, job: str) -> None:
        if self._status(job).state not in FINAL_STATES:
            self._store.cancel(job)
            log.info("job %s is cancelled", job)
            self.workers.cancelled(job)
            self.job_changed(job)

    def _list_jobs(self, message: ListJobs, answer: Answer) -> None:
        answer(JobsReply(self._store.jobs(message.limit)))

    def _get_events(self, message: GetEvents, answer: Answer, client: bytes) -> None:
        status = self._status(message.job)
        if message.after < 0:
            raise Refusal("bad-request", f"events are numbered from 1, so after must be 0 or more, not {message.after}")
        wait = min(message.wait, MAX_WAIT_SECONDS) if math.isfinite(message.wait) else 0.0
        after = min(message.after, status.events)
        parked = _Parked(client, answer, message.job, after, _progress(status), time.monotonic() + wait)
        self._parked.append(parked)
        if status.events > after or status.state in FINAL_STATES or wait <= 0:
            self._unpark(parked)
        elif len(of_client := [one for one in self._parked if one.client == client]) > _MAX_PARKED:
            self._unpark(of_client[0])

    def _unpark(self, parked: _Parked) -> None:
        self._parked.remove(parked)
        events = self._store.events(parked.job, parked.after)
        parked.answer(EventsReply(self._status(parked.job), events))

    def _status(self, job: str) -> JobStatus:
        status = self._store.status(job)
        if status is None:
            raise Refusal(
                "unknown-job",
                f"there is no job {job!r:.80} here; was it too old, or given to another backend?",
            )
        return status


def _progress(status: JobStatus) -> tuple[str, int, int]:
    return status.stage, status.done, status.total


def _require_key(key: str) -> None:
    if not 0 < len(key) <= _MAX_KEY:
        raise Refusal("bad-request", f"a key has 1 to {_MAX_KEY} characters, not {len(key)}")


def _require_hash(sha256: str) -> None:
    if not is_sha256(sha256):
        raise Refusal("bad-request", f"a blob's name is a SHA-256 in lower-case hexadecimal, not {sha256!r:.80}")
