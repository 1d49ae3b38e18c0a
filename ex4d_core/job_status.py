"""What a backend tells of a job: its state and progress, its events, what it is of, and for how long it was silent.

These travel inside the replies of `ex4d_core.messages`. Clients check every field when they decode one: states are
known, numbers fit into what Blender and calendars can hold, and text is harmless wherever it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from ex4d_core.schema import Range, Shown

JobStateName = Literal["queued", "running", "done", "failed", "cancelled"]
JOB_STATES: tuple[str, ...] = get_args(JobStateName)
FINAL_STATES = ("done", "failed", "cancelled")

MAX_BLOB_BYTES = 64 * 1024**3
# Characters of a reason, which every list of jobs repeats: libraries list a thousand tensors that do not fit.
MAX_REASON = 4000

# Names, labels and stages, in one line.
Line = Annotated[str, Shown(200)]
# Why something is as it is, for people.
Reason = Annotated[str, Shown(MAX_REASON, lines=True)]
# Blender's numbers have 32 bits.
Count = Annotated[int, Range(0, 2**31 - 1)]
# Seconds since 1970, up to the last year that calendars here have.
Clock = Annotated[float, Range(0, 253_370_764_800)]
Seconds = Annotated[float, Range(0, 1e9)]
BlobSize = Annotated[int, Range(0, MAX_BLOB_BYTES)]


@dataclass(frozen=True)
class JobStatus:
    """The state and progress of a job.

    Attributes:
        stage, done, total: the worker's stage ("render", "preview"), and its progress.
        reason: why it failed or was cancelled, for people.
        queue_position: jobs before this one; 0 for the next and for those that are not queued.
        events: number of the newest event.
    """

    job: Line
    label: Line
    engine: Line
    state: JobStateName
    stage: Line = ""
    done: Count = 0
    total: Count = 0
    reason: Reason = ""
    queue_position: Count = 0
    created: Clock = 0.0
    attempt: Count = 0
    events: Count = 0


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
        owner: the user who submitted it, by the name of their key; "" where all are one user.
    """

    job: Line
    scene: Line = ""
    request: Line = ""
    started: Clock = 0.0
    ended: Clock = 0.0
    device: Line = ""
    owner: Line = ""


@dataclass(frozen=True)
class JobSilence:
    """How long ago a running job made progress.

    Attributes:
        job: its name, as in `JobStatus`.
        seconds: on the service's monotonic clock.
        limit: after which the service stops it and tries again.
    """

    job: Line
    seconds: Seconds
    limit: Seconds


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

    number: Count
    kind: Line
    name: Line = ""
    index: Annotated[int, Range(-1, 2**31 - 1)] = -1
    sha256: Line = ""
    size: BlobSize = 0
