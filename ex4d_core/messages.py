"""The messages between client and service, and their limits; `ex4d_core.wire` turns them into bytes.

The service answers every request of a client with exactly one reply, which has the request's id; it pushes nothing.
Requests are idempotent, so a client may send one again when no reply arrives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from ex4d_core.folder_messages import DescribeFolders, FoldersReply, TakeFile
from ex4d_core.job_status import MAX_BLOB_BYTES, BlobSize, JobDetails, JobEvent, JobSilence, JobStatus, Line, Reason
from ex4d_core.message_base import LONG_HEADER_BYTES, Message, Reply
from ex4d_core.schema import Length, Range, Shown
from ex4d_core.turn_messages import DescribeTurns, SetPriority, TurnsReply
from ex4d_core.view_messages import Coverage, GetCoverage, GetView, View
from ex4d_core.weight_messages import CancelFetch, DescribeWeights, FetchWeights, WeightsReply

PROTOCOL_VERSION = 3
DEFAULT_PORT = 47747
DEFAULT_ADDRESS = f"tcp://127.0.0.1:{DEFAULT_PORT}"

# The header of a reply that holds only numbers.
_SHORT_HEADER_BYTES = 4096
# Small enough for one chunk to be handled well within a UI tick of a few milliseconds.
CHUNK_BYTES = 256 * 1024
MAX_HASHES = 64
MAX_EVENTS = 64
MAX_JOBS = 200
# A request for events is held back at most this long until there is something to tell.
MAX_WAIT_SECONDS = 10.0


# Bytes of a blob that the other side has; -1 for a complete one.
_Received = Annotated[int, Range(-1, MAX_BLOB_BYTES)]


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

    max_header: ClassVar[int] = LONG_HEADER_BYTES
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
