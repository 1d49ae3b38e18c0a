"""The messages between client and service, and their limits; `ex4d_core.wire` turns them into bytes.

The service answers every request of a client with exactly one reply, which has the request's id; it pushes nothing.
Requests are idempotent, so a client may send one again when no reply arrives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np

from ex4d_core.errors import RequestError
from ex4d_core.schema import Codec

PROTOCOL_VERSION = 3
DEFAULT_PORT = 47747
DEFAULT_ADDRESS = f"tcp://127.0.0.1:{DEFAULT_PORT}"

# A header holds a camera path at most: 100,000 frames x 25 float64, and room for words.
MAX_HEADER_BYTES = 24 * 1024 * 1024
# Small enough for one chunk to be handled well within a UI tick of a few milliseconds.
CHUNK_BYTES = 256 * 1024
# One image of a view, as JPEG: 2048x2048 of noise has about 5 MB.
MAX_IMAGE_BYTES = 16 * 1024 * 1024
MAX_BLOB_BYTES = 64 * 1024**3
MAX_HASHES = 64
MAX_EVENTS = 64
MAX_JOBS = 200
# A request for events is held back at most this long until there is something to tell.
MAX_WAIT_SECONDS = 10.0

JOB_STATES = ("queued", "running", "done", "failed", "cancelled")
FINAL_STATES = ("done", "failed", "cancelled")


def _floats_from_bytes(data: object) -> list[float]:
    if not isinstance(data, bytes) or len(data) % 8:
        raise RequestError(f"a list of numbers must be bytes of float64, not {type(data).__name__}")
    return np.frombuffer(data, "<f8").tolist()


# Lists of floats may be as long as a clip, so they travel as little-endian float64: the lists of a header are short.
Floats = Annotated[list[float], Codec(None, lambda values: np.asarray(values, "<f8").tobytes(), _floats_from_bytes)]


@dataclass(frozen=True)
class Message:
    """Base of all messages. A type with a raw part has a field ``payload`` for it, and says how long it may be."""

    max_payload: ClassVar[int] = 0


@dataclass(frozen=True)
class Hello(Message):
    """Asks who the service is; also the heartbeat."""

    client: str = ""


@dataclass(frozen=True)
class Welcome(Message):
    """The service introduces itself.

    Attributes:
        devices: in words.
        engines: what licences each engine's results depend on.
        lacking: engines ("wan") and their presets ("wan fast") that are unavailable, and why, for people; a command
            that fixes it comes last, after "with: ".
    """

    service: str
    version: str
    devices: list[str]
    engines: dict[str, str]
    rasterizers: dict[str, str]
    busy: bool = False
    lacking: dict[str, str] = field(default_factory=dict)


def command_in(reason: str) -> str:
    """The command that a reason of `Welcome.lacking`, or of a failed job, ends with; "" if it has none."""
    found = re.search(r" with: ((?:ex4d|pip) .+)$", reason)
    return found[1] if found else ""


@dataclass(frozen=True)
class BlobStatus(Message):
    """Asks how much of each blob the service has."""

    hashes: list[str]


@dataclass(frozen=True)
class BlobStatusReply(Message):
    """Bytes received so far, for each hash; -1 for a complete blob."""

    received: list[int]


@dataclass(frozen=True)
class PutBlob(Message):
    """One chunk of a blob; chunks come in order, the first at offset 0."""

    max_payload: ClassVar[int] = CHUNK_BYTES
    sha256: str
    size: int
    offset: int
    payload: bytes = b""


@dataclass(frozen=True)
class PutBlobReply(Message):
    """Bytes that the service has now; -1 when the blob is complete and its hash is right."""

    sha256: str
    received: int


@dataclass(frozen=True)
class GetBlob(Message):
    """Asks for one chunk of a blob."""

    sha256: str
    offset: int
    length: int = CHUNK_BYTES


@dataclass(frozen=True)
class BlobChunk(Message):
    """The answer to `GetBlob`."""

    max_payload: ClassVar[int] = CHUNK_BYTES
    sha256: str
    size: int
    offset: int
    payload: bytes = b""


@dataclass(frozen=True)
class Submit(Message):
    """Submits a shot or a scene. ``key`` is the client's own random name for it: the same key never makes a second job.

    Attributes:
        request: a `ShotRequest` or a `ReconstructionRequest` on the wire.
    """

    key: str
    request: dict[str, Any]


@dataclass(frozen=True)
class Submitted(Message):
    """The job that a submission has become."""

    job: str


@dataclass(frozen=True)
class Cancel(Message):
    """Cancels a job; answered with a `StatusReply`."""

    job: str


@dataclass(frozen=True)
class Withdraw(Message):
    """Cancels what was submitted under a key, for a client that never received the job's name."""

    key: str


