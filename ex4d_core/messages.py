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
from ex4d_core.folder_messages import DescribeFolders, FoldersReply, TakeFile
from ex4d_core.job_status import MAX_BLOB_BYTES, BlobSize, JobDetails, JobEvent, JobSilence, JobStatus, Line, Reason
from ex4d_core.message_base import Message, Reply
from ex4d_core.schema import Codec, Length, Range, Shown
from ex4d_core.turn_messages import DescribeTurns, SetPriority, TurnsReply
from ex4d_core.weight_messages import CancelFetch, DescribeWeights, FetchWeights, WeightsReply

PROTOCOL_VERSION = 3
DEFAULT_PORT = 47747
DEFAULT_ADDRESS = f"tcp://127.0.0.1:{DEFAULT_PORT}"

# The header of a reply holds a list of jobs with reasons, or the coverage of 100,000 frames; or only numbers.
_LONG_HEADER_BYTES = 4 * 1024 * 1024
_SHORT_HEADER_BYTES = 4096
# Small enough for one chunk to be handled well within a UI tick of a few milliseconds.
CHUNK_BYTES = 256 * 1024
# One image of a view, as JPEG: 2048x2048 of noise has about 5 MB.
MAX_IMAGE_BYTES = 16 * 1024 * 1024
MAX_HASHES = 64
MAX_EVENTS = 64
MAX_JOBS = 200
# A request for events is held back at most this long until there is something to tell.
MAX_WAIT_SECONDS = 10.0


def _floats_from_bytes(data: object) -> list[float]:
    if not isinstance(data, bytes) or len(data) % 8:
        raise RequestError(f"a list of numbers must be bytes of float64, not {type(data).__name__}")
    return np.frombuffer(data, "<f8").tolist()


# Lists of floats may be as long as a clip, so they travel as little-endian float64: the lists of a header are short.
Floats = Annotated[list[float], Codec(None, lambda values: np.asarray(values, "<f8").tobytes(), _floats_from_bytes)]


# Bytes of a blob that the other side has; -1 for a complete one.
_Received = Annotated[int, Range(-1, MAX_BLOB_BYTES)]
_Side = Annotated[int, Range(1, 8192)]


@dataclass(frozen=True)
class Hello(Message):
    """Asks who the service is; also the heartbeat."""

    client: str = ""


@dataclass(frozen=True)
class Welcome(Reply):
    """The service introduces itself.

    Attributes:
        devices: in words.
        engines: what licences each engine's results depend on.
        lacking: engines ("wan"), their presets ("wan fast"), upscalers ("wan upscaler"), the precision fp8 as it was
            asked for (`LACKING_FP8`) and the solve of cameras ("solve") that are unavailable, and why, for people; a
            command that fixes it comes last, after "with: ".
    """

    service: Line
    version: Line
    devices: Annotated[list[Annotated[str, Shown(1000)]], Length(64)]
    engines: dict[Line, Reason]
    rasterizers: dict[Line, Reason]
    busy: bool = False
    lacking: dict[Line, Reason] = field(default_factory=dict)


def command_in(reason: str) -> str:
    """The command that a reason of `Welcome.lacking`, or of a failed job, ends with; "" if it has none."""
    found = re.search(r" with: ((?:ex4d|pip) .+)$", reason)
    return found[1] if found else ""


@dataclass(frozen=True)
class BlobStatus(Message):
    """Asks how much of each blob the service has."""

    hashes: list[str]


@dataclass(frozen=True)
class BlobStatusReply(Reply):
    """Bytes received so far, for each hash; -1 for a complete blob."""

    max_header: ClassVar[int] = _SHORT_HEADER_BYTES
    received: Annotated[list[_Received], Length(MAX_HASHES)]


@dataclass(frozen=True)
class PutBlob(Message):
    """One chunk of a blob; chunks come in order, the first at offset 0."""

    max_payload: ClassVar[int] = CHUNK_BYTES
    sha256: str
    size: int
    offset: int
    payload: bytes = b""


@dataclass(frozen=True)
class PutBlobReply(Reply):
    """Bytes that the service has now; -1 when the blob is complete and its hash is right."""

    max_header: ClassVar[int] = _SHORT_HEADER_BYTES
    sha256: Line
    received: _Received


@dataclass(frozen=True)
class GetBlob(Message):
    """Asks for one chunk of a blob."""

    sha256: str
    offset: int
    length: int = CHUNK_BYTES


@dataclass(frozen=True)
class BlobChunk(Reply):
    """The answer to `GetBlob`."""

    max_header: ClassVar[int] = _SHORT_HEADER_BYTES
    max_payload: ClassVar[int] = CHUNK_BYTES
    sha256: Line
    size: BlobSize
    offset: BlobSize
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
class Submitted(Reply):
    """The job that a submission has become."""

    job: Line


