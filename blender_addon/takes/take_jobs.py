"""Takes as followed jobs: send, resume, retry; their image strip grows, and their movie takes its place.

`jobs.tracker` calls `FollowedTake` with every tick. What the sequencer shows is in `sequencer.strips` and `movies`.
"""

from __future__ import annotations

import re
import uuid
from contextlib import suppress
from pathlib import Path

import bpy

from ex4d_core import take_files
from ex4d_core.errors import RequestError
from ex4d_core.remote_job import JobState
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError
from ex4d_core.shot import ShotRequest

from ..blender_types import Context, ops
from ..busy import reason_to_wait
from ..connection.session import session
from ..jobs.records import add_record, find_copies, own_scenes, resumed_fields
from ..jobs.tracker import FollowedJob, tracker
from ..paths import from_blend
from ..scheduler import scheduler
from ..sequencer.edit_scenes import edit_scene_of, scenes_with_take
from ..sequencer.movies import discard_opened, movie_step, replace_with_movie
from ..sequencer.strips import TAKE_KEY, StripError, TakeStrip, find_strips, grow_image_strip, rate_of
from ..shots.final_settings import MAX_SEED
from ..shots.properties import find_shot
from ..views.images import show_image
from .properties import TAKES, EX4D_Take, take_name, takes_of_shot, version_name
from .requests import (
    arithmetic_used,
    load_request,
    new_take_folder,
    package_of,
    read_request,
    request_metadata,
    save_request,
)
from .sound import SOUND_FILE, write_take_sound
from .versions import show_version

MOVIE = "take.mp4"
# The image datablock that shows what is forming while a final is denoised.
ESTIMATE_IMAGE = "EX-4D In the Making"
# Blender draws everything again when a strip grows, viewport included, so it grows only after so many ticks: five
# times a second, or less often where drawing is slow.
_REST_TICKS = 10
_FRAME_NAME = re.compile(r"frame_(\d{5,})\.png")
_REMOVED = "its strip was removed; Put in Sequencer adds it again"


