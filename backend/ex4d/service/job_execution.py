"""`work`: takes queued jobs for one worker, has each computed at its `WorkPlace`, and stores what comes of them.

The place is this process (`ex4d.service.worker`), or a node of a cluster (`ex4d.service.cluster_driver`). All that is
recorded of a job is recorded here, so that faults, cancelling and a full disk mean the same at both.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from ex4d.devices import Devices
from ex4d.machine import MachineSettings
from ex4d.service.blob_store import BlobStore
from ex4d.service.disk_room import DiskRoom, folder_bytes
from ex4d.service.job_store import Claim, ClaimedJob, ClaimLost, JobStore
from ex4d.service.kept_finals import KeptFinal, kept_final
from ex4d.service.logs import working_on
from ex4d.service.refusals import refusal_for
from ex4d.service.settings import ServiceSettings
from ex4d.service.stored_inputs import open_scene, scene_inputs, verify_inputs
from ex4d.service.users import user_folder
from ex4d_core.durable_files import put_in_place
from ex4d_core.errors import user_message
from ex4d_core.passes import PassesRequest
from ex4d_core.reconstruction import AnyRequest, ReconstructionRequest
from ex4d_core.stages import StageDetails

if TYPE_CHECKING:
    from ex4d.pipeline.take import TakeSink

log = logging.getLogger("ex4d.service.worker")

# Often enough for a smooth progress bar.
_PROGRESS_SECONDS = 0.1

# How often a worker looks for room on a full disk. After each job that ran into it the pause grows, up to the longest:
# where a quota is exhausted, nothing else tells when there is room.
_ROOM_SECONDS = 1.0
_LONGEST_PAUSE = 60

# How often an idle worker checks its capabilities: weights may have been fetched meanwhile. A busy one does so between
# jobs.
_CHECK_SECONDS = 5.0
# How often one looks again at jobs that it leaves to others.
_DEFERRED_SECONDS = 1.0

Result = TypeVar("Result")
Runner = Callable[..., None]
# Writes a line to the service, of these words.
Report = Callable[..., None]


class WorkerLost(Exception):
    """Whatever computed a job has died; the job is not to blame until the service says so."""


class WorkPlace(Protocol):
    """Where the jobs of one worker are computed.

    Attributes:
        device: for people, and for the record of a job: "cuda:0".
    """

    device: str

    def report_abilities(self, report: Report) -> None:
        """Report what can be done here, unless that is what was reported last."""
        ...

    def left_to_others(self, store: JobStore) -> Collection[str]:
        """Queued jobs that this worker does not take now."""
        ...

    def compute(
        self, job: ClaimedJob, blobs: BlobStore, *, sink: JobSink, folder: Path, kept: KeptFinal | None
    ) -> None:
        """Compute a job whose inputs are in ``blobs``, with files on their way to ``sink`` in ``folder``.

        Args:
            kept: what earlier attempts have left; None for a job that starts at its beginning.

        Raises:
            ClaimLost: the sink did.
            WorkerLost: see there.
            Exception: the job failed.
        """
        ...

    def idle(self, wake: threading.Event, seconds: float) -> None:
        """Wait until ``wake`` is set, or for so many seconds."""
        ...


class JobSink:
    """Stores a job's progress and results; the `ex4d.pipeline.take.TakeSink` of the service.

    Every method raises `ClaimLost` once the job is no longer this worker's.
    """

    def __init__(
        self,
        store: JobStore,
        blobs: BlobStore,
        claim: Claim,
        report: Report,
        room: DiskRoom,
        kept: KeptFinal | None = None,
    ):
        """Write for a claim; ``kept`` has the place of what the next attempt needs."""
        self._room, self._kept = room, kept
        self._store = store
        self._blobs = blobs
        self._claim = claim
        self._report = report
        self._stage = ""
        self._written = 0.0

    def progress(self, stage: str, done: int, total: int) -> None:
        """Record progress, unless the last was a moment ago.

        The parts of a step come faster than anybody can read, and each has a text of its own; the step's end is told.
        """
        now, details = time.monotonic(), StageDetails.of(stage)
        same = stage == self._stage or bool(details.parts)
        if same and done < total and now - self._written < _PROGRESS_SECONDS:
            return
        self._patiently(lambda: self._store.set_progress(self._claim, stage, done, total))
        self._stage, self._written = stage, now
        self._report("changed", self._claim.job)

    def frame(self, index: int, path: Path) -> None:
        """Store a finished frame, and announce it."""
        self._add("frame", path, index=index)

    def estimate(self, number: int, path: Path) -> None:
        """Store a small image of the expected result after a step, and announce it."""
        self._add("estimate", path, index=number)

    def file(self, name: str, path: Path, sha256: str = "") -> None:
        """Store a finished file, whose hash may be known, and announce it."""
        self._add("file", path, name, sha256=sha256)

    def keep(self, path: Path) -> None:
        """Keep an engine's state for the next attempt, and take its file away."""
        assert self._kept, "only of jobs that continue"
        self._patiently(lambda: self._store.require_claim(self._claim))
        put_in_place(path, self._kept.state)

    def _add(self, kind: str, path: Path, name: str = "", index: int = -1, sha256: str = "") -> None:
        # Hours of work may be in this file.
        blob = self._patiently(lambda: self._blobs.add_file(path, sha256))
        self._patiently(lambda: self._store.add_result(self._claim, kind, name, index, *blob))
        self._report("changed", self._claim.job)

    def _patiently(self, write: Callable[[], Result]) -> Result:
        return self._room.keep_trying(write, partial(_wait_for_room, self._report))


