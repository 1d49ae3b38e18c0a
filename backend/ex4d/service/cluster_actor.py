"""`ClusterWorker`: the Ray actor that computes jobs on a node; `ex4d.service.cluster_driver` starts it and feeds it.

It has no job store and no claim: it computes what it is told, sends what comes of it, and stops when it is told to.
Ray ends it together with the driver.
"""

from __future__ import annotations

import logging
import platform
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from ex4d.machine import MachineSettings
from ex4d.service.blob_store import BlobStore
from ex4d.service.cluster_cache import JobInputs, NodeCache
from ex4d.service.cluster_messages import (
    Delivered,
    Failed,
    Greeting,
    JobOrder,
    Piece,
    Progressed,
    Wanted,
    WorkerSettings,
)
from ex4d.service.cluster_ranges import RangesToRender
from ex4d.service.job_execution import compute_here
from ex4d.service.job_store import ClaimLost
from ex4d.service.kept_finals import engine_options
from ex4d.service.logs import start_log
from ex4d.service.refusals import refusal_for
from ex4d.service.stored_inputs import open_scene
from ex4d_core import __version__
from ex4d_core.reconstruction import request_from_wire
from ex4d_core.shot import ShotRequest

if TYPE_CHECKING:
    from ex4d.pipeline.coverage import SceneCoverage
    from ex4d.pipeline.take import PartRenderer
    from ex4d.raster import RenderedFrame

log = logging.getLogger("ex4d.service.cluster_actor")

PIECE_BYTES = 16 << 20
# Deliveries that wait for the driver; the job waits when there are more.
_WAITING = 8
_PROGRESS_SECONDS = 0.1

_Event = Progressed | Delivered | Piece | Wanted | Failed


class ClusterWorker:
    """One worker; several methods may run at a time, of which one computes."""

    def __init__(self, device: str):
        """Load nothing yet, so that another version can be told from a failure.

        Args:
            device: "cpu", or "cuda" for the GPU that Ray gives.
        """
        self._device = "cpu" if device == "cpu" else "cuda:0"
        self._jobs: dict[str, _Job] = {}

    def greet(self) -> Greeting:
        """Who this is; from here on it logs, and Ray passes that on to the driver."""
        import ray

        start_log(logging.StreamHandler(sys.stderr), logging.INFO)
        context = ray.get_runtime_context()
        node = ray.util.get_node_ip_address()
        return Greeting(__version__, node, context.get_node_id(), self._device, model_of(self._device))

    def start(self, settings: WorkerSettings) -> None:
        """Import what jobs need, which takes seconds."""
        from ex4d.service.worker import load_runner, use_one_thread

        self._machine = _machine_here(MachineSettings.from_json(settings.machine))
        self._runner = load_runner(settings.runner, self._device)
        use_one_thread(self._device)
        folder = Path(platformdirs.user_cache_dir("ex4d", appauthor=False)) / "cluster"
        folder.mkdir(parents=True, exist_ok=True)
        self._cache = NodeCache(folder, settings.cache_gb * 1e9)

    def abilities(self) -> tuple[str, dict[str, dict[str, str]]]:
        """As `ex4d.service.worker.capabilities`."""
        from ex4d.service.worker import capabilities

        return capabilities(self._device, self._machine)

    def begin(self, order: JobOrder) -> list[str]:
        """Take an order; returns the hashes of inputs that must be sent with `add_piece` before it can run."""
        job = self._jobs[order.name] = _Job(order, self._cache)
        return job.inputs.lacking(order.inputs) if job.inputs else []

    def add_piece(self, name: str, sha256: str, offset: int, data: bytes, last: bool) -> None:
        """Take the next bytes of an input of a job."""
        inputs = self._jobs[name].inputs
        assert inputs, "the driver sends only what a job lacks"
        inputs.add(sha256, offset, data)
        if last:
            inputs.complete(sha256)

    def lacks_state(self, name: str) -> bool:
        """Whether a final's state must be sent with `add_state`, since this node does not see the service's file."""
        return not self._jobs[name].shared

    def add_state(self, name: str, data: bytes) -> None:
        """Take the next bytes of the engine's state of a final that continues."""
        with open(self._jobs[name].state, "ab") as file:
            file.write(data)

    def run(self, name: str) -> Iterator[_Event]:
        """Compute a job, and yield what comes of it."""
        job = self._jobs[name]
        threading.Thread(target=self._compute, args=(job,), name="job", daemon=True).start()
        while (event := job.events.get()) is not None:
            yield event

    def stop(self, name: str) -> None:
        """Have a job stop at its next progress."""
        if name in self._jobs:
            self._jobs[name].stop()

    def supply(self, name: str, number: int, frames: list[RenderedFrame] | None) -> None:
        """A range that a job wants; None: it is to render it itself."""
        if name in self._jobs and (ranges := self._jobs[name].ranges):
            ranges.supply(number, frames)

    def render(self, name: str, first: int, end: int) -> list[RenderedFrame]:
        """Some frames of a shot whose owner is another worker."""
        from ex4d.pipeline.take import PartRenderer

        job = self._jobs[name]
        assert isinstance(job.request, ShotRequest), "only shots have ranges"
        if job.renderer is None:
            scene, where = open_scene(job.blobs, job.request.scene), {"device": self._device, "machine": self._machine}
            job.renderer = PartRenderer(scene, job.request, **where)
        return list(job.renderer.frames(range(first, end)))

    def cover(self, name: str, part: dict[str, Any], index: int) -> dict[str, list[float]]:
        """Coverage of a part of a shot, as the live view process computes it; ``index`` is the number of its first."""
        from ex4d.pipeline.coverage import SceneCoverage

        job, request = self._jobs[name], ShotRequest.from_wire(part)
        if job.coverage is None:
            scene = open_scene(job.blobs, request.scene)
            job.coverage = SceneCoverage(scene, device=self._device, machine=self._machine)
        return dict(job.coverage.of(request, index=index).to_wire())

    def forget(self, name: str) -> None:
        """Let go of a job, and of its files here."""
        if job := self._jobs.pop(name, None):
            job.close()

    def _compute(self, job: _Job) -> None:
        where = {"device": self._device, "machine": self._machine, "sink": job, "work_folder": job.folder}
        try:
            more = {}
            if job.order.ranges:
                job.ranges = more["render"] = RangesToRender(job.order.ranges, partial(_want, job))
            if job.order.state:
                frames = [job.blobs.path(sha256) for sha256 in job.order.finished]
                more |= engine_options(frames, job.state, job.folder, job.keep)
            compute_here(job.request, job.blobs, self._runner, **where, **more)
        except ClaimLost:
            pass
        # Engines may raise anything.
        except Exception as error:
            log.exception("job %s failed", job.order.name)
            refusal = refusal_for(error, job.folder)
            job.events.put(Failed(refusal.code, str(refusal)))
        job.events.put(None)