class FollowedTake(FollowedJob[EX4D_Take]):
    """A take that is being followed, or was until its end.

    Attributes:
        strip: where the take belongs in the sequencer.
        placed: whether its strip has been in the sequencer; one that is gone since was removed on purpose.
    """

    collection = TAKES
    finished = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
    job: RemoteTake

    def __init__(self, take: RemoteTake, record: EX4D_Take):
        """Follow the take of a record."""
        super().__init__(take, record.id_data)
        self.strip = strip_of(record, take.request)
        self.placed = False
        self._frames_shown = self._estimates_shown = 0
        self._ticks_rested = _REST_TICKS
        self._tells_arithmetic = False  # its records have what it was computed in
        self._has_sound = False  # the sound has been written, or the footage is silent
        self._placing = False  # the movie is on its way into the sequencer
        self._settled = False  # it has come there, or will not

    @property
    def movie(self) -> Path:
        """Where the finished movie is, once it has arrived."""
        return self.job.folder / MOVIE

    @classmethod
    def resumed(cls, record: EX4D_Take) -> FollowedTake:
        """See `FollowedJob`."""
        request = load_request(from_blend(record.folder))
        scene = None if record.job or record.cancelling else package_of(request)
        frames = _frames_on_disk(from_blend(record.folder))
        return cls(RemoteTake(request=request, scene=scene, frames=frames, **resumed_fields(record)), record)

    @classmethod
    def content(cls, record: EX4D_Take) -> bytes:
        """See `FollowedJob`."""
        return read_request(from_blend(record.folder))

    @classmethod
    def title(cls, record: EX4D_Take) -> str:
        """See `FollowedJob`."""
        return take_name(record)

    @classmethod
    def open_result(cls, context: Context, record: EX4D_Take) -> None:
        """See `FollowedJob`."""
        record.id_data.ex4d_take_index = list(record.id_data.ex4d_takes).index(record)
        if record.state == JobState.DONE:
            ops.ex4d.show_result(key=record.key)
        else:
            super().open_result(context, record)

    def present(self, blender_scene: bpy.types.Scene, record: EX4D_Take) -> None:
        """Show the newest estimate, and let the image strip grow by the frames that have arrived."""
        if not self._tells_arithmetic and (request := self.job.files.get(take_files.REQUEST_FILE)) is not None:
            self._tells_arithmetic = True
            for _, copy in find_copies(TAKES, self.key):
                copy.arithmetic = arithmetic_used(request)
        frames, estimate = self.job.frames, self.job.estimate
        if estimate is not None and self._estimates_shown != self.job.estimates:
            self._estimates_shown = self.job.estimates
            if estimate.is_file():
                show_image(ESTIMATE_IMAGE, estimate.read_bytes())
                session().redraw()
        if self._placing or self._settled:
            return
        self._ticks_rested += 1
        if not self._has_new_frames or not (self.over or self._ticks_rested > _REST_TICKS) or reason_to_wait():
            return
        try:
            scenes = scenes_with_take(self.key)
            if not scenes and self.placed:
                raise StripError(_REMOVED)
            for scene in scenes or [edit_scene_of(blender_scene)]:
                grow_image_strip(scene, self.strip, frames)
        except StripError as error:
            self.problem = str(error)
            return
        self._frames_shown, self._ticks_rested = len(frames), 0
        self._note_place(record, is_new=not scenes)

    @property
    def _has_new_frames(self) -> bool:
        """Whether frames have arrived that the strip does not show yet."""
        return len(self.job.frames) != self._frames_shown

    def settle(self) -> bool:
        """Have the movie placed when the artist and Blender are not in the middle of something; see `FollowedJob`."""
        due = (
            not self._settled
            and self.job.state is JobState.DONE
            and bool(find_copies(TAKES, self.key))
            and self.movie.is_file()
        )
        waits = bool(reason_to_wait())
        if due and not self._placing and not waits:
            self._placing = True
            scheduler.run_alone(self._place)
        # Frames of a take that ends without a movie are shown by `present`, which waits, too.
        return not due and not self._placing and not (waits and self._has_new_frames and not self._settled)

    def show_again(self) -> None:
        """See `FollowedJob`."""
        self.placed = self._settled = False
        self._frames_shown = self._estimates_shown = 0

    def replace(self, record: EX4D_Take) -> None:
        """The strip goes with the record; see `FollowedJob`."""
        _rename_strip(record, self.key)

    def note_placed(self) -> None:
        """The artist has put the take into the sequencer again."""
        self.placed, self.problem = True, ""

    def _place(self) -> None:
        """In a tick of its own: one step of the movie's way into the sequencer."""
        if tracker.followed.get(self.key) is not self or not self._placing:
            return
        if reason_to_wait():
            self._placing = False  # continues from here as soon as that is over
            return
        more = False
        try:
            more = self._place_step()
        finally:  # whatever happens, the take comes to its end
            self._placing, self._settled = more, not more
        if more:
            scheduler.run_alone(self._place)

    def _place_step(self) -> bool:
        """Returns whether there is another step."""
        found = find_copies(TAKES, self.key)
        if not found:
            return False  # another file was opened, or the Blender scene deleted
        blender_scene, record = found[0]
        if not self._has_sound:
            self._has_sound = True
            add_sound(record, self.job.request)
            return True
        scenes = scenes_with_take(self.key)
        if not scenes and self.placed:
            discard_opened(edit_scene_of(blender_scene), self.key)
            self.problem = _REMOVED
            return False
        more = False
        try:
            for scene in scenes or [edit_scene_of(blender_scene)]:
                more = more or movie_step(scene, self.strip, self.movie)
        except (StripError, RuntimeError) as error:  # ours, or Blender's refusal to change what is not its own
            self.problem = str(error)
            return False
        self._note_place(record, is_new=not scenes)
        return more

    def _note_place(self, record: EX4D_Take, is_new: bool) -> None:
        """A take whose strip has just appeared is shown instead of its shot's other takes."""
        self.problem = ""
        if scenes_with_take(self.key):
            self.placed = True
            if is_new:
                show_version(record)


