"""Generates a take from a shot request: renders, lets the engine repaint, and delivers each frame when it exists."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ex4d.devices import Devices
from ex4d.generation import GenerationProgress, ProgressCallback, create_engine
from ex4d.machine import MachineSettings
from ex4d.media import VideoWriter, read_png, write_png
from ex4d.pipeline.render import render_shot
from ex4d.progress import Progress, ignore_progress
from ex4d.raster import RenderedFrame
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest, camera_to_wire
from ex4d_core.stages import stage_and_eta, stage_with_eta
from ex4d_core.take_files import frame_file_name


class TakeSink(Protocol):
    """Receives a take: the service's job store, or a folder."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` frames have completed ``stage``. May raise to stop the work."""
        ...

    def frame(self, index: int, path: Path) -> None:
        """Frame ``index`` is finished; the sink takes the file away."""
        ...

    def estimate(self, number: int, path: Path) -> None:
        """A small PNG of the expected result, after step ``number``; the sink takes the file away."""
        ...

    def file(self, name: str, path: Path, sha256: str = "") -> None:
        """One of `ex4d_core.take_files.TAKE_FILES` is finished; the sink takes the file away.

        ``sha256`` is that of its content, where it is known.
        """
        ...


class TakeFolder:
    """A `TakeSink` that moves everything into one folder."""

    def __init__(self, folder: Path, progress: Progress = ignore_progress) -> None:
        """Receive into an existing folder.

        Args:
            folder: exists.
            progress: called with each stage, what is done of it, and how much there is.
        """
        self._folder, self._progress = folder, progress

    def progress(self, stage: str, done: int, total: int) -> None:
        """Pass a report on, without its ETA."""
        self._progress(stage_and_eta(stage)[0], done, total)

    def frame(self, index: int, path: Path) -> None:
        """Move a frame."""
        shutil.move(path, self._folder / path.name)

    def estimate(self, number: int, path: Path) -> None:
        """Move the estimate over the one before."""
        shutil.move(path, self._folder / path.name)

    def file(self, name: str, path: Path, sha256: str = "") -> None:
        """Move a file."""
        shutil.move(path, self._folder / name)


def take_into_folder(
    scene: Scene,
    request: ShotRequest,
    folder: Path,
    *,
    device: str = "auto",
    machine: MachineSettings | None = None,
    progress: Progress = ignore_progress,
) -> None:
    """Generate a take into a folder: frames, movies, ``camera.npz`` and ``request.json``; errors as `generate_take`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".take-") as work:
        sink = TakeFolder(folder, progress)
        generate_take(scene, request, device=device, machine=machine, sink=sink, work_folder=Path(work))


@dataclass(frozen=True, eq=False)
class FinishedTake:
    """A take in memory.

    Attributes:
        frames: (T, H, W, 3) uint8 sRGB, as the engine finished them.
        request: what was asked for.
        folder: where its files are.
    """

    frames: np.ndarray
    request: ShotRequest
    folder: Path


def read_take(request: ShotRequest, folder: Path) -> FinishedTake:
    """The frames of a take that `take_into_folder` has written.

    Raises:
        MediaError: a frame is missing or damaged.
    """
    frames = [read_png(folder / frame_file_name(index)) for index in range(len(request.camera))]
    return FinishedTake(np.stack(frames), request, folder)


def saved_request(folder: Path, scene: Scene) -> ShotRequest:
    """The request of a finished take, from the files that came with it.

    Raises:
        RequestError: the folder holds no take, or one of another scene.
    """
    path = folder / "request.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        size = values.pop("camera")
        scene_name = values.pop("scene_name", "")
        camera = CameraPath.load(folder / "camera.npz", size["width"], size["height"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"{path} is not the request of a take: {error}") from error
    if values.get("scene") != scene.digest:
        named = f" (a scene named {scene_name!r})" if scene_name else ""
        raise RequestError(f"the take in {folder} is of another scene{named} than {scene.manifest.name!r}")
    return ShotRequest.from_wire({**values, "camera": camera_to_wire(camera)})


def generate_take(
    scene: Scene,
    request: ShotRequest,
    *,
    device: str,
    sink: TakeSink,
    work_folder: Path,
    machine: MachineSettings | None = None,
) -> None:
    """Generate every frame and file of a take.

    The take's frames are PNGs (lossless, and they can arrive one by one); its movies are for editors and for people:
    ``take.mp4``, and ``color.mp4`` and ``mask.mp4`` as EX-4D's generator reads them.

    Args:
        device: as in `create_engine`.
        work_folder: an existing folder for files on their way to the sink.
        machine: the environment's settings by default.

    Raises:
        RequestError: the request does not fit the scene or this backend.
        MediaError: a file cannot be written.
        RuntimeError: this machine cannot run the engine, or it failed; each engine has its own kinds.
    """
    request.require_footage(scene.manifest.frames)
    camera, fps = request.camera, scene.manifest.fps
    engine = create_engine(request, device, machine)
    description = describe(scene, request)
    metadata = {"ex4d_engine": engine.name, "ex4d_request": description}
    if request.label:
        metadata["title"] = request.label

    with ExitStack() as movies:
        color, mask, take = (
            movies.enter_context(VideoWriter(work_folder / name, camera.width, camera.height, fps, metadata=metadata))
            for name in ("color.mp4", "mask.mp4", "take.mp4")
        )
        # Several devices are for the engine; the first one renders.
        first, start = Devices.parse(device).first, request.first_frame
        rendered = render_shot(scene, camera, request.render, first_frame=start, device=first, machine=machine)
        recorded = _recorded(rendered, color, mask)
        on_progress = _progress_callback(sink, work_folder)
        for index, image in enumerate(engine.generate(recorded, count=len(camera), on_progress=on_progress)):
            path = work_folder / frame_file_name(index)
            write_png(path, image, {"ex4d_engine": engine.name})
            take.write(image)
            sink.frame(index, path)
            sink.progress(engine.name, index + 1, len(camera))

    camera.save(work_folder / "camera.npz")
    (work_folder / "request.json").write_text(description, encoding="utf-8")
    for name in ("color.mp4", "mask.mp4", "camera.npz", "request.json", "take.mp4"):
        sink.file(name, work_folder / name)


def _progress_callback(sink: TakeSink, work_folder: Path) -> ProgressCallback:
    """Passes an engine's steps on to a sink."""

    def on_progress(step: GenerationProgress) -> None:
        sink.progress(stage_with_eta(step.stage, step.eta_seconds), step.done, step.total)
        if step.image is not None:
            path = work_folder / "estimate.png"
            write_png(path, step.image)
            sink.estimate(step.done, path)

    return on_progress


def describe(scene: Scene, request: ShotRequest) -> str:
    """The request as JSON for people and for making it again; the camera itself is in ``camera.npz``."""
    values = request.to_wire()
    camera = values.pop("camera")
    values["camera"] = {key: camera[key] for key in ("frames", "width", "height")}
    values["scene_name"] = scene.manifest.name
    return json.dumps(values, indent=1, ensure_ascii=False)


def _recorded(frames: Iterable[RenderedFrame], color: VideoWriter, mask: VideoWriter) -> Iterator[RenderedFrame]:
    """Pass rendered frames on, writing them into the colour and mask movies."""
    for frame in frames:
        color.write(frame.color)
        mask.write(frame.mask.astype(np.uint8) * 255)
        yield frame
