"""A take in a folder: generated into it, continued after an interruption, and read from it.

A take that is being made has a hidden folder for its unfinished movies and for what the engine needs to continue.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from ex4d.generation import EngineState
from ex4d.machine import MachineSettings
from ex4d.media import MediaError, read_png, read_png_metadata
from ex4d.pipeline.provenance import MADE_BY
from ex4d.pipeline.take import generate_take
from ex4d.pipeline.targets import OutputError, files_of, is_take, remove, require_take_folder
from ex4d.progress import Progress, ignore_progress
from ex4d_core.cameras import CameraPath
from ex4d_core.durable_files import put_in_place
from ex4d_core.errors import RequestError
from ex4d_core.scene import Scene
from ex4d_core.schema import encode
from ex4d_core.shot import ShotRequest, camera_to_wire
from ex4d_core.stages import stage_and_eta
from ex4d_core.take_files import REQUEST_FILE, frame_file_name, take_files

# Inside the take's folder, while it is unfinished; in it, what stays after an interruption.
_UNFINISHED = ".ex4d-unfinished"
_STATE, _LOCK = "engine.pt", "lock"


class TakeFolder:
    """An `ex4d.pipeline.take.TakeSink` that moves everything into one folder."""

    def __init__(self, folder: Path, progress: Progress = ignore_progress, *, replaced: Iterable[Path] = ()) -> None:
        """Receive into an existing folder.

        Args:
            progress: called with each stage, what is done of it, and how much there is.
            replaced: files of an earlier take, removed as soon as there is something of the new one.
        """
        self._folder, self._progress, self._replaced = folder, progress, tuple(replaced)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Pass a report on, without its ETA."""
        self._progress(stage_and_eta(stage)[0], done, total)

    def frame(self, index: int, path: Path) -> None:
        """Move a frame."""
        self._move(path, path.name)

    def estimate(self, number: int, path: Path) -> None:
        """Move the estimate over the one before."""
        self._move(path, path.name)

    def file(self, name: str, path: Path, sha256: str = "") -> None:
        """Move a file."""
        self._move(path, name)

    def _move(self, path: Path, name: str) -> None:
        replaced, self._replaced = self._replaced, ()
        remove(replaced)
        put_in_place(path, self._folder / name)


