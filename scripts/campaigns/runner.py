"""What the workers of a campaign do in place of `ex4d.pipeline.take.generate_take`: small frames, one after another."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest


def frame_text(label: str, index: int) -> bytes:
    """What a frame consists of."""
    return f"frame {index} of {label}".encode(errors="replace")


def perform(scene: Scene, request: ShotRequest, *, device: str, machine: Any, sink: Any, work_folder: Path) -> None:
    """Write the frames and a movie.

    A label "slow ..." takes 50 ms for each frame, so that something can happen meanwhile, "long ..." half a second;
    "quick ..." makes only one.
    """
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
