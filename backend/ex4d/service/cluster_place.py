"""`ClusterPlace`: one worker on a node of a Ray cluster, as `ex4d.service.job_execution.work` sees it.

It sends a job's inputs by content hash, takes what comes of it, tells the worker to stop when the claim is lost, and
has idle workers render ranges of a shot that another one runs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from cachetools import LRUCache

from ex4d.service.blob_store import BlobStore
from ex4d.service.cluster_actor import PIECE_BYTES, ClusterWorker
from ex4d.service.cluster_coverage import CoverageQuestion, CoverageQuestions, packed
from ex4d.service.cluster_messages import (
    Failed,
    Greeting,
    JobOrder,
    Progressed,
    Wanted,
    WorkerSettings,
)
from ex4d.service.cluster_ranges import SharedShot, ranges_of
from ex4d.service.cluster_results import Results
from ex4d.service.cluster_rules import Busy, left_to_warm, models_of, seconds_left
from ex4d.service.job_execution import JobSink, Report, WorkerLost
from ex4d.service.job_store import ClaimedJob, JobStore
from ex4d.service.kept_finals import KeptFinal
from ex4d.service.refusals import Refusal
from ex4d.service.settings import ServiceSettings
from ex4d.service.stored_inputs import VERIFY_STAGE, StoredInput, open_scene, scene_inputs, verify_inputs
from ex4d.service.users import user_folder
from ex4d_core import __version__
from ex4d_core.errors import Ex4dError
from ex4d_core.passes import PassesRequest
from ex4d_core.reconstruction import ReconstructionRequest
from ex4d_core.shot import ShotRequest
from ex4d_core.stages import LOAD_STAGE, StageDetails, stage_and_eta

log = logging.getLogger("ex4d.service.cluster_driver")

# What the object store keeps of the files that were sent last, for the next node that lacks them.
_KEPT_BYTES = 512e6
# Methods of an actor at a time: the job, what feeds it, and questions.
_METHODS = 6
# How often a worker that waits for its place, or starts, says so.
_STARTING_SECONDS = 5.0
# Queued shots that a free worker looks at.
_LOOKED_AT = 64
# Ray learns in this time why a worker that is lost has ended.
_CAUSE_SECONDS = 20.0
# Scenes that a worker keeps open for coverage.
_COVERED_SCENES = 2
# The service has computed it long before.
_COVER_SECONDS = 60.0
# Events of a job that wait in the object store.
_EVENTS = 8

_LOST = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, ray.exceptions.WorkerCrashedError)
# Where Ray's text tells the cause, the most exact first, and what that is called here.
_CAUSES = (
    ("its node has died. Node Id:", "was lost with its node"),
    ("Worker exit detail:", "died"),
    ("The actor is dead because", "died"),
)


@dataclass
class SharedJob:
    """A shot under way whose ranges others may render.

    Attributes:
        shot: who renders what.
        order: of it.
        blobs: its inputs.
        model: of the owner's device; only equal ones compute equal images.
        owner: the worker that runs it.
    """

    shot: SharedShot
    order: JobOrder
    blobs: BlobStore
    model: str
    owner: ClusterPlace


@dataclass
class Cluster:
    """What all workers of a driver share.

    Attributes:
        places: of the workers that have greeted.
        shared: shots under way whose ranges others may render.
        load_seconds: how long models took to load, by their text.
        lock: for all of these.
        pieces: of files that were sent, by hash and offset, in the object store.
        report: writes a line to the service.
        model: of the device of the service's live views, whose coverage is computed on equal ones, too.
        questions: parts of such coverage.
    """

    settings: ServiceSettings
    report: Report
    model: str
    questions: CoverageQuestions = field(default_factory=CoverageQuestions)
    places: list[ClusterPlace] = field(default_factory=list)
    shared: list[SharedJob] = field(default_factory=list)
    load_seconds: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    pieces: LRUCache[tuple[str, int], tuple[Any, int]] = field(
        default_factory=lambda: LRUCache(_KEPT_BYTES, getsizeof=lambda kept: kept[1])
    )

    def wake_all(self) -> None:
        """Have idle workers look for ranges and coverage."""
        with self.lock:
            for place in self.places:
                if place.rests:
                    place.wake.set()


class ClusterPlace:
    """See the module and `ex4d.service.job_execution.WorkPlace`."""

    def __init__(self, cluster: Cluster, name: str, resources: dict[str, Any], wake: threading.Event):
        """Have Ray place and start the worker; it is not there yet.

        Args:
            name: of the worker in the job store.
            resources: that Ray reserves for it, as options of an actor.
            wake: see `ex4d.service.job_execution.work`.
        """
        self.cluster, self.name, self.wake = cluster, name, wake
        self.device = "the cluster"
        self.model = self.held = ""
        self.rests = self.leaves = False
        # Since when it has no job; infinity while it has.
        self.idle_since = time.monotonic()
        self._reported: object = None
        # Jobs of others of which it renders ranges.
        self._helped: set[str] = set()
        # Scenes of whose shots it computes coverage, the last one last.
        self._covered: OrderedDict[str, None] = OrderedDict()
        # Of its present job: models, stage, and since when that lasts.
        self._busy, self._loading, self._stage, self._since, self._left = False, "", "", 0.0, float("inf")
        device = "cuda" if resources.get("num_gpus") else "cpu"
        options = {"max_concurrency": _METHODS, "max_restarts": 0, "max_task_retries": 0, "name": f"worker {name}"}
        self.actor: Any = ray.remote(ClusterWorker).options(**options, **resources).remote(device)

    def start(self, report: Report) -> None:
        """Wait until the worker has its place and has loaded what jobs need.

        Raises:
            WorkerLost: it died meanwhile.
            VersionError: its node has another version.
        """
        greeting: Greeting = self._patiently(self.actor.greet.remote(), report)
        self.device, self.model = f"{greeting.device} of node {greeting.node}", greeting.model
        report("at", self.device)
        greeting.require_version(__version__)
        settings = self.cluster.settings
        sent = WorkerSettings(settings.runner, settings.machine.to_json(), settings.cluster_cache_gb)
        self._patiently(self.actor.start.remote(sent), report)
        with self.cluster.lock:
            self.cluster.places.append(self)

    def leave(self) -> None:
        """The worker has ended, or is to."""
        with self.cluster.lock:
            if self in self.cluster.places:
                self.cluster.places.remove(self)
        self.kill()

    def kill(self) -> None:
        """End the worker at once."""
        ray.kill(self.actor)

    def report_abilities(self, report: Report) -> None:
        """See `WorkPlace`."""
        name, abilities = self._get(self.actor.abilities.remote())
        found = f"{name} of {self.device.rpartition(' of ')[2]}", abilities
        if found != self._reported:
            report("ready", json.dumps(found))
            self._reported = found

    def left_to_others(self, store: JobStore) -> Collection[str]:
        """Shots for which a worker that holds their models is worth waiting for; see `cluster_rules`."""
        with self.cluster.lock:
            others = [place.as_busy() for place in self.cluster.places if place is not self]
            seconds = dict(self.cluster.load_seconds)
        if not seconds or not any(other.models for other in others):
            return ()
        queued = ((job, models_of(request)) for job, request in store.queued_requests("wan", _LOOKED_AT))
        return left_to_warm(queued, self.held, others, seconds)

    def as_busy(self) -> Busy:
        """How the rule sees this worker."""
        if not self._busy:
            return Busy(self.held, 0.0)
        return Busy(self._loading or self.held, max(self._left - (time.monotonic() - self._since), 0.0))

    def compute(
        self, job: ClaimedJob, blobs: BlobStore, *, sink: JobSink, folder: Path, kept: KeptFinal | None
    ) -> None:
        """See `WorkPlace`."""
        order = self._order(job, blobs, sink, folder, kept)
        self._loading, self._busy, self._left = models_of(job.request), True, float("inf")
        self.idle_since, self.leaves = float("inf"), False
        with self._sharing(order, blobs) as shared:
            try:
                self._send_inputs(order, blobs, lambda: sink.progress(VERIFY_STAGE, 0, 1))
                self._take_results(order, shared, sink, folder)
            finally:
                self._busy, self.idle_since = False, time.monotonic()
                self.actor.forget.remote(order.name)
        if self._loading:
            self.held, self._loading = self._loading, ""

    def idle(self, wake: threading.Event, seconds: float) -> None:
        """Compute coverage, and render ranges of others' shots, while there are any; see `WorkPlace`."""
        if self.leaves:
            raise WorkerLost("had no work for a while and left its node", False)
        while not wake.is_set():
            if self.can_cover and (question := self.cluster.questions.take()):
                self._cover(question)
            elif found := self._range_to_help():
                self._help(*found)
            else:
                break
        with self.cluster.lock:
            over = self._helped - {one.order.name for one in self.cluster.shared}
            self.rests = True
        for name in over:
            self.actor.forget.remote(name)
        self._helped -= over
        wake.wait(seconds)
        self.rests = False

    @property
    def can_cover(self) -> bool:
        """Whether it is idle, and computes the same coverage as the service's live views."""
        return not self._busy and self.model == self.cluster.model

    def _cover(self, question: CoverageQuestion) -> None:
        """Compute a part of a shot's coverage; the service does that itself if it cannot be done here."""
        request = ShotRequest.from_wire(question.coverage)
        name = f"coverage of {question.user} {request.scene}"
        values = ()
        try:
            if name not in self._covered:
                blobs = BlobStore(user_folder(self.cluster.settings.data, question.user))
                inputs = scene_inputs(open_scene(blobs, request.scene), deep=False)
                files = ((request.scene, blobs.size(request.scene) or 0), *((one.sha256, one.size) for one in inputs))
                self._send_inputs(JobOrder(name, question.coverage, files, "", ""), blobs, lambda: None)
                log.info("coverage of shots of scene %.8s is computed on %s, too", request.scene, self.device)
            self._covered[name] = None
            self._covered.move_to_end(name)
            if len(self._covered) > _COVERED_SCENES:
                self.actor.forget.remote(self._covered.popitem(last=False)[0])
            answer = self.actor.cover.remote(name, question.coverage, question.index)
            if ray.wait([answer], timeout=_COVER_SECONDS)[0]:
                values = (packed(self._get(answer)),)
        # The service tells the client what is wrong with the request or its files.
        except (ray.exceptions.RayTaskError, Ex4dError, OSError) as error:
            log.warning("cannot compute coverage on %s: %s", self.device, error)
        finally:
            self.cluster.report("covered", str(question.number), *values)

    def _order(
        self, job: ClaimedJob, blobs: BlobStore, sink: JobSink, folder: Path, kept: KeptFinal | None
    ) -> JobOrder:
        """What the worker is told, after a check of all that it reads."""
        request = job.request
        if isinstance(request, ReconstructionRequest):
            inputs = [StoredInput(file.sha256, file.size, repr(file.label)) for file in request.files]
            files = [(one.sha256, one.size) for one in inputs]
        else:
            deep = (request.shot if isinstance(request, PassesRequest) else request).draws_deep
            inputs = scene_inputs(open_scene(blobs, request.scene, deep=deep), deep=deep)
            files = [(request.scene, blobs.size(request.scene) or 0), *((one.sha256, one.size) for one in inputs)]
        verify_inputs(blobs, inputs, sink.progress)
        finished = kept.frames if kept else ()
        files += [(sha256, blobs.size(sha256) or 0) for sha256 in finished]
        settings, mark = self.cluster.settings, ""
        if settings.cluster_shared:
            mark = secrets.token_hex(16)
            (folder / mark).write_text(mark)
        shared = settings.runner == ServiceSettings.runner and len(self.cluster.places) > 1
        return JobOrder(
            f"{job.job}-{job.secret}",
            dict(request.to_wire()),
            tuple(files),
            str(folder),
            str(blobs.folder),
            mark,
            ranges_of(request) if shared else (),
            finished,
            str(kept.state) if kept else "",
        )

    @contextmanager
    def _sharing(self, order: JobOrder, blobs: BlobStore) -> Iterator[SharedShot | None]:
        """Let others help with a shot that has ranges."""
        if not order.ranges:
            yield None
            return
        job = SharedJob(SharedShot(order.ranges), replace(order, ranges=()), blobs, self.model, self)
        with self.cluster.lock:
            self.cluster.shared.append(job)
        try:
            yield job.shot
        finally:
            job.shot.end()
            with self.cluster.lock:
                self.cluster.shared.remove(job)

    def _send_inputs(self, order: JobOrder, blobs: BlobStore, step: Callable[[], None]) -> None:
        """Begin an order, and send what its node lacks."""
        for sha256 in self._get(self.actor.begin.remote(order)):
            size = blobs.size(sha256) or 0
            for offset in range(0, max(size, 1), PIECE_BYTES):
                step()
                last = offset + PIECE_BYTES >= size
                piece = self._piece(blobs, sha256, offset)
                self._get(self.actor.add_piece.remote(order.name, sha256, offset, piece, last))

        if order.state and self._get(self.actor.lacks_state.remote(order.name)):
            self._send_state(order.name, Path(order.state), step)

    def _send_state(self, name: str, state: Path, step: Callable[[], None]) -> None:
        """Send what an earlier attempt at a final has left, if it has."""
        with contextlib.suppress(FileNotFoundError), open(state, "rb") as file:
            while data := file.read(PIECE_BYTES):
                step()
                self._get(self.actor.add_state.remote(name, data))

    def _piece(self, blobs: BlobStore, sha256: str, offset: int) -> Any:
        """Some bytes of a file in the object store, from which any node may take them."""
        with self.cluster.lock:
            known = self.cluster.pieces.get((sha256, offset))
        if known is None:
            data = blobs.read(sha256, offset, PIECE_BYTES)
            known = ray.put(data), len(data)
            with self.cluster.lock:
                self.cluster.pieces[sha256, offset] = known
        return known[0]

    def _take_results(self, order: JobOrder, shared: SharedShot | None, sink: JobSink, folder: Path) -> None:
        results = Results(sink, folder)
        problem: BaseException | None = None
        for one in self._events(order.name):
            if problem is not None:  # what is under way until the worker has stopped
                continue
            try:
                if isinstance(one, Wanted):
                    assert shared, "only shared shots have ranges"
                    self._deal_out(order, shared, one.number)
                elif isinstance(one, Failed):
                    problem = Refusal(one.code, one.text)
                else:
                    if isinstance(one, Progressed):
                        self._note_stage(one)
                    results.take(one)
            # A lost claim for one; the worker must be told, whatever it is.
            except Exception as error:
                problem = error
                self._get(self.actor.stop.remote(order.name))
        if problem is not None:
            raise problem

    def _events(self, name: str) -> Iterator[Any]:
        """What a job sends, as it comes."""
        options = {"num_returns": "streaming", "_generator_backpressure_num_objects": _EVENTS}
        try:
            for event in self.actor.run.options(**options).remote(name):
                yield self._get(event)
        except _LOST as error:
            raise WorkerLost(*why_lost(self._cause(error))) from error

    def _deal_out(self, order: JobOrder, shared: SharedShot, number: int) -> None:
        if shared.is_for_owner(number):
            self.actor.supply.remote(order.name, number, None)
        self.cluster.wake_all()

    def _note_stage(self, progress: Progressed) -> None:
        """Learn how long models load, and when this worker will be free."""
        stage, eta = stage_and_eta(progress.stage)
        name, now = StageDetails.of(stage).name, time.monotonic()
        if name != self._stage:
            if self._stage == LOAD_STAGE and self._loading:
                self.cluster.load_seconds[self._loading] = now - self._since
                self.held = self._loading
            self._stage, self._since, self._left = name, now, float("inf")
        left = seconds_left(now - self._since, progress.done, progress.total) if eta is None else eta
        # Counted from when the stage began, as its end.
        self._left = left + now - self._since

    def _range_to_help(self) -> tuple[SharedJob, int] | None:
        with self.cluster.lock:
            jobs = [one for one in self.cluster.shared if one.owner is not self and one.model == self.model]
        for job in jobs:
            if (number := job.shot.take()) is not None:
                return job, number
        return None

    def _help(self, job: SharedJob, number: int) -> None:
        """Render a range of another worker's shot, and give it to that worker."""
        name, rendered = job.order.name, False
        try:
            if name not in self._helped:
                self._helped.add(name)
                self._send_inputs(job.order, job.blobs, lambda: None)
            frames = self.actor.render.remote(name, *job.shot.frames(number))
            limit = self.cluster.settings.hang_seconds / 2
            if not ray.wait([frames], timeout=limit, fetch_local=False)[0]:
                self.kill()
                raise WorkerLost(f"made no progress for {limit:g} seconds and was stopped")
            job.owner.actor.supply.remote(name, number, frames)
            rendered = True
            log.info("frames %d to %d of job %s are from %s", *job.shot.frames(number), name, self.device)
        except ray.exceptions.RayTaskError as error:
            log.warning("cannot render frames %s: %s", job.shot.frames(number), error.cause)
        except _LOST as error:
            raise WorkerLost(*why_lost(self._cause(error))) from error
        finally:
            if job.shot.give_back(number, rendered=rendered):
                job.owner.actor.supply.remote(name, number, None)

    def _cause(self, error: BaseException) -> BaseException:
        """What Ray knows of a worker's end: a broken connection is all that it tells at first."""
        if isinstance(error, ray.exceptions.ActorUnavailableError):
            try:
                ray.get(self.actor.greet.remote(), timeout=_CAUSE_SECONDS)
            except ray.exceptions.RayError as later:
                return later if isinstance(later, ray.exceptions.ActorDiedError) else error
        return error

    def _patiently(self, answer: Any, report: Report) -> Any:
        while not ray.wait([answer], timeout=_STARTING_SECONDS)[0]:
            report("starting")
        return self._get(answer)

    def _get(self, answer: Any) -> Any:
        try:
            return ray.get(answer)
        except _LOST as error:
            raise WorkerLost(*why_lost(self._cause(error))) from error


def why_lost(error: BaseException) -> tuple[str, bool]:
    """Why a worker is lost, for people, and whether its job may be the cause: not where its node was drained."""
    if getattr(error, "preempted", False):
        return "was lost, since its node was drained", False
    text = " ".join(str(error).split())
    for begins, says in _CAUSES:
        _, found, detail = text.partition(begins)
        if found:
            return f"{says}: {detail.strip()[:300]}", True
    return f"was lost: {text[:300]}", True