def take_into_folder(
    scene: Scene,
    request: ShotRequest,
    folder: Path,
    *,
    device: str = "auto",
    machine: MachineSettings | None = None,
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
    inputs: Iterable[Path] = (),
    overwrite: bool = False,
    resume: bool = False,
) -> None:
    """Generate a take into a folder: frames, movies, ``camera.npz`` and ``request.json``.

    Args:
        note: called with sentences about what the user should know of the shot.
        inputs: files and folders that the request was made from, besides the scene; none may be in the folder.
        overwrite: replace a take that is in the folder: exactly its files, once there is something of the new one.
        resume: continue an interrupted take of the same request; a finished one stays as it is.

    Raises:
        OutputError: the folder holds something else than a take, one that is not to be replaced, or an input; or
            another process writes into it.
        RequestError: with `resume`, the folder has a take of another request.
        Ex4dError: all that `generate_take` raises.
    """
    if overwrite and resume:
        raise RequestError("overwrite and resume exclude each other: a take is replaced or continued")
    sources = [*inputs, *files_of(scene)]
    names = len(request.camera), request.deep_files
    replaced = require_take_folder(folder, *names, inputs=sources, overwrite=overwrite, resume=resume)
    continued = resume and is_take(folder)
    if continued:
        require_same_request(folder, scene, request)
        if is_complete(folder, request):
            return
    with _unfinished(folder) as work:
        state = EngineState(work / _STATE)
        if not continued:
            state.path.unlink(missing_ok=True)
        finished = finished_frames(folder, request) if continued else []
        if finished and request.output.is_deep and not request.output.is_sequence:
            note(f"a movie in {request.output.format} is made in one go: the take begins again at its first frame")
            finished = []
        sink = TakeFolder(folder, progress, replaced=replaced)
        where = {"device": device, "machine": machine, "sink": sink, "work_folder": work}
        generate_take(scene, request, **where, finished=finished, state=state, note=note)


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
    """The request of a take, finished or not, from the files that came with it.

    Raises:
        RequestError: the folder holds no take, or one of another scene.
    """
    path = folder / REQUEST_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        size = values.pop("camera")
        scene_name = values.pop("scene_name", "")
        values.pop(MADE_BY, None)
        camera = CameraPath.load(folder / "camera.npz", size["width"], size["height"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError(f"{path} is not the request of a take: {error}") from error
    if values.get("scene") != scene.digest:
        named = f" (a scene named {scene_name!r})" if scene_name else ""
        raise RequestError(f"the take in {folder} is of another scene{named} than {scene.manifest.name!r}")
    return ShotRequest.from_wire({**values, "camera": camera_to_wire(camera)})


def require_same_request(folder: Path, scene: Scene, request: ShotRequest) -> None:
    """Check that the take in a folder was made, or begun, by the same request.

    Raises:
        RequestError: it was not; names what differs.
    """
    # All fields, also those that `to_wire` leaves out.
    differing = list(_differences(encode(saved_request(folder, scene)), encode(request)))
    if differing:
        raise RequestError(
            f"cannot resume the take in {folder}, which has another {', '.join(differing)}; give the same again, or "
            "choose another folder"
        )


def is_complete(folder: Path, request: ShotRequest) -> bool:
    """Whether every file of a take is there."""
    frames = map(frame_file_name, range(len(request.camera)))
    names = (*take_files(bool(request.settled_render.remember)), *frames, *request.deep_files)
    return all((folder / name).is_file() for name in names)


def finished_frames(folder: Path, request: ShotRequest) -> list[Path]:
    """Files of the first frames of an interrupted take, up to the first that is missing or damaged.

    With images of more than 8 bits, which come before the frames that they belong to, up to the first without one.
    """
    finished = []
    images = request.deep_files if request.output.is_sequence else ()
    for index, path in enumerate(folder / frame_file_name(index) for index in range(len(request.camera))):
        try:
            read_png_metadata(path)  # verifies every checksum without decoding
        except MediaError:
            break
        if images and not (folder / images[index]).is_file():
            break
        finished.append(path)
    return finished


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """Names of the fields that differ, with their values where these are short: "wan.seed (7, now 8)"."""
    for name in {**before, **now}:  # either may have a field that the other leaves out
        value, other = now.get(name), before.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping) and name != "camera":
            yield from _differences(other, value, f"{within}{name}.")
        elif value != other:
            is_short = not isinstance(value, Mapping) and len(f"{other}{value}") <= 60
            yield f"{within}{name}" + (f" ({other!r}, now {value!r})" if is_short else "")


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """The hidden folder of a take that is being made: for this process alone, and empty but for the engine's state.

    It disappears with the end of the take; an interruption leaves the engine's state. A folder that was made for a take
    of which nothing came disappears as well.

    Raises:
        OutputError: another process makes a take in the folder.
    """
    created = not folder.exists()
    work = folder / _UNFINISHED
    work.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(work / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise OutputError(f"another ex4d is writing a take into {folder}; wait for it, or choose another") from error
    keep_state = True
    try:
        _clear(work, (_STATE, _LOCK))
        yield work
        keep_state = False
    finally:
        _clear(work, (_STATE, _LOCK) if keep_state else (_LOCK,))
        lock.release()
        with suppress(OSError):
            (work / _LOCK).unlink(missing_ok=True)
            work.rmdir()  # unless it has the state
            if created:
                folder.rmdir()  # unless it has a take


def _clear(folder: Path, kept: tuple[str, ...]) -> None:
    for path in folder.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