def _want(job: _Job, number: int) -> None:
    job.send(Wanted(number))


class _Job:
    """A job's inputs, its `ex4d.pipeline.take.TakeSink`, and what the driver has not fetched yet."""

    def __init__(self, order: JobOrder, cache: NodeCache):
        self.order, self.request = order, request_from_wire(order.request)
        self.events: queue.Queue[_Event | None] = queue.Queue(_WAITING)
        self.ranges: RangesToRender | None = None
        self.renderer: PartRenderer | None = None
        self.coverage: SceneCoverage | None = None
        self._stopped, self._stage, self._told = threading.Event(), "", 0.0
        self.shared = _is_here(order)
        self.inputs: JobInputs | None = None if self.shared else cache.begin_job()
        self.blobs = self.inputs.blobs if self.inputs else BlobStore(Path(order.blobs))
        self.folder = self.inputs.work if self.inputs else Path(order.folder)
        # What an earlier attempt has left.
        self.state = Path(order.state) if self.shared else self.folder / "earlier.pt"

    def stop(self) -> None:
        self._stopped.set()
        if self.ranges:
            self.ranges.stop()

    def send(self, event: _Event) -> None:
        if self._stopped.is_set():
            raise ClaimLost(f"job {self.order.name} is not wanted any more")
        self.events.put(event)

    def progress(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage == self._stage and done < total and now < self._told + _PROGRESS_SECONDS:
            if self._stopped.is_set():
                self.send(Progressed(stage, done, total))  # which raises
            return
        self._stage, self._told = stage, now
        self.send(Progressed(stage, done, total))

    def frame(self, index: int, path: Path) -> None:
        self._deliver("frame", index, path)

    def estimate(self, number: int, path: Path) -> None:
        self._deliver("estimate", number, path)

    def file(self, name: str, path: Path, sha256: str = "") -> None:
        self._deliver("file", -1, path, name, sha256)

    def keep(self, path: Path) -> None:
        """Hand over the engine's state after a window."""
        self._deliver("state", -1, path)

    def _deliver(self, kind: str, number: int, path: Path, take_name: str = "", sha256: str = "") -> None:
        inside = path.relative_to(self.folder).as_posix()
        size = -1 if self.shared else path.stat().st_size
        self.send(Delivered(kind, number, inside, take_name, sha256, size))
        if self.shared:
            return
        with open(path, "rb") as file:
            while data := file.read(PIECE_BYTES):
                self.send(Piece(data))
        path.unlink()

    def close(self) -> None:
        if self.inputs:
            self.inputs.close()


def _is_here(order: JobOrder) -> bool:
    """Whether this node sees the service's folders, and they are the service's own and not others of that name."""
    try:
        return bool(order.mark) and (Path(order.folder) / order.mark).read_text() == order.mark
    except OSError:
        return False


def _machine_here(sent: MachineSettings) -> MachineSettings:
    """The service's settings, with this node's own folders where those of the service are not here."""
    own = MachineSettings.from_environment()
    models = sent.models if sent.models.is_dir() else own.models
    further = tuple(path for path in sent.model_path if path.is_dir()) or own.model_path
    return replace(sent, models=models, model_path=further)


def model_of(device: str) -> str:
    """Of this machine's processor, or of its GPU: equal models compute equal images."""
    if device != "cpu":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"
