"""What the workers of a campaign do in place of `ex4d.pipeline.take.generate_take`: small frames, one after another."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest
from ex4d_core.stages import DENOISE_STAGE, LOAD_STAGE


def frame_text(label: str, index: int) -> bytes:
    """What a frame consists of."""
    return f"frame {index} of {label}".encode(errors="replace")


# What this process holds, as an engine holds its networks.
_held: list[Any] = [None]


def perform(scene: Scene, request: ShotRequest, *, device: str, machine: Any, sink: Any, work_folder: Path) -> None:
    """Write the frames and a movie.

    A label "slow ..." takes 50 ms for each frame, so that something can happen meanwhile, "long ..." half a second;
    "quick ..." makes only one. "timed LOAD SECONDS ..." first loads for so long, unless this process holds the shot's
    LoRAs, and then takes SECONDS.
    """
    if request.label.startswith("timed"):
        _take_time(request, sink)
    frames = 1 if request.label.startswith("quick") else len(request.camera)
    for index in range(frames):
        if request.label.startswith("slow"):
            time.sleep(0.05)
        elif request.label.startswith("long"):
            time.sleep(0.5)
        path = work_folder / f"{index}.txt"
        path.write_bytes(frame_text(request.label, index))
        sink.frame(index, path)
        sink.progress("preview", index + 1, frames)
    path = work_folder / "take.mp4"
    path.write_bytes(b"all of " + request.label.encode(errors="replace"))
    sink.file("take.mp4", path)


def _take_time(request: ShotRequest, sink: Any) -> None:
    load, seconds = map(float, request.label.split()[1:3])
    if request.engine == "wan" and _held[0] != request.wan.loras:
        sink.progress(LOAD_STAGE, 0, 1)
        time.sleep(load)
        _held[0] = request.wan.loras
    steps = 10
    for step in range(steps):
        sink.progress(DENOISE_STAGE, step, steps)
        time.sleep(seconds / steps)
    sink.progress(DENOISE_STAGE, steps, steps)
