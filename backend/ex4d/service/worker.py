"""A worker process: takes the oldest queued job, has the runner make it, and files what comes out.

Started by `ex4d.service.workers`. It never touches a client's socket: jobs come from the job store, results go
into the blob store and the job store. A byte on standard input means that there may be work, its end that the service
is gone. Lines on standard output tell the service what changed:

    ready {"device": ..., "engines": {...}, "rasterizers": {...}, "lacking": {...}}     (again where that changes)
    idle | claimed JOB | changed JOB | ended JOB
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import json
import logging
import os
import platform
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ex4d.devices import Devices
from ex4d.machine import MachineSettings
from ex4d.service.blob_store import BlobStore, full_disk_text
from ex4d.service.job_store import ClaimedJob, ClaimLost, JobStore
from ex4d.service.settings import ServiceSettings
from ex4d_core.errors import full_disk_error, is_expected, user_message
from ex4d_core.reconstruction import ReconstructionRequest
from ex4d_core.scene import MAX_MANIFEST_BYTES, RENDER_FILES, Scene, SceneError, SceneManifest

log = logging.getLogger("ex4d.service.worker")

# Often enough for a bar that moves smoothly.
_PROGRESS_SECONDS = 0.1

# How often an idle worker looks whether it can do more, or less: weights may have been fetched meanwhile.
_LOOK_SECONDS = 5.0

# A worker on the processor gives way to the Blender window that may share the machine with it.
_NICENESS = 5

Runner = Callable[..., None]


class Pipe:
    """What the worker tells the service, line by line."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def say(self, *words: str) -> None:
        # When nobody listens any more, the end of standard input ends this process.
        with contextlib.suppress(OSError):
            self._file.write(" ".join(words).encode() + b"\n")


