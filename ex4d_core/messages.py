"""The wire: typed messages, their limits, and their bytes.

A message is a ZeroMQ multipart message: a small msgpack header ``{"v": version, "type": name, "id": number, ...}``
and, for the types that carry a blob, one raw part. A client asks, the service answers every request with exactly one
reply that bears the request's id; nothing is ever pushed. Requests are idempotent, so a client may send one again
whenever it doubts that it arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import msgpack

PROTOCOL_VERSION = 1
DEFAULT_PORT = 47747
DEFAULT_ADDRESS = f"tcp://127.0.0.1:{DEFAULT_PORT}"

# A header holds a camera path at most: 100,000 frames x 25 float64, and room for words.
MAX_HEADER_BYTES = 24 * 1024 * 1024
# A list of 200 jobs is the largest that has a reason to be.
_MAX_CONTAINERS = 1024
# Small enough for one chunk to be handled well within a UI tick of a few milliseconds.
CHUNK_BYTES = 256 * 1024
# One picture of a view, as JPEG: 2048x2048 of noise has about 5 MB.
MAX_PICTURE_BYTES = 16 * 1024 * 1024
MAX_BLOB_BYTES = 64 * 1024**3
MAX_HASHES = 64
MAX_EVENTS = 64
MAX_JOBS = 200
# A request for events is held back at most this long until there is something to tell.
MAX_WAIT_SECONDS = 10.0

JOB_STATES = ("queued", "running", "done", "failed", "cancelled")
FINAL_STATES = ("done", "failed", "cancelled")


class ProtocolError(ValueError):
    """Bytes that are no message of ours. ``code`` tells programs, the text tells people."""

    def __init__(self, code: str, text: str, request_id: int = 0):
        super().__init__(text)
        self.code = code
        self.request_id = request_id


@dataclass(frozen=True)
class Message:
    """Base of all messages. A type with a raw part has a field ``payload`` for it, and says how long it may be."""

    max_payload: ClassVar[int] = 0


@dataclass(frozen=True)
class Hello(Message):
    """Who is there? Also the heartbeat."""

    client: str = ""


@dataclass(frozen=True)
class Welcome(Message):
    """The service introduces itself: its name and version, its devices, and what each engine's results rest on."""

    service: str
    version: str
    devices: list[str]
    engines: dict[str, str]
    rasterizers: dict[str, str]
    busy: bool = False


@dataclass(frozen=True)
class BlobStatus(Message):
    """How much of each blob does the service have?"""

    hashes: list[str]


@dataclass(frozen=True)
class BlobStatusReply(Message):
    """Bytes received so far, per hash as asked; -1 for a blob that is whole."""

    received: list[int]


@dataclass(frozen=True)
class PutBlob(Message):
    """One piece of a blob; pieces come in order, the first at offset 0."""

    max_payload: ClassVar[int] = CHUNK_BYTES
    sha256: str
    size: int
    offset: int
    payload: bytes = b""


@dataclass(frozen=True)
class PutBlobReply(Message):
    """Bytes that the service has now, -1 when the blob is whole and its hash is right."""

    sha256: str
    received: int


@dataclass(frozen=True)
class GetBlob(Message):
    sha256: str
    offset: int
    length: int = CHUNK_BYTES


@dataclass(frozen=True)
class BlobChunk(Message):
    max_payload: ClassVar[int] = CHUNK_BYTES
    sha256: str
    size: int
    offset: int
    payload: bytes = b""


@dataclass(frozen=True)
class Submit(Message):
    """Make a shot. ``key`` is the client's own random name for it: the same key never makes a second job."""

    key: str
    request: dict[str, Any]


@dataclass(frozen=True)
class Submitted(Message):
    job: str


@dataclass(frozen=True)
class Cancel(Message):
    job: str