@dataclass(frozen=True)
class Withdrawn(Message):
    """The job that was cancelled; "" if nothing had arrived under the key."""

    job: str


@dataclass(frozen=True)
class ListJobs(Message):
    """Asks for the newest jobs."""

    limit: int = MAX_JOBS


@dataclass(frozen=True)
class JobStatus:
    """The state and progress of a job.

    Attributes:
        state: one of `JOB_STATES`.
        stage, done, total: the worker's stage ("render", "preview"), and its progress.
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
    """The answer to `ListJobs`."""

    jobs: list[JobStatus]


@dataclass(frozen=True)
class DescribeJobs(Message):
    """Asks what the newest jobs are of. Services up to version 0.1.0 refuse it as an unknown type."""

    limit: int = MAX_JOBS


@dataclass(frozen=True)
class JobDetails:
    """What a job is of, when it ran and where.

    Attributes:
        job: its name, as in `JobStatus`.
        scene: SHA-256 of the scene's manifest; "" for a reconstruction, which makes one.
        request: SHA-256 of the request; the same request has the same.
        started: when a worker took it up, for the last time, in seconds since 1970; 0 if none has.
        ended: when it was done, failed or was cancelled; 0 if it was not.
        device: of that worker: "cpu", "cuda:0"; "" if none has taken it up.
    """

    job: str
    scene: str = ""
    request: str = ""
    started: float = 0.0
    ended: float = 0.0
    device: str = ""


@dataclass(frozen=True)
class JobsDescribed(Message):
    """The answer to `DescribeJobs`, newest job first."""

    jobs: list[JobDetails]


@dataclass(frozen=True)
class AskSilence(Message):
    """Asks how long ago each running job made progress. Services up to version 0.1.0 refuse it as an unknown type."""


@dataclass(frozen=True)
class JobSilence:
    """How long ago a running job made progress.

    Attributes:
        job: its name, as in `JobStatus`.
        seconds: on the service's monotonic clock.
        limit: after which the service stops it and tries again.
    """

    job: str
    seconds: float
    limit: float


@dataclass(frozen=True)
class Silence(Message):
    """The answer to `AskSilence`: one entry for each running job."""

    jobs: list[JobSilence]


@dataclass(frozen=True)
class DescribeWeights(Message):
    """Asks which weights the service has. Services up to version 0.1.0 refuse it as an unknown type."""


@dataclass(frozen=True)
class FetchWeights(Message):
    """Starts or resumes the download of a part of the weights; the service's operator may forbid it."""

    part: str


@dataclass(frozen=True)
class CancelFetch(Message):
    """Stops the download of a part; what has arrived stays for the next `FetchWeights`."""

    part: str


@dataclass(frozen=True)
class WeightsPart:
    """A part of the weights: a depth estimator, or a part of the engine wan.

    Attributes:
        name, title: for requests, and for people.
        kind: "depth", "wan", "lora" or "evaluation".
        licence: for people.
        commercial: whether that licence allows commercial use of results.
        bytes: of all files, about.
        state: "here", "missing", "fetching", or "failed".
        done: bytes that are here.
        reason: why the last download failed, for people.
    """

    name: str
    title: str
    kind: str
    licence: str
    commercial: bool
    bytes: int
    state: str = "missing"
    done: int = 0
    reason: str = ""


