"""A runner for services under test: the first word of a shot's label says what happens.

It replaces `ex4d.pipeline.take.generate_take` by the service's own ``runner`` setting, and runs in a real worker.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import threading
from pathlib import Path

from ex4d_core.scene import Scene
from ex4d_core.shot import RequestError, ShotRequest
from ex4d_core.stages import WARM_UP_STAGE

_BUGS = {
    "zero": lambda: 1 / 0,
    "json": lambda: json.loads("{"),
    "key": lambda: {}["camera"],
    "value": lambda: int("x"),
}


def perform(scene: Scene, request: ShotRequest, *, device: str, machine, sink, work_folder: Path) -> None:
    """Every frame is a text file that says which one it is; then comes one file, ``take.mp4``.

    good            just that
    wait FILE       pauses after half of the frames until FILE exists, and reports the same progress meanwhile
    count FILE      the same, with new progress
    slow            takes a second for each of many steps, and reports nothing meanwhile
    warm FILE       its first step lasts until two seconds after FILE exists, as the first step with new models does
    stubborn        pauses after half of the frames for good, and reports nothing
    hang FILE       the same at the first attempt (FILE does not exist yet, and is created)
    die             kills itself after half of the frames
    crash FILE      is killed by an error in native code at the first attempt (FILE does not exist yet, and is created)
    refuse          fails with an error of ours
    bug NAME        fails with an error that is not expected: "zero", "json", "key" or "value"
    babble          fails with a reason of many pages, with a file name that is not UTF-8
    extra           fails with an error of ours that names a part to install
    engines         imports the engines, so that the worker has more to offer than before
    fill            writes more than the system allows
    bulk FILE       waits for FILE, then needs 3 MB on the disk
    bulky           needs 60 MB on the disk
    """
    word, _, argument = request.label.partition(" ")
    frames = len(request.camera)
    for index in range(frames):
        if index == frames // 2:
            _interlude(word, argument, sink, work_folder)
        path = work_folder / f"{index}.txt"
        path.write_text(f"frame {index} of {scene.manifest.name}")
        sink.frame(index, path)
        sink.progress("preview", index + 1, frames)
    path = work_folder / "take.mp4"
    path.write_text("all of it")
    sink.file("take.mp4", path)


def _interlude(word: str, argument: str, sink, work_folder: Path) -> None:
    forever = threading.Event()
    sink.progress("halfway", 0, 1_000_000)
    if word in ("wait", "count", "bulk"):
        turns = 0
        while not Path(argument).exists():
            turns += word == "count"
            sink.progress("halfway", turns, 1_000_000)
            forever.wait(0.02)
        if word == "bulk":
            (work_folder / "bulk").write_bytes(bytes(3_000_000))
    elif word == "engines":
        importlib.import_module("ex4d.generation")
    elif word == "bulky":
        (work_folder / "bulk").write_bytes(bytes(60_000_000))
    elif word == "slow":
        for step in range(1, 100):
            forever.wait(1)
            sink.progress("halfway", step, 1_000_000)
    elif word == "warm":
        sink.progress(WARM_UP_STAGE, 0, 1_000_000)
        while not Path(argument).exists():
            forever.wait(0.02)
        forever.wait(2)
        sink.progress("halfway", 1, 1_000_000)
    elif word == "stubborn":
        forever.wait()
    elif word == "hang" and not Path(argument).exists():
        Path(argument).touch()
        forever.wait()
    elif word == "die":
        print("about to die", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "crash" and not Path(argument).exists():
        Path(argument).touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    elif word == "refuse":
        raise RequestError("this shot cannot be made; choose another")
    elif word == "bug":
        _BUGS[argument]()
    elif word == "extra":
        raise RequestError("needs pip install 'ex4d[depth]'")
    elif word == "babble":
        raise RequestError("caf\udce9.mp4 does not fit: " + 30_000_000 * "x")
    elif word == "fill":
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            (work_folder / "large").write_bytes(bytes(200_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