@dataclass(frozen=True)
class ListJobs(Message):
    limit: int = MAX_JOBS


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands.

    Attributes:
        state: one of `JOB_STATES`.
        stage, done, total: what the worker is at ("render", "preview"), and how far.
        reason: why it failed or was cancelled, for people.
        queue_position: jobs before this one; 0 for the next and for those that are not queued.
        events: number of the newest event.
    """

    job: str
    label: str
    engine: str
    state: str
    stage: str = ""
    done: int = 0
    total: int = 0
    reason: str = ""
    queue_position: int = 0
    created: float = 0.0
    attempt: int = 0
    events: int = 0


@dataclass(frozen=True)
class JobsReply(Message):
    jobs: list[JobStatus]


@dataclass(frozen=True)
class GetEvents(Message):
    """Events of a job numbered above ``after``; held back up to ``wait`` seconds until there is one."""

    job: str
    after: int = 0
    wait: float = 0.0


@dataclass(frozen=True)
class JobEvent:
    """Something that happened, once.

    Attributes:
        number: 1, 2, 3... within the job.
        kind: "state" (``name`` is the new state), "frame", "file" (a blob is ready), or "estimate" (a small picture of
            what is coming is ready; ``index`` is the step).
        name: a file's name ("take.mp4", "color.mp4", "mask.mp4", "camera.npz", "request.json").
        index: a frame's number from 0; -1 otherwise.
        sha256, size: of the blob.
    """

    number: int
    kind: str
    name: str = ""
    index: int = -1
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True)
class EventsReply(Message):
    status: JobStatus
    events: list[JobEvent]


@dataclass(frozen=True)
class StatusReply(Message):
    """The answer to `Cancel`."""

    status: JobStatus


@dataclass(frozen=True)
class GetView(Message):
    """What does a camera see of one frame, at once? The newest wins.

    While one view is being made, a client's later requests wait; of those only the newest is answered with a `View`,
    the others with an `Error` of code "superseded". The scene must have been uploaded.

    Attributes:
        request: a `ShotRequest` on the wire, with a camera of one frame.
    """

    request: dict[str, Any]


@dataclass(frozen=True)
class View(Message):
    """One frame as the preview engine would show it.

    Attributes:
        seen: share of the picture that the footage saw.
        payload: the picture as JPEG.
    """

    max_payload: ClassVar[int] = MAX_PICTURE_BYTES
    width: int
    height: int
    seen: float
    payload: bytes = b""


@dataclass(frozen=True)
class GetCoverage(Message):
    """How much of each frame of a shot did the footage see? The newest wins, as with `GetView`.

    Attributes:
        request: a `ShotRequest` on the wire.
    """

    request: dict[str, Any]


@dataclass(frozen=True)
class Coverage(Message):
    """For each frame of the shot, at a reduced resolution.

    Attributes:
        seen: share of the frame that the footage saw, 0 to 1.
        view_angle: degrees between the directions from which the source camera and the new one look at the subject.
    """

    seen: list[float]
    view_angle: list[float]


@dataclass(frozen=True)
class Error(Message):
    """A request that could not be served.

    Attributes:
        code: "version", "bad-message", "too-large", "bad-request", "unknown-scene", "unknown-job", "unknown-blob",
            "bad-blob", "disk-full", "superseded" or "internal".
        text: what was wrong and what to do, for people.
    """

    code: str
    text: str
    details: dict[str, Any] = field(default_factory=dict)


REQUESTS = {
    kind.__name__: kind
    for kind in (Hello, BlobStatus, PutBlob, GetBlob, Submit, Cancel, ListJobs, GetEvents, GetView, GetCoverage)
}
REPLIES = {
    kind.__name__: kind
    for kind in (
        Welcome,
        BlobStatusReply,
        PutBlobReply,
        BlobChunk,
        Submitted,
        JobsReply,
        EventsReply,
        StatusReply,
        View,
        Coverage,
        Error,
    )
}
# Fields that hold other records, and what to rebuild them with.
_RECORDS = {"status": JobStatus, "jobs": JobStatus, "events": JobEvent}
_TYPES = {"int": int, "str": str, "bool": bool, "float": (float, int), "bytes": bytes}


def encode(message: Message, request_id: int) -> list[bytes]:
    """The parts to send for a message."""
    header: dict[str, Any] = {"v": PROTOCOL_VERSION, "type": type(message).__name__, "id": request_id}
    header.update(_plain(message))
    payload = header.pop("payload", None)
    parts = [msgpack.packb(header, use_bin_type=True)]
    return parts if payload is None else [*parts, payload]


def decode(parts: Sequence[bytes], kinds: dict[str, type[Message]]) -> tuple[int, Message]:
    """Check and rebuild a message.

    Args:
        parts: as received, without routing parts.
        kinds: what may come: `REQUESTS` or `REPLIES`.

    Returns:
        The request's id and the message.

    Raises:
        ProtocolError: with code "too-large", "bad-message" or "version".
    """
    if not parts or len(parts) > 2:
        raise ProtocolError("bad-message", f"a message has one or two parts, not {len(parts)}")
    if len(parts[0]) > MAX_HEADER_BYTES:
        raise ProtocolError("too-large", f"a header of {len(parts[0])} bytes is over the limit of {MAX_HEADER_BYTES}")
    try:
        header = _unpack(parts[0])
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError("bad-message", f"the header is not msgpack or is cut off: {error}") from error
    if not isinstance(header, dict):
        raise ProtocolError("bad-message", f"the header must be a map, not {type(header).__name__}")
    version, name, request_id = header.pop("v", None), header.pop("type", None), header.pop("id", None)
    request_id = request_id if isinstance(request_id, int) and 0 <= request_id < 2**63 else 0
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            "version",
            f"this side speaks protocol version {PROTOCOL_VERSION}, the other {version!r}; install matching versions "
            "of add-on and backend",
            request_id,
        )
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError("bad-message", f"unknown message type {str(name)[:40]!r}", request_id)
    if (len(parts) == 2) != (kind.max_payload > 0):
        raise ProtocolError("bad-message", f"{name} has {len(parts)} parts", request_id)
    if kind.max_payload:
        if len(parts[1]) > kind.max_payload:
            text = f"a payload of {len(parts[1])} bytes is over the limit of {kind.max_payload}"
            raise ProtocolError("too-large", text, request_id)
        header["payload"] = bytes(parts[1])
    return request_id, _rebuild(kind, header, request_id)


def _unpack(data: bytes) -> Any:
    """Unpack a header, whose bytes may be many (a camera path) but whose maps and lists are few.

    Without that bound 24 MB of empty maps would become 1.7 GB of objects.
    """
    containers = 0

    def count(container: Any) -> Any:
        nonlocal containers
        containers += 1
        if containers > _MAX_CONTAINERS:
            raise ValueError(f"more than {_MAX_CONTAINERS} maps and lists")
        return container

    return msgpack.unpackb(
        data, raw=False, strict_map_key=True, object_hook=count, list_hook=count, max_array_len=1024, max_map_len=256
    )


def _plain(value: Any) -> dict[str, Any]:
    plain = {}
    for entry in fields(value):
        item = getattr(value, entry.name)
        if isinstance(item, (JobStatus, JobEvent)):
            item = _plain(item)
        elif isinstance(item, list) and item and isinstance(item[0], (JobStatus, JobEvent)):
            item = [_plain(one) for one in item]
        plain[entry.name] = item
    return plain


def _rebuild(kind: type, values: dict[str, Any], request_id: int) -> Any:
    declared = {entry.name: str(entry.type) for entry in fields(kind)}
    if unknown := set(map(str, values)) - set(declared):
        raise ProtocolError("bad-message", f"{kind.__name__} has no field {min(unknown)[:40]!r}", request_id)
    for name, value in values.items():
        expected = declared[name]
        record = _RECORDS.get(name)
        if record and expected.startswith("list["):
            if not isinstance(value, list):
                raise ProtocolError("bad-message", f"{kind.__name__}.{name} must be a list", request_id)
            values[name] = [_rebuild_record(record, one, request_id) for one in value]
        elif record and expected == record.__name__:
            values[name] = _rebuild_record(record, value, request_id)
        else:
            _require_type(kind, name, value, expected, request_id)
    try:
        return kind(**values)
    except TypeError as error:
        raise ProtocolError("bad-message", f"{kind.__name__} is incomplete: {error}", request_id) from error


def _rebuild_record(record: type, value: object, request_id: int) -> Any:
    if not isinstance(value, dict):
        raise ProtocolError("bad-message", f"{record.__name__} must be a map", request_id)
    return _rebuild(record, value, request_id)


def _require_type(kind: type, name: str, value: object, expected: str, request_id: int) -> None:
    if expected.startswith("list["):
        element = _TYPES[expected[5:-1]]
        right = isinstance(value, list) and all(isinstance(one, element) for one in value)
    elif expected.startswith("dict["):
        right = isinstance(value, dict)
    else:
        right = isinstance(value, _TYPES[expected]) and (expected == "bool" or not isinstance(value, bool))
    if not right:
        raise ProtocolError(
            "bad-message", f"{kind.__name__}.{name} must be {expected}, not {type(value).__name__}", request_id
        )