@dataclass(frozen=True)
class WeightsReply(Message):
    """The answer to `DescribeWeights`, `FetchWeights` and `CancelFetch`.

    Attributes:
        parts: in the order of preference.
        allowed: whether clients may fetch them.
    """

    parts: list[WeightsPart]
    allowed: bool


@dataclass(frozen=True)
class GetEvents(Message):
    """Events of a job numbered above ``after``; held back up to ``wait`` seconds until there is one."""

    job: str
    after: int = 0
    wait: float = 0.0


@dataclass(frozen=True)
class JobEvent:
    """An event of a job.

    Attributes:
        number: 1, 2, 3... within the job.
        kind: "state" (``name`` is the new state), "frame", "file" (a blob is ready), or "estimate" (a small image
            of the denoised estimate is ready; ``index`` is the step).
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
    """The answer to `GetEvents`."""

    status: JobStatus
    events: list[JobEvent]


@dataclass(frozen=True)
class StatusReply(Message):
    """The answer to `Cancel`."""

    status: JobStatus


@dataclass(frozen=True)
class GetView(Message):
    """Asks what a camera sees of one frame, at once. The newest request wins.

    While one view is being rendered, a client's later requests wait; of those only the newest is answered with a
    `View`, the others with an `Error` of code "superseded". The scene must have been uploaded.

    Attributes:
        request: a `ShotRequest` on the wire, with a camera of one frame.
    """

    request: dict[str, Any]


@dataclass(frozen=True)
class View(Message):
    """One frame as the preview engine would show it.

    Attributes:
        seen: share of the image that the footage saw.
        payload: the image as JPEG.
    """

    max_payload: ClassVar[int] = MAX_IMAGE_BYTES
    width: int
    height: int
    seen: float
    payload: bytes = b""


@dataclass(frozen=True)
class GetCoverage(Message):
    """Asks how much of each frame of a shot the footage saw. The newest request wins, as with `GetView`.

    Attributes:
        request: a `ShotRequest` on the wire.
    """

    request: dict[str, Any]


@dataclass(frozen=True)
class Coverage(Message):
    """The coverage of each frame of the shot, at a reduced resolution.

    Attributes:
        seen: share of the frame that the footage saw, 0 to 1.
        view_angle: degrees between the directions from which the source camera and the new one look at the subject.
    """

    seen: Floats
    view_angle: Floats


@dataclass(frozen=True)
class Error(Message):
    """A request that could not be served.

    Attributes:
        code: "version", "bad-message", "too-large", "bad-request", "unknown-scene", "unknown-job", "unknown-blob",
            "bad-blob", "disk-full", "storage", "superseded" or "internal", which is a bug.
        text: what is wrong and what to do, for people.
    """

    code: str
    text: str
    details: dict[str, Any] = field(default_factory=dict)


REQUESTS = {
    kind.__name__: kind
    for kind in (
        Hello,
        BlobStatus,
        PutBlob,
        GetBlob,
        Submit,
        Cancel,
        Withdraw,
        ListJobs,
        DescribeJobs,
        AskSilence,
        DescribeWeights,
        FetchWeights,
        CancelFetch,
        GetEvents,
        GetView,
        GetCoverage,
    )
}
REPLIES = {
    kind.__name__: kind
    for kind in (
        Welcome,
        BlobStatusReply,
        PutBlobReply,
        BlobChunk,
        Submitted,
        Withdrawn,
        JobsReply,
        JobsDescribed,
        Silence,
        WeightsReply,
        EventsReply,
        StatusReply,
        View,
        Coverage,
        Error,
    )
}
# The reply to each request, if it is not an `Error`.
ANSWERS: dict[type[Message], type[Message]] = {
    Hello: Welcome,
    BlobStatus: BlobStatusReply,
    PutBlob: PutBlobReply,
    GetBlob: BlobChunk,
    Submit: Submitted,
    Cancel: StatusReply,
    Withdraw: Withdrawn,
    ListJobs: JobsReply,
    DescribeJobs: JobsDescribed,
    DescribeWeights: WeightsReply,
    FetchWeights: WeightsReply,
    CancelFetch: WeightsReply,
    GetEvents: EventsReply,
    GetView: View,
    GetCoverage: Coverage,
}