@dataclass(frozen=True)
class Cancel(Message):
    """Cancels a job; answered with a `StatusReply`."""

    job: str


@dataclass(frozen=True)
class Withdraw(Message):
    """Cancels what was submitted under a key, for a client that never received the job's name."""

    key: str


@dataclass(frozen=True)
class Withdrawn(Reply):
    """The job that was cancelled; "" if nothing had arrived under the key."""

    job: Line


@dataclass(frozen=True)
class ListJobs(Message):
    """Asks for the newest jobs."""

    limit: int = MAX_JOBS


@dataclass(frozen=True)
class JobsReply(Reply):
    """The answer to `ListJobs`."""

    max_header: ClassVar[int] = _LONG_HEADER_BYTES
    jobs: Annotated[list[JobStatus], Length(MAX_JOBS)]


@dataclass(frozen=True)
class DescribeJobs(Message):
    """Asks what the newest jobs are of. Services up to version 0.1.0 refuse it as an unknown type."""

    limit: int = MAX_JOBS


@dataclass(frozen=True)
class JobsDescribed(Reply):
    """The answer to `DescribeJobs`, newest job first."""

    jobs: Annotated[list[JobDetails], Length(MAX_JOBS)]


@dataclass(frozen=True)
class AskSilence(Message):
    """Asks how long ago each running job made progress. Services up to version 0.1.0 refuse it as an unknown type."""


@dataclass(frozen=True)
class Silence(Reply):
    """The answer to `AskSilence`: one entry for each running job."""

    jobs: list[JobSilence]


@dataclass(frozen=True)
class GetEvents(Message):
    """Events of a job numbered above ``after``; held back up to ``wait`` seconds until there is one."""

    job: str
    after: int = 0
    wait: float = 0.0


@dataclass(frozen=True)
class EventsReply(Reply):
    """The answer to `GetEvents`."""

    status: JobStatus
    events: Annotated[list[JobEvent], Length(MAX_EVENTS)]


@dataclass(frozen=True)
class StatusReply(Reply):
    """The answer to `Cancel` and `SetPriority`."""

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
class View(Reply):
    """One frame as the preview engine would show it.

    Attributes:
        seen: share of the image that the footage saw.
        payload: the image as JPEG.
        remembered: share that only other frames of the clip saw, and that the image shows.
    """

    max_payload: ClassVar[int] = MAX_IMAGE_BYTES
    width: _Side
    height: _Side
    seen: Annotated[float, Range(0, 1)]
    remembered: Annotated[float, Range(0, 1)] = 0.0
    payload: bytes = b""


@dataclass(frozen=True)
class GetCoverage(Message):
    """Asks how much of each frame of a shot the footage saw. The newest request wins, as with `GetView`.

    Attributes:
        request: a `ShotRequest` on the wire.
    """

    request: dict[str, Any]


@dataclass(frozen=True)
class Coverage(Reply):
    """The coverage of each frame of the shot, at a reduced resolution.

    Attributes:
        seen: share of the frame that the footage saw, 0 to 1.
        view_angle: degrees between the directions from which the source camera and the new one look at the subject.
        remembered: share that only other frames of the clip saw, where the shot shows it; empty from older services.
    """

    max_header: ClassVar[int] = _LONG_HEADER_BYTES
    seen: Floats
    view_angle: Floats
    remembered: Floats = field(default_factory=list)


@dataclass(frozen=True)
class Error(Reply):
    """A request that could not be served.

    Attributes:
        code: "version", "bad-message", "too-large", "bad-request", "unknown-scene", "unknown-job", "unknown-blob",
            "bad-blob", "disk-full", "storage", "superseded", "busy" (too many requests of the user wait; send it again
            later) or "internal", which is a bug.
        text: what is wrong and what to do, for people.
    """

    code: Line
    text: Reason
    details: dict[str, Any] = field(default_factory=dict)


REQUESTS: dict[str, type[Message]] = {
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
        DescribeTurns,
        SetPriority,
        DescribeFolders,
        TakeFile,
        DescribeWeights,
        FetchWeights,
        CancelFetch,
        GetEvents,
        GetView,
        GetCoverage,
    )
}
REPLIES: dict[str, type[Message]] = {
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
        TurnsReply,
        FoldersReply,
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
    AskSilence: Silence,
    DescribeTurns: TurnsReply,
    SetPriority: StatusReply,
    DescribeFolders: FoldersReply,
    TakeFile: PutBlobReply,
    DescribeWeights: WeightsReply,
    FetchWeights: WeightsReply,
    CancelFetch: WeightsReply,
    GetEvents: EventsReply,
    GetView: View,
    GetCoverage: Coverage,
}


def answer_bytes(request: Message) -> int:
    """Bytes that the reply to a request may have."""
    kind = ANSWERS.get(type(request), Reply)
    return kind.max_header + kind.max_payload
