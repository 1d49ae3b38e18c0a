"""A worker process: takes the oldest queued job, has the runner generate it, and stores the results.

`ex4d.service.workers` starts it. It never touches a client's socket: jobs come from the job store, results go into the
blob store and the job store. A byte on standard input means that there may be work; its end means that the service has
ended. Lines on standard output report changes to the service:

    ready [DEVICE, {"engines": {...}, "rasterizers": {...}, "unavailable": {...}, "weights": {...}, "adapters": {...}}]
                                  (again at every change)
    idle | claimed JOB | changed JOB | waiting REASON     (for room on the disk; every second)
    ended JOB BYTES     (of the log so far, since what follows is not about this job)
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import logging
import os
import platform
import shutil
import sys
import threading
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

from ex4d.devices import Devices
from ex4d.machine import MachineSettings
from ex4d.service.blob_store import BlobStore
from ex4d.service.disk_room import DiskRoom, folder_bytes
from ex4d.service.job_store import Claim, ClaimedJob, ClaimLost, JobStore
from ex4d.service.logs import working_on
from ex4d.service.processes import start_child
from ex4d.service.refusals import refusal_for
from ex4d.service.settings import ServiceSettings
from ex4d.service.stored_inputs import open_scene, scene_inputs, verify_inputs
from ex4d.service.users import user_folder
from ex4d_core.errors import is_expected, user_message
from ex4d_core.reconstruction import ReconstructionRequest
from ex4d_core.stages import StageDetails
from ex4d_core.wan_settings import LACKING_FP8, LACKING_FP8_ATTENTION, WanPreset

log = logging.getLogger("ex4d.service.worker")

# Often enough for a smooth progress bar.
_PROGRESS_SECONDS = 0.1

# How often an idle worker checks its capabilities: weights may have been fetched meanwhile. A busy one does so between
# jobs.
_CHECK_SECONDS = 5.0

# How often it looks for room on a full disk. After each job that ran into it the pause grows, up to the longest: where
# a quota is exhausted, nothing else tells when there is room.
_ROOM_SECONDS = 1.0
_LONGEST_PAUSE = 60

# Other programs' folders of weights, which may lie on a network's disk, are searched at most this often.
_SEARCH_SECONDS = 60.0

# A worker on the CPU yields to a Blender window on the same machine.
_NICENESS = 5

Result = TypeVar("Result")
Runner = Callable[..., None]
# Writes a line to the service, of these words.
Report = Callable[..., None]


class JobSink:
    """Stores a job's progress and results; the `ex4d.pipeline.take.TakeSink` of the service.

    Every method raises `ClaimLost` once the job is no longer this worker's.
    """

    def __init__(self, store: JobStore, blobs: BlobStore, claim: Claim, report: Report, room: DiskRoom):
        """Write for a claim."""
        self._room = room
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

    def _add(self, kind: str, path: Path, name: str = "", index: int = -1, sha256: str = "") -> None:
        # Hours of work may be in this file.
        blob = self._patiently(lambda: self._blobs.add_file(path, sha256))
        self._patiently(lambda: self._store.add_result(self._claim, kind, name, index, *blob))
        self._report("changed", self._claim.job)

    def _patiently(self, write: Callable[[], Result]) -> Result:
        return self._room.keep_trying(write, partial(_wait_for_room, self._report))


def run_job(
    job: ClaimedJob,
    runner: Runner,
    store: JobStore,
    blobs: BlobStore,
    report: Report,
    settings: ServiceSettings,
    folder: Path,
) -> bool:
    """Run a job, and record how it ended. Any exception ends the job, not the worker.

    A full disk ends neither: the job is queued again, for a time with more room.

    Returns:
        Whether the job's work is over.
    """
    device, room = settings.devices[0], DiskRoom(settings.data, settings.reserve_mb * 1e6)
    sink = JobSink(store, blobs, job, report, room)
    where = {"machine": settings.machine, "sink": sink, "work_folder": folder}
    end, over = partial(store.finish, job), True
    try:
        folder.mkdir(parents=True)
        if isinstance(job.request, ReconstructionRequest):
            # Imported here, since a worker for shots alone needs neither torch nor decoders.
            from ex4d.service.scene_job import reconstruct_sent

            reconstruct_sent(job.request, blobs, device=Devices.parse(device).first, **where)
        else:
            deep = job.request.draws_deep
            scene = open_scene(blobs, job.request.scene, deep=deep)
            verify_inputs(blobs, scene_inputs(scene, deep=deep), sink.progress)
            runner(scene, job.request, device=device, **where)
    except ClaimLost as lost:
        end = partial(log.info, "%s; dropped", lost)
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


def work(settings: ServiceSettings, name: str, report: Report) -> None:
    """Take and run jobs, forever."""
    wake = threading.Event()
    threading.Thread(target=_watch_stdin, args=(wake,), name="stdin", daemon=True).start()
    device = settings.devices[0]
    room = DiskRoom(settings.data, settings.reserve_mb * 1e6)
    wait = partial(_wait_for_room, report)
    store = room.keep_trying(lambda: JobStore(settings.database), wait)
    # Of each user; each knows what it has verified.
    stores: dict[str, BlobStore] = {}
    runner = _load(settings.runner, device)
    use_one_thread(device)
    capabilities = _report_capabilities(device, settings.machine, report)
    # What is still to be loaded before a job asks for it.
    preload = settings.preload
    # Jobs that ran into the full disk, one after the other.
    ran_full = 0
    while True:
        wake.clear()
        problem = room.problem()
        job = None if problem else room.keep_trying(lambda: store.claim(name, device, room.free()), wait)
        if job is None and store.has_queued():
            wait(problem or f"a queued job needs more than the {room.free() / 1e6:.0f} MB that are free")
            continue
        if job is None:
            report("idle")
            if preload is not None and preload_weights(preload, device, settings.machine, wake):
                preload = None
            while not wake.wait(_CHECK_SECONDS):
                capabilities = _report_capabilities(device, settings.machine, report, capabilities)
            continue
        report("claimed", job.job)
        if getattr(job.request, "engine", "") == "wan":
            preload = None  # its own weights are wanted now
        log.info("job %s: %s, %r", job.job, job.request.engine, job.request.label)
        if job.owner not in stores:
            stores[job.owner] = BlobStore(user_folder(settings.data, job.owner))
        blobs = stores[job.owner]
        with working_on(job.job):
            over = run_job(job, runner, store, blobs, report, settings, settings.data / "work" / name / job.secret)
        report("ended", job.job, str(os.fstat(sys.stderr.fileno()).st_size))
        capabilities = _report_capabilities(device, settings.machine, report, capabilities)
        ran_full = 0 if over else ran_full + 1
        for _ in range(min(2**ran_full - 1, _LONGEST_PAUSE)):
            wait(f"job {job.job} ran into the full disk")


class _WorkCame(Exception):
    """There may be a job, which goes before."""


def preload_weights(preset: WanPreset, device: str, machine: MachineSettings, wake: threading.Event) -> bool:
    """Load the weights of a preset of the engine wan, while there is no job.

    Args:
        preset: its name.
        device: the worker's.
        machine: its settings.
        wake: set when there may be a job; then what is loaded by half is loaded again later, from the system's cache.

    Returns:
        Whether there is nothing more to try: all is loaded, or cannot be, which the log says.
    """

    def stop_for_work(done: int, total: int) -> None:
        if wake.is_set():
            raise _WorkCame

    started = time.monotonic()
    try:
        from ex4d.generation.wan.wan_engine import create_wan_engine
        from ex4d_core.wan_settings import wan_preset

        networks = create_wan_engine(wan_preset(preset), device, machine).networks
        networks.on_load = stop_for_work
        networks.load_all()
    except _WorkCame:
        return False
    # Weights, licences and GPUs may be anything, and the worker has other work.
    except Exception as error:
        log.warning("the preset %s cannot be loaded before its first job: %s", preset, user_message(error))
        return True
    log.info("the preset %s is loaded, after %.1f seconds", preset, time.monotonic() - started)
    return True


def _load(runner: str, device: str) -> Runner:
    """Import the runner and, with it, torch; and compile kernels: those of every picture now, others meanwhile."""
    module, _, function = runner.partition(":")
    loaded = getattr(importlib.import_module(module), function)
    if "ex4d.raster" in sys.modules:
        from ex4d.kernels import compile_in_background
        from ex4d.raster import create_rasterizer

        create_rasterizer(device=Devices.parse(device).first)
        compile_in_background(Devices.parse(device).first)
    return loaded


def _watch_stdin(wake: threading.Event) -> None:
    while os.read(0, 4096):
        wake.set()
    # The service has ended, and so must this process, whatever the other threads do: all that matters is on disk.
    os._exit(0)


def use_one_thread(device: str) -> None:
    """Keep torch to one thread on the CPU: frames are small, and its threads wait for each other on busy cores.

    Measured with 2 busy cores: a mesh took 6 ms with one thread, 50 to 300 ms with two.
    """
    if device == "cpu" and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _report_capabilities(device: str, machine: MachineSettings, report: Report, known: object = None) -> object:
    """Report what the worker can do, unless that is what the service knows; returns it."""
    found = _capabilities(device, machine)
    if found != known:
        report("ready", json.dumps(found))
    return found


def _capabilities(device: str, machine: MachineSettings) -> tuple[str, dict[str, dict[str, str]]]:
    """The device's name, the engines and rasterizers that the runner uses and the licence allows, and what it lacks.

    Also the weights of the engine wan that other programs have here, by the names of parts, and further adapters.
    """
    engines, rasterizers, unavailable, elsewhere = {}, {}, {}, ({}, {})
    if "ex4d.generation" in sys.modules:
        from ex4d.depth.solver import why_no_solver
        from ex4d.generation import PreviewEngine
        from ex4d.generation.wan import WAN_LICENCE, why_no_preset, why_no_wan
        from ex4d.generation.wan.enlarging import why_no_upscaler
        from ex4d_core.wan_settings import WAN_PRESETS

        engines[PreviewEngine.name] = PreviewEngine.licence
        if reason := why_no_wan(device, machine):
            unavailable["wan"] = reason
        else:
            engines["wan"] = WAN_LICENCE
            unavailable |= _lacking_precisions(device)
            unavailable |= {f"wan {name}": reason for name in WAN_PRESETS if (reason := why_no_preset(name, machine))}
            if reason := why_no_upscaler(machine.models):
                unavailable["wan upscaler"] = reason
        if reason := why_no_solver():
            unavailable["solve"] = reason
        elsewhere = _found_elsewhere(machine, int(time.monotonic() / _SEARCH_SECONDS))
    if "ex4d.raster" in sys.modules:
        from ex4d.raster import available_rasterizers, rasterizer_class
        from ex4d.raster.rasterizer_choice import is_allowed

        # A request can ask for research, so only the machine's own licence takes one away.
        offered = (name for name in available_rasterizers() if is_allowed(name, "research", machine))
        rasterizers = {name: rasterizer_class(name).licence for name in offered}
    abilities = {"engines": engines, "rasterizers": rasterizers, "unavailable": unavailable}
    return _device_name(device), {**abilities, "weights": elsewhere[0], "adapters": elsewhere[1]}


@lru_cache(maxsize=1)
def _found_elsewhere(machine: MachineSettings, turn: int) -> tuple[dict[str, str], dict[str, str]]:
    """Weights in other places than their published ones, and further adapters; a file of each, by name.

    Args:
        turn: what was found in a turn is not looked for again.
    """
    from ex4d.weights.errors import CheckpointError
    from ex4d.weights.places import found_elsewhere, further_adapters

    try:
        where = machine.models, machine.model_path
        parts, adapters = found_elsewhere(*where), further_adapters(*where)
    except (CheckpointError, OSError) as error:  # said by the engine, too, where it needs that file
        log.warning("cannot search for weights: %s", error)
        return {}, {}
    return {name: str(path) for name, path in parts.items()}, {name: str(path) for name, path in adapters.items()}


def _lacking_precisions(device: str) -> dict[str, str]:
    """What finals in fp8, and with attention in fp8, are computed in instead, and why; nothing if a device has it."""
    import torch

    from ex4d.generation.wan.arithmetic import arithmetic_on
    from ex4d.generation.wan.errors import GenerationError

    first = Devices.parse(device).first
    found = {}
    for name, attention in ((LACKING_FP8, False), (LACKING_FP8_ATTENTION, True)):
        try:
            made = arithmetic_on(torch.device(first), "fp8", fp8_attention=attention)
        except GenerationError:  # memory is full, so nobody knows now
            continue
        if shortfalls := made.shortfalls(first):
            found[name] = "; ".join(shortfalls)
    return found


def _device_name(device: str) -> str:
    if Devices.parse(device).is_cuda:
        import torch

        properties = torch.cuda.get_device_properties(Devices.parse(device).first)
        return f"{properties.name}, {properties.total_memory / 1024**3:.0f} GiB ({device})"
    return f"CPU, {os.cpu_count()} cores ({platform.machine()})"


def main() -> None:
    """Work until the end of standard input."""
    options, output = start_child("A worker", "data", "name", "device", "runner", "machine", "reserve", "preload")
    faulthandler.enable()
    if options.device == "cpu" and hasattr(os, "nice"):
        os.nice(_NICENESS)
    settings = ServiceSettings(
        data=Path(options.data),
        devices=(options.device,),
        machine=MachineSettings.from_json(options.machine),
        runner=options.runner,
        reserve_mb=float(options.reserve),
        preload=options.preload or None,
    )

    def report(*words: str) -> None:
        # When the service has ended, the end of standard input ends this process.
        with contextlib.suppress(OSError):
            output.write(" ".join(words).encode() + b"\n")

    try:
        work(settings, options.name, report)
    except Exception as error:
        if not is_expected(error):
            raise
        sys.exit(f"cannot work on {options.device}: {user_message(error)}")


if __name__ == "__main__":
    main()