def send_take(
    scene: Scene, request: ShotRequest, frame_start: int, blender_scene: bpy.types.Scene, shot: str = ""
) -> EX4D_Take:
    """Send a shot to the backend and follow it; the strip will appear in ``blender_scene``.

    Works while no backend answers: the shot is sent as soon as one does.

    Args:
        scene: the opened package that the request is about.
        request: what to generate.
        frame_start: Blender frame of the take's first frame.
        blender_scene: where the take is listed.
        shot: key of the shot that this is a take of; its takes are versions of each other.

    Raises:
        RequestError: the Blender scene is linked, so that it cannot keep the take.
        OSError: the take's folder cannot be created.
    """
    if blender_scene.library is not None:
        raise RequestError(
            f"the scene {blender_scene.name!r} is linked from another file; send takes from a scene of this file"
        )
    take = RemoteTake(new_take_folder(request.label), request, scene)
    save_request(take.folder, request)
    version = 1 + max((one.version for one in takes_of_shot(blender_scene, shot)), default=0)
    record: EX4D_Take = add_record(blender_scene, TAKES, request.label or take.folder.name, take)
    record.shot, record.version, record.engine = shot, version, request.engine
    record.frame_start, record.frames = frame_start, len(request.camera)
    # For each frame of the Blender scene there is one of the camera, and in the viewport one of the footage.
    record.fps, record.footage_fps = rate_of(blender_scene), float(scene.manifest.fps)
    if request.wan.seed <= MAX_SEED:
        record.seed, record.steps, record.guidance = request.wan.seed, request.wan.steps, request.wan.guidance
    FollowedTake.seal(record)
    blender_scene.ex4d_take_index = len(blender_scene.ex4d_takes) - 1
    tracker.send(FollowedTake(take, record))
    return record


def retry_take(record: EX4D_Take) -> None:
    """Send the request of a take that failed or was cancelled as a new job, into the same folder and strip.

    Raises:
        RequestError: it is under way, its request cannot be read, or its scene is not in the file.
        SceneError: the scene package is missing or changed.
    """
    if tracker.is_followed(record) and record.state not in FollowedTake.finished:
        raise RequestError("this take is under way; cancel it first, or press Preview for another one")
    folder = from_blend(record.folder)
    request = load_request(folder)
    take = RemoteTake(folder, request, package_of(request), key=uuid.uuid4().hex)
    _rename_strip(record, take.key)
    tracker.renew(record, take.key)
    tracker.send(FollowedTake(take, record))


def place_take(record: EX4D_Take) -> None:
    """Put a take into its scene's sequencer again: the movie, or as many frames as there are.

    Raises:
        RequestError: its request cannot be read.
        StripError: no channel is free, or the files are gone.
    """
    folder = from_blend(record.folder)
    request = load_request(folder)
    strip = strip_of(record, request)
    scene = next(iter(scenes_with_take(record.key)), None) or edit_scene_of(record.id_data)
    if (folder / MOVIE).is_file():
        add_sound(record, request)
        replace_with_movie(scene, strip, folder / MOVIE)
    elif grow_image_strip(scene, strip, _frames_on_disk(folder)) is None:
        raise StripError(f"no frames of this take are in {folder} yet")
    followed = tracker.followed.get(record.key)
    if isinstance(followed, FollowedTake):
        followed.note_placed()
    show_version(record)


def add_sound(record: EX4D_Take, request: ShotRequest) -> None:
    """Write what is heard during a take into its folder, if its footage has sound and is still in the file."""
    with suppress(RequestError, SceneError, OSError):  # the picture is shown all the same
        write_take_sound(package_of(request), request, record.fps, from_blend(record.folder))


def forget_take(blender_scene: bpy.types.Scene, record: EX4D_Take) -> None:
    """Remove a take from the list, and mark the one before it; its strip and files stay."""
    index = list(blender_scene.ex4d_takes).index(record)
    for scene in own_scenes():
        discard_opened(scene, record.key)
    tracker.forget(blender_scene, record)
    if blender_scene.ex4d_take_index >= index > 0:
        blender_scene.ex4d_take_index -= 1


def strip_of(record: EX4D_Take, request: ShotRequest) -> TakeStrip:
    """Where a take of the open file belongs in the sequencer."""
    shot = find_shot(record.id_data, record.shot)
    return TakeStrip(
        key=record.key,
        label=version_name(record.label, record.version),
        frame_start=record.frame_start,
        frames=record.frames,
        request=request_metadata(request),
        fps=record.fps,
        shot=record.shot,
        shot_label=shot.label if shot is not None and shot.label else record.label,
        sound=from_blend(record.folder) / SOUND_FILE,
    )


def _rename_strip(record: EX4D_Take, key: str) -> None:
    """Let a take's strips belong to another job."""
    for scene in scenes_with_take(record.key):
        for strip in find_strips(scene, record.key):
            strip[TAKE_KEY] = key


def _frames_on_disk(folder: Path) -> dict[int, Path]:
    matches = ((_FRAME_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in matches if match}


def register() -> None:
    """Let the tracker follow takes."""
    tracker.kinds.append(FollowedTake)
