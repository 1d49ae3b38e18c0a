"""Renders passes in a worker: each image becomes a blob and is announced as soon as it is whole."""

from __future__ import annotations

import json
from pathlib import Path

from ex4d.machine import MachineSettings
from ex4d.pipeline.deep_outputs import render_deep
from ex4d.pipeline.outputs import STAGE
from ex4d.pipeline.take import TakeSink, describe
from ex4d_core.passes import PassesRequest
from ex4d_core.scene import Scene
from ex4d_core.take_files import REQUEST_FILE, SHOT_OF_TAKES


def render_passes(
    scene: Scene,
    request: PassesRequest,
    *,
    device: str,
    machine: MachineSettings,
    sink: TakeSink,
    work_folder: Path,
) -> None:
    """Render the images of a request and announce them one by one; at most one is in the folder at a time.

    The request comes first, as of takes: any client sees by it which images there will be.

    Args:
        device: "cpu" or "cuda:N".
        work_folder: an existing folder, in the file system of the blobs.

    Raises:
        Ex4dError: all that `render_deep` raises.
    """
    shot, folder = request.shot, work_folder / "passes"

    text = json.dumps(describe(scene, shot), indent=1, ensure_ascii=False)
    (work_folder / REQUEST_FILE).write_text(text, encoding="utf-8")
    sink.file(REQUEST_FILE, work_folder / REQUEST_FILE)

    def progress(stage: str, done: int, total: int) -> None:
        if stage == STAGE:
            name = request.files[done - 1]
            sink.file(name, folder / name)
        sink.progress(stage, done, total)

    where = {"first_frame": shot.first_frame, "source_frames": shot.source_frames}
    how = {"device": device, "machine": machine, "progress": progress, "stereo": shot.stereo}
    render_deep(scene, shot.camera, shot.render, shot.output, folder, SHOT_OF_TAKES, **where, **how)
