"""Passes as followed jobs: send and resume, and build the compositor's node when all images have arrived."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from ex4d_core.errors import RequestError
from ex4d_core.passes import PassesRequest
from ex4d_core.remote_job import JobState
from ex4d_core.remote_passes import RemotePasses
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError
from ex4d_core.shot import ShotRequest
from ex4d_core.take_files import frame_file_name

from ..busy import reason_to_wait
from ..jobs.records import add_record, find_copies, resumed_fields
from ..jobs.tracker import FollowedJob, tracker
from ..paths import from_blend
from ..scheduler import scheduler
from ..shots.properties import find_shot
from ..takes.properties import takes_of_shot
from ..takes.requests import load_request, new_take_folder, package_of, read_request, save_request
from ..undo_steps import add_undo_step
from .color_spaces import is_known
from .nodes import Sequence, add_passes_node
from .properties import PASSES, EX4D_Passes, passes_name, passes_of_shot


class FollowedPasses(FollowedJob[EX4D_Passes]):
    """Passes that are being followed, or were until their end."""

    collection = PASSES
    finished = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
    job: RemotePasses

    def __init__(self, job: RemotePasses, record: EX4D_Passes):
        """Follow the passes of a record."""
        super().__init__(job, record.id_data)
        self._built = False

    @classmethod
    def resumed(cls, record: EX4D_Passes) -> FollowedPasses:
        """See `FollowedJob`."""
        request = load_passes(from_blend(record.folder))
        scene = None if record.job or record.cancelling else package_of(request.shot)
        return cls(RemotePasses(request=request, scene=scene, **resumed_fields(record)), record)

    @classmethod
    def content(cls, record: EX4D_Passes) -> bytes:
        """See `FollowedJob`."""
        return read_request(from_blend(record.folder))

    @classmethod
    def title(cls, record: EX4D_Passes) -> str:
        """See `FollowedJob`."""
        return passes_name(record)

    def settle(self) -> bool:
        """Have the node built when the artist and Blender are not in the middle of something; see `FollowedJob`."""
        if self._built or self.job.state is not JobState.DONE or not find_copies(PASSES, self.key):
            return True
        scheduler.run_when_idle(self._build)
        return False

    def show_again(self) -> None:
        """See `FollowedJob`."""
        self._built = False

    def _build(self) -> None:
        found = find_copies(PASSES, self.key)
        if self._built or not found or reason_to_wait():
            return
        self._built, self.problem = True, ""
        try:
            build_nodes(found[0][1])
        except (RequestError, OSError, RuntimeError) as error:  # ours, or Blender's refusal to change linked data
            self.problem = str(error)
            return
        add_undo_step("EX-4D Passes")


def send_passes(scene: Scene, request: PassesRequest, frame_start: int, blender_scene: Any, shot: str) -> EX4D_Passes:
    """Send a request for passes and follow it; works while no backend answers, too.

    Args:
        scene: the opened package that the request is about.
        frame_start: Blender frame of the first image.
        blender_scene: where the passes are listed, and whose compositor gets the node.
        shot: key of the shot.

    Raises:
        RequestError: the Blender scene is linked, so that it cannot keep the passes.
        OSError: the folder cannot be created.
    """
    if blender_scene.library is not None:
        raise RequestError(
            f"the scene {blender_scene.name!r} is linked from another file; make passes in a scene of this file"
        )
    job = RemotePasses(new_take_folder(f"{request.label}_passes"), request, scene)
    save_request(job.folder, request)
    version = next_version(blender_scene, shot)
    record: EX4D_Passes = add_record(blender_scene, PASSES, request.label or job.folder.name, job)
    record.shot, record.version, record.frame_start = shot, version, frame_start
    FollowedPasses.seal(record)
    tracker.send(FollowedPasses(job, record))
    return record


def retry_passes(record: EX4D_Passes) -> None:
    """Send the request of passes that failed or were cancelled as a new job, into the same folder and node.

    Raises:
        RequestError: they are under way, their request cannot be read, or their scene is not in the file.
        SceneError: the scene package is missing or changed.
    """
    if tracker.is_followed(record) and record.state not in FollowedPasses.finished:
        raise RequestError("these passes are under way; cancel them first, or make others")
    folder = from_blend(record.folder)
    request = load_passes(folder)
    job = RemotePasses(folder, request, package_of(request.shot), key=uuid.uuid4().hex)
    tracker.renew(record, job.key)
    tracker.send(FollowedPasses(job, record))


def next_version(blender_scene: Any, shot: str) -> int:
    """Number of the next passes of a shot."""
    return 1 + max((one.version for one in passes_of_shot(blender_scene, shot)), default=0)


def load_passes(folder: Path) -> PassesRequest:
    """Read the request of the passes in a folder.

    Raises:
        RequestError: it is missing or damaged.
    """
    try:
        values = msgpack.unpackb(read_request(folder))
        if not isinstance(values, dict):
            raise RequestError("expected a map")
        return PassesRequest.from_wire(values)
    except (OSError, ValueError, msgpack.UnpackException) as error:
        text = f"cannot read the request of the passes in {folder}: {error}; restore the file, or make new passes"
        raise RequestError(text) from error


def build_nodes(record: EX4D_Passes) -> None:
    """Put the node of passes that have arrived into the compositor, or bring the one that is there up to date.

    Raises:
        RequestError: the request cannot be read, or images are missing.
    """
    folder = from_blend(record.folder)
    request = load_passes(folder)
    files = [folder / name for name in request.files]
    gone = next((path for path in files if not path.is_file()), None)
    if gone is not None:
        raise RequestError(f"{gone} is missing; put it back, or make the passes again")
    output, shot = request.shot.output, find_shot(record.id_data, record.shot)
    passes = Sequence(files[0], output.first_number, len(files), record.frame_start, output.output_space)
    label = shot.label if shot is not None and shot.label else record.label
    add_passes_node(record.id_data, record.shot or record.key, label, passes, _take_below(record, request.shot))


def _take_below(record: EX4D_Passes, request: ShotRequest) -> Sequence | None:
    """The frames of the newest take of the shot that shows exactly what the passes show; None without one.

    Its EXR files, where it has them in a space that this Blender knows; else its frames of 8 bits.
    """
    for take in reversed(takes_of_shot(record.id_data, record.shot)):
        folder = from_blend(take.folder)
        first = folder / frame_file_name(0)
        if take.state != JobState.DONE or not first.is_file():
            continue
        try:
            other = load_request(folder)
        except RequestError:
            continue
        if _is_of(other, request):
            deep = _exr_files(folder, other, record.frame_start)
            return deep or Sequence(first, 0, take.frames, record.frame_start, "sRGB")
    return None


def _exr_files(folder: Path, request: ShotRequest, frame_start: int) -> Sequence | None:
    """A take's EXR files; None where it has none, or this Blender cannot read them."""
    output, files = request.output, [folder / name for name in request.deep_files]
    if output.format != "exr" or not all(path.is_file() for path in files):
        return None
    try:
        space = output.output_space or package_of(request).manifest.color_space or "Linear Rec.709 (sRGB)"
    except (RequestError, SceneError):
        return None
    return Sequence(files[0], output.first_number, len(files), frame_start, space) if is_known(space) else None


def _is_of(other: ShotRequest, request: ShotRequest) -> bool:
    """Whether a take has the frames of passes, pixel for pixel, and an engine's picture where nothing was seen."""
    mine, its = request.camera, other.camera
    marks_holes = other.engine == "preview" and other.preview.holes == "mark"
    return (
        other.scene == request.scene
        and other.stereo == request.stereo
        and not marks_holes
        and list(other.footage_frames) == list(request.footage_frames)
        and its.size == mine.size
        and np.array_equal(its.world_to_camera, mine.world_to_camera)
        and np.array_equal(its.intrinsics, mine.intrinsics)
    )


def register() -> None:
    """Let the tracker follow passes."""
    tracker.kinds.append(FollowedPasses)