def compute_here(
    request: AnyRequest,
    blobs: BlobStore,
    runner: Runner,
    *,
    device: str,
    machine: MachineSettings,
    sink: TakeSink,
    work_folder: Path,
    **for_runner: object,
) -> None:
    """Compute a job in this process, after a check of all that it reads.

    Args:
        runner: generates shots; it also gets ``for_runner``.
        work_folder: an existing folder, in the file system of the blobs.
    """
    where = {"machine": machine, "sink": sink, "work_folder": work_folder}
    if isinstance(request, ReconstructionRequest):
        # Imported here, since a worker for shots alone needs neither torch nor decoders.
        from ex4d.service.scene_job import reconstruct_sent

        reconstruct_sent(request, blobs, device=Devices.parse(device).first, **where)
    else:
        shot = request.shot if isinstance(request, PassesRequest) else request
        deep = shot.draws_deep
        scene = open_scene(blobs, shot.scene, deep=deep)
        verify_inputs(blobs, scene_inputs(scene, deep=deep), sink.progress)
        if isinstance(request, PassesRequest):
            from ex4d.service.passes_job import render_passes

            render_passes(scene, request, device=Devices.parse(device).first, **where)
        else:
            runner(scene, shot, device=device, **where, **for_runner)


def run_job(
    job: ClaimedJob,
    place: WorkPlace,
    store: JobStore,
    blobs: BlobStore,
    report: Report,
    settings: ServiceSettings,
    folder: Path,
) -> bool:
    """Run a job, and record how it ended. Any exception but `WorkerLost` ends the job, not the worker.

    A full disk ends neither: the job is queued again, for a time with more room.

    Returns:
        Whether the job's work is over.
    """
    room = DiskRoom(settings.data, settings.reserve_mb * 1e6)
    # Other runners, as tests have them, do not continue.
    continues = settings.runner == ServiceSettings.runner
    kept = kept_final(store, blobs, settings.data, job.job, job.request) if continues else None
    if kept and kept.frames:
        log.info("job %s continues after %d finished frames", job.job, len(kept.frames))
    sink = JobSink(store, blobs, job, report, room, kept)
    end, over = partial(store.finish, job), True
    try:
        folder.mkdir(parents=True)
        place.compute(job, blobs, sink=sink, folder=folder, kept=kept)
    except ClaimLost as lost:
        end = partial(log.info, "%s; dropped", lost)
    except WorkerLost:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # Engines may raise anything, and other jobs must run.
    except Exception as error:
        reason = str(refusal_for(error, settings.data))
        if room.is_lacking(error):
            log.warning("job %s waits for disk space: %s", job.job, user_message(error))
            end, over = partial(store.put_back, job, room.needed_after(folder_bytes(folder)), reason), False
        else:
            log.exception("job %s failed", job.job)
            end = partial(store.fail, job, reason)
    # First the folder: on a full disk the record needs the room that this gives.
    shutil.rmtree(folder, ignore_errors=True)
    try:
        room.keep_trying(end, partial(_wait_for_room, report))
    except ClaimLost as lost:
        log.info("%s; dropped", lost)
    return over


def _wait_for_room(report: Report, reason: str, seconds: float = _ROOM_SECONDS) -> None:
    report("waiting", reason.replace("\n", " "))
    time.sleep(seconds)


def _claim(store: JobStore, room: DiskRoom, name: str, device: str, left: Collection[str]) -> ClaimedJob | None:
    return store.claim(name, device, room.free(), left)


def work(
    settings: ServiceSettings,
    name: str,
    report: Report,
    wake: threading.Event,
    place: WorkPlace,
    log_bytes: Callable[[], int],
) -> None:
    """Take and run jobs, forever.

    Args:
        name: of the worker in the job store.
        wake: set when there may be work.
        log_bytes: how long the worker's log is now.

    Raises:
        WorkerLost: the place has died.
    """
    room = DiskRoom(settings.data, settings.reserve_mb * 1e6)
    wait = partial(_wait_for_room, report)
    store = room.keep_trying(lambda: JobStore(settings.database), wait)
    # Of each user; each knows what it has verified.
    stores: dict[str, BlobStore] = {}
    place.report_abilities(report)
    # Jobs that ran into the full disk, one after the other.
    ran_full = 0
    while True:
        wake.clear()
        problem = room.problem()
        left = place.left_to_others(store)
        claim = partial(_claim, store, room, name, place.device, left)
        job = None if problem else room.keep_trying(claim, wait)
        if job is None and store.has_queued(left):
            wait(problem or f"a queued job needs more than the {room.free() / 1e6:.0f} MB that are free")
            continue
        if job is None:
            if left:  # looked at again soon: the others may take longer than was expected
                report("deferring")
                place.idle(wake, _DEFERRED_SECONDS)
                continue
            report("idle")
            while not wake.is_set():
                place.idle(wake, _CHECK_SECONDS)
                place.report_abilities(report)
            continue
        report("claimed", job.job)
        log.info("job %s: %s, %r", job.job, job.request.engine, job.request.label)
        if job.owner not in stores:
            stores[job.owner] = BlobStore(user_folder(settings.data, job.owner))
        blobs = stores[job.owner]
        with working_on(job.job):
            over = run_job(job, place, store, blobs, report, settings, settings.data / "work" / name / job.secret)
        report("ended", job.job, str(log_bytes()))
        place.report_abilities(report)
        ran_full = 0 if over else ran_full + 1
        for _ in range(min(2**ran_full - 1, _LONGEST_PAUSE)):
            wait(f"job {job.job} ran into the full disk")
