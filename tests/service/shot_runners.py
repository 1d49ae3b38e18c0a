"""Runners for services under test: the first word of a shot's label says how its making goes.

They replace `ex4d.pipeline.take.generate_take` by the service's own ``runner`` setting, and run in a real worker.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
from pathlib import Path

from ex4d_core.scene import Scene
from ex4d_core.shot import RequestError, ShotRequest
from ex4d_core.stages import WARM_UP_STAGE


def perform(scene: Scene, request: ShotRequest, *, device: str, machine, sink, work_folder: Path) -> None:
    """Every frame is a text file that says which one it is; then comes one file, ``take.mp4``.

    good            just that
    wait FILE       stops after half of the frames until FILE exists, reporting progress meanwhile
    count FILE      the same, with progress that goes on
    slow            takes a second for each of many steps, and says nothing meanwhile
    warm            takes two seconds for its first step, as models do that are used for the first time
    stubborn        stops after half of the frames for good, and looks at nothing
    hang FILE       the same at the first attempt (FILE does not exist yet, and is made)
    die             kills itself with half of the frames made
    refuse          fails with an error of ours
    bug             fails with an error that nobody foresaw
    babble          fails with a reason of many pages, in which a file's name is no UTF-8
    extra           fails with an error of ours that names a part to install
    fill            writes more than the system lets it
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
    if word in ("wait", "count"):
        turns = 0
        while not Path(argument).exists():
            turns += word == "count"
            sink.progress("halfway", turns, 1_000_000)
            forever.wait(0.02)
    elif word == "slow":
        for step in range(1, 100):
            forever.wait(1)
            sink.progress("halfway", step, 1_000_000)
    elif word == "warm":
        sink.progress(WARM_UP_STAGE, 0, 1_000_000)
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
    elif word == "refuse":
        raise RequestError("this shot cannot be made; choose another")
    elif word == "bug":
        raise ZeroDivisionError("nobody thought of this")
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
