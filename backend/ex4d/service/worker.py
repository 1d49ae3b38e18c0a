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
import sys
import threading
import time
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from ex4d.devices import Devices
from ex4d.machine import MachineSettings
from ex4d.service.blob_store import BlobStore
from ex4d.service.job_execution import JobSink, Report, Runner, compute_here, work
from ex4d.service.job_store import ClaimedJob, JobStore
from ex4d.service.kept_finals import KeptFinal, engine_options
from ex4d.service.processes import start_child
from ex4d.service.settings import ServiceSettings
from ex4d_core.errors import is_expected, user_message
from ex4d_core.wan_settings import LACKING_FP8, LACKING_FP8_ATTENTION, WanPreset

log = logging.getLogger("ex4d.service.worker")

# Other programs' folders of weights, which may lie on a network's disk, are searched at most this often.
_SEARCH_SECONDS = 60.0

# A worker on the CPU yields to a Blender window on the same machine.
_NICENESS = 5


class _ThisProcess:
    """The `WorkPlace` of a worker process: computes its jobs itself."""

    def __init__(self, settings: ServiceSettings):
        """Import the runner, which takes seconds."""
        self.device, self._machine = settings.devices[0], settings.machine
        self._runner = load_runner(settings.runner, self.device)
        use_one_thread(self.device)
        self._reported: object = None
        # What is still to be loaded before a job asks for it.
        self._preload: WanPreset | None = settings.preload

    def report_abilities(self, report: Report) -> None:
        found = capabilities(self.device, self._machine)
        if found != self._reported:
            report("ready", json.dumps(found))
            self._reported = found

    def left_to_others(self, store: JobStore) -> Collection[str]:
        return ()

    def compute(
        self, job: ClaimedJob, blobs: BlobStore, *, sink: JobSink, folder: Path, kept: KeptFinal | None
    ) -> None:
        if getattr(job.request, "engine", "") == "wan":
            self._preload = None  # its own weights are wanted now
        where = {"device": self.device, "machine": self._machine}
        more = {}
        if kept is not None:
            frames = [blobs.path(sha256) for sha256 in kept.frames]
            more = engine_options(frames, kept.state, folder, sink.keep)
        compute_here(job.request, blobs, self._runner, **where, sink=sink, work_folder=folder, **more)

    def idle(self, wake: threading.Event, seconds: float) -> None:
        if self._preload is not None and preload_weights(self._preload, self.device, self._machine, wake):
            self._preload = None
        wake.wait(seconds)


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


def load_runner(runner: str, device: str) -> Runner:
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


def capabilities(device: str, machine: MachineSettings) -> tuple[str, dict[str, dict[str, str]]]:
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
        wake = threading.Event()
        threading.Thread(target=_watch_stdin, args=(wake,), name="stdin", daemon=True).start()
        place = _ThisProcess(settings)
        work(settings, options.name, report, wake, place, lambda: os.fstat(sys.stderr.fileno()).st_size)
    except Exception as error:
        if not is_expected(error):
            raise
        sys.exit(f"cannot work on {options.device}: {user_message(error)}")


if __name__ == "__main__":
    main()