class JobSink:
    """Takes a job's progress and results; the `ex4d.pipeline.take.TakeSink` of the service.

    Every method raises `ClaimLost` once the job is no longer this worker's.
    """

    def __init__(self, store: JobStore, blobs: BlobStore, claimed: ClaimedJob, pipe: Pipe):
        self._store = store
        self._blobs = blobs
        self._claimed = claimed
        self._pipe = pipe
        self._stage = ""
        self._written = 0.0

    def progress(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage == self._stage and done < total and now - self._written < _PROGRESS_SECONDS:
            return
        self._store.set_progress(self._claimed, stage, done, total)
        self._stage, self._written = stage, now
        self._pipe.say("changed", self._claimed.job)

    def frame(self, index: int, path: Path) -> None:
        self._store.add_frame(self._claimed, index, *self._blobs.add_file(path))
        self._pipe.say("changed", self._claimed.job)

    def estimate(self, number: int, path: Path) -> None:
        self._store.add_estimate(self._claimed, number, *self._blobs.add_file(path))
        self._pipe.say("changed", self._claimed.job)

    def file(self, name: str, path: Path, sha256: str = "") -> None:
        self._store.add_file(self._claimed, name, *self._blobs.add_file(path, sha256))
        self._pipe.say("changed", self._claimed.job)


def open_scene(blobs: BlobStore, digest: str) -> Scene:
    """The scene that a manifest's hash names, its files read where they are.

    Raises:
        SceneError: the manifest or one of `RENDER_FILES` is not here, or is not what the manifest says.
    """
    try:
        data = blobs.read(digest, 0, MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError as error:
        raise SceneError(f"the manifest of scene {digest} is not here any more; send the scene again") from error
    manifest = SceneManifest.from_json(data)
    for part in RENDER_FILES:
        entry = manifest.files[part]
        if blobs.size(entry.sha256) != entry.size:
            raise SceneError(f"the {part} of scene {manifest.name!r} is not here any more; send the scene again")
        blobs.touch(entry.sha256)
    return Scene(data, {part: blobs.path(manifest.files[part].sha256) for part in RENDER_FILES})


def run_job(
    claimed: ClaimedJob,
    runner: Runner,
    store: JobStore,
    blobs: BlobStore,
    pipe: Pipe,
    settings: ServiceSettings,
    folder: Path,
) -> None:
    """Make a job, and write down how it ended. Whatever goes wrong in it is the job's end, not the worker's."""
    folder.mkdir(parents=True)
    where = {"machine": settings.machine, "sink": JobSink(store, blobs, claimed, pipe), "work_folder": folder}
    device = settings.devices[0]
    try:
        if isinstance(claimed.request, ReconstructionRequest):
            # Imported only now, since a worker for shots alone does without torch and decoders.
            from ex4d.service.scene_job import reconstruct_sent

            reconstruct_sent(claimed.request, blobs, device=_first(device), **where)
        else:
            scene = open_scene(blobs, claimed.request.scene)
            runner(scene, claimed.request, device=device, **where)
        store.finish(claimed)
    except ClaimLost as lost:
        log.info("%s; dropped", lost)
    # Engines may raise anything, and other jobs must go on.
    except Exception as error:
        log.exception("job %s failed", claimed.job)
        try:
            store.fail(claimed, failure_text(error, folder))
        except ClaimLost as lost:
            log.info("%s; dropped", lost)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def failure_text(error: Exception, folder: Path) -> str:
    """Why a job failed, for people: errors of our own kinds speak for themselves."""
    # Errors of media files have the system's own as their cause; their remedies are for files of the user's choice.
    if full_disk := full_disk_error(error):
        return full_disk_text(folder, full_disk)
    return user_message(error)


def work(settings: ServiceSettings, name: str, pipe: Pipe) -> None:
    """Take and make jobs, forever."""
    wake = threading.Event()
    threading.Thread(target=_watch_stdin, args=(wake,), name="stdin", daemon=True).start()
    device = settings.devices[0]
    store, blobs = JobStore(settings.database), BlobStore(settings.data)
    runner = _load(settings.runner, device)
    use_one_thread(device)
    introduction = _introduction(device, settings.machine)
    pipe.say("ready", json.dumps(introduction))
    while True:
        wake.clear()
        claimed = store.claim(name)
        if claimed is None:
            pipe.say("idle")
            while not wake.wait(_LOOK_SECONDS):
                if (now := _introduction(device, settings.machine)) != introduction:
                    introduction = now
                    pipe.say("ready", json.dumps(introduction))
            continue
        pipe.say("claimed", claimed.job)
        log.info("job %s: %s, %r", claimed.job, claimed.request.engine, claimed.request.label)
        run_job(claimed, runner, store, blobs, pipe, settings, settings.data / "work" / name / claimed.claim)
        pipe.say("ended", claimed.job)


def _load(runner: str, device: str) -> Runner:
    """Import the runner, and with it torch and all that; what is slow only once is over before the first job."""
    module, _, function = runner.partition(":")
    made = getattr(importlib.import_module(module), function)
    if "ex4d.raster" in sys.modules:
        from ex4d.raster import create_rasterizer

        create_rasterizer(device=_first(device))
    return made


def _watch_stdin(wake: threading.Event) -> None:
    while os.read(0, 4096):
        wake.set()
    # The service is gone, and so must we be, whatever the other threads are in: all that counts is on disk.
    os._exit(0)


def use_one_thread(device: str) -> None:
    """Keep torch to one thread on the processor: frames are small, and its threads wait for each other on busy cores.

    Measured with 2 busy cores: building a mesh took 6 ms with one thread, 50 to 300 ms with two.
    """
    if device == "cpu" and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _introduction(device: str, machine: MachineSettings) -> dict[str, object]:
    """What the service tells clients of this worker: engines and rasterizers that the runner and the licence allow."""
    engines, rasterizers, lacking = {}, {}, {}
    if "ex4d.generate" in sys.modules:
        from ex4d.generate import PreviewEngine
        from ex4d.generate.wan import WAN_LICENCE, why_no_preset, why_no_wan
        from ex4d_core.shot import WAN_PRESETS

        engines[PreviewEngine.name] = PreviewEngine.licence
        if reason := why_no_wan(device, machine):
            lacking["wan"] = reason
        else:
            engines["wan"] = WAN_LICENCE
            lacking |= {f"wan {name}": reason for name in WAN_PRESETS if (reason := why_no_preset(name, machine))}
    if "ex4d.raster" in sys.modules:
        from ex4d.raster import available_rasterizers, rasterizer_class
        from ex4d.raster.rasterizer_choice import is_allowed

        # A request can ask for research, so only the machine's own word takes one away.
        offered = (name for name in available_rasterizers() if is_allowed(name, "research", machine))
        rasterizers = {name: rasterizer_class(name).licence for name in offered}
    words = _device_in_words(device)
    return {"device": words, "engines": engines, "rasterizers": rasterizers, "lacking": lacking}


def _first(device: str) -> str:
    """Of the devices that the engine wan may share a shot among."""
    return Devices.parse(device).first


def _device_in_words(device: str) -> str:
    if Devices.parse(device).is_cuda:
        import torch

        properties = torch.cuda.get_device_properties(_first(device))
        return f"{properties.name}, {properties.total_memory / 1024**3:.0f} GiB ({device})"
    return f"CPU, {os.cpu_count()} cores ({platform.machine()})"


def main() -> None:
    parser = argparse.ArgumentParser(description="A worker of the EX-4D service; the service starts it.")
    for option in ("--data", "--name", "--device", "--runner", "--machine"):
        parser.add_argument(option, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    if arguments.device == "cpu" and hasattr(os, "nice"):
        os.nice(_NICENESS)
    # Libraries print to standard output; only our own lines may go to the service.
    pipe = Pipe(os.fdopen(os.dup(1), "wb", buffering=0))
    os.dup2(2, 1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    settings = ServiceSettings(
        data=Path(arguments.data),
        devices=(arguments.device,),
        machine=MachineSettings.from_json(arguments.machine),
        runner=arguments.runner,
    )
    try:
        work(settings, arguments.name, pipe)
    except Exception as error:
        if not is_expected(error):
            raise
        sys.exit(f"it cannot work on {arguments.device}: {error}")


if __name__ == "__main__":
    main()
