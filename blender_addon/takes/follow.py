"""Takes under way: start, follow with every tick, cancel, and resume after a reload, a restart or a new connection.

The truth is in `ex4d_core.takes.Take` while Blender runs; each tick copies what changed into ``Scene.ex4d_takes``, so
that a saved file, an undo step or another Blender finds its way back. Frames and movies are in the take's folder.
"""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import bpy

from ex4d_core.client import ClientError, Conversation, Task
from ex4d_core.messages import FINAL_STATES, Cancel, JobStatus, Submit
from ex4d_core.scene import Scene, SceneError
from ex4d_core.shot import RequestError, ShotRequest
from ex4d_core.takes import Take

from ..connection.session import NotConnectedError, session
from ..paths import from_blend, to_blend
from ..scenes.link import is_scene_object, open_scene
from ..sequencer.strips import (
    TAKE_KEY,
    StripError,
    TakeStrip,
    find_strip,
    grow_image_strip,
    replace_with_movie,
    strips_of_take,
)
from .pace import Pace
from .properties import EX4D_Take, find_take, takes_of_shot
from .shots import load_request, new_take_folder, request_metadata, save_request

SENDING, STOPPED = "sending", "stopped"
MOVIE = "take.mp4"
# A strip that grows makes Blender draw everything again, viewport included, so it grows only after so many ticks:
# five times a second, or less often where drawing is slow.
_REST_TICKS = 10
_FRAME_NAME = re.compile(r"frame_(\d{5,})\.png")


@dataclass
class Following:
    """A take that is being followed, or was until its end.

    Attributes:
        scene: the package to upload from; None when the backend has the job already.
        strip: where the take belongs in the sequencer.
        home: name of the Blender scene that lists it.
        task: the conversation on the session's client; None until there is a client.
        shown: frames that the strip has taken in.
        rested: ticks since it did.
        strip_problem: why the strip cannot be shown.
        here: whether it belongs to the open file.
        undone: whether an undo step may have changed its entry or its strip.
        withdrawn: cancelled before the backend had named the job.
        over: nothing more will happen.
        placed: whether its strip has been in the sequencer; one that is gone since was removed on purpose.
        pace: how fast the present step goes.
    """

    take: Take
    scene: Scene | None
    strip: TakeStrip
    home: str
    task: Task[JobStatus] | None = None
    shown: int = 0
    rested: int = _REST_TICKS
    strip_problem: str = ""
    here: bool = True
    undone: bool = False
    withdrawn: bool = False
    over: bool = False
    placed: bool = False
    pace: Pace = field(default_factory=Pace)


_following: dict[str, Following] = {}


def send_take(
    scene: Scene, request: ShotRequest, frame_start: int, blender_scene: bpy.types.Scene, shot: str = ""
) -> EX4D_Take:
    """Send a shot to the backend and follow it; the strip will appear in ``blender_scene``.

    Works while no backend answers: the shot is sent as soon as one does.

    Args:
        scene: the opened package that the request is about.
        frame_start: Blender frame of the take's first frame.
        shot: key of the shot that this is a take of; its takes are versions of each other.

    Raises:
        OSError: the take's folder cannot be made.
    """
    folder = new_take_folder(request.label)
    save_request(folder, request)
    take = Take(request, folder)
    label, frames, fps = request.label or folder.name, len(request.camera), float(scene.manifest.fps)
    strip = TakeStrip(take.key, label, frame_start, frames, request_metadata(request), fps)
    entry = _add_entry(blender_scene, take, strip)
    entry.version = 1 + max((one.version for one in takes_of_shot(blender_scene, shot)), default=0)
    entry.shot, entry.engine = shot, request.engine
    _follow(Following(take, scene, strip, blender_scene.name))
    return entry


def resume_takes() -> None:
    """Go on with every take of the open file that is not finished and not being followed."""
    for blender_scene in bpy.data.scenes:
        for entry in blender_scene.ex4d_takes:
            if entry.state not in (*FINAL_STATES, STOPPED):
                resume_take(entry)


def resume_take(entry: EX4D_Take) -> None:
    """Go on with one take; its entry says why, if that is impossible."""
    folder = from_blend(entry.folder)
    known = _following.get(entry.key)
    if known is not None and not known.over:
        if known.take.folder == folder:
            return
        _abandon(known)
    try:
        request = load_request(folder)
        scene = None if entry.job else package_of(request)
    except (RequestError, SceneError) as error:
        entry.state, entry.reason = STOPPED, str(error)
        return
    take = Take(
        request, folder, key=entry.key, job=entry.job, last_event=entry.last_event, frames=_frames_on_disk(folder)
    )
    entry.reason = ""
    if not entry.job:
        entry.state = SENDING
    _follow(Following(take, scene, _strip_of(entry, request), entry.id_data.name))


def retry_take(entry: EX4D_Take) -> None:
    """Send a take that failed or was cancelled once more, as a job of its own, into the same folder and strip.

    Raises:
        RequestError: its request cannot be read, or its scene is not in the file.
        SceneError: the scene package is missing or changed.
    """
    request = load_request(from_blend(entry.folder))
    scene = package_of(request)
    known = _following.get(entry.key)
    if known is not None:
        _abandon(known)
    strip, key = find_strip(entry.id_data, entry.key), uuid.uuid4().hex
    if strip is not None:
        strip[TAKE_KEY] = key
    entry.key, entry.job, entry.last_event = key, "", 0
    entry.state, entry.stage, entry.reason, entry.progress = SENDING, "", "", 0.0
    take = Take(request, from_blend(entry.folder), key=key)
    _follow(Following(take, scene, _strip_of(entry, request), entry.id_data.name))


def place_take(entry: EX4D_Take) -> None:
    """Put a take into its scene's sequencer again: the movie, or as many frames as there are.

    Raises:
        RequestError: its request cannot be read.
        StripError: no channel is free, or the files are gone.
    """
    folder = from_blend(entry.folder)
    strip = _strip_of(entry, load_request(folder))
    following = _following.get(entry.key)
    if (folder / MOVIE).is_file():
        replace_with_movie(entry.id_data, strip, folder / MOVIE)
    elif grow_image_strip(entry.id_data, strip, _frames_on_disk(folder)) is None:
        raise StripError(f"no frames of this take are in {folder} yet")
    if following is not None:
        following.placed, following.strip_problem = True, ""
    show_version(entry.id_data, entry)


def show_version(blender_scene: bpy.types.Scene, entry: EX4D_Take) -> None:
    """Let this take be seen of all that its shot has: the others' strips are muted."""
    for one in takes_of_shot(blender_scene, entry.shot) or [entry]:
        for strip in strips_of_take(blender_scene, one.key):
            strip.mute = one.key != entry.key


def cancel_take(entry: EX4D_Take) -> None:
    """Stop a take: the backend's job, or the sending of it.

    Raises:
        NotConnectedError: the preferences allow no connection to cancel the job through.
    """
    following = _following.get(entry.key)
    if following is None or following.over:
        return
    if following.take.job:
        session().start(following.take.cancel())  # the conversation that follows the job will hear of it
        return
    if following.task is not None:
        session().stop(following.task)
        if session().connected:  # else nothing can have arrived
            session().start(_withdraw(following.take))
    following.withdrawn = following.over = True
    _show(following)


def forget_take(blender_scene: bpy.types.Scene, entry: EX4D_Take) -> None:
    """Remove a take from the list; its strip and files stay."""
    following = _following.get(entry.key)
    if following is not None:
        _abandon(following)
    index = list(blender_scene.ex4d_takes).index(entry)
    blender_scene.ex4d_takes.remove(index)
    if blender_scene.ex4d_take_index >= index > 0:
        blender_scene.ex4d_take_index -= 1


def is_followed(entry: EX4D_Take) -> bool:
    """Whether this take is under way in this Blender."""
    return entry.key in _following and not _following[entry.key].over


def followed_folders() -> set[Path]:
    """Folders that takes under way write into, those of other files too."""
    return {following.take.folder for following in _following.values() if not following.over}


def newest_estimates() -> list[tuple[str, int, Path]]:
    """Of each take that has had any since the file was opened: key, how many estimates, and the newest one's file."""
    takes = (following.take for following in _following.values() if following.here)
    return [(take.key, take.estimates, take.estimate) for take in takes if take.estimate is not None]


def follow_all() -> None:
    """Bring every followed take's entry and strip in step; the session calls it once per tick."""
    for following in list(_following.values()):
        if following.undone:
            _restore(following)
        if not following.over:
            _follow_one(following)


def _follow(following: Following) -> None:
    _following[following.take.key] = following
    _follow_one(following)


def _follow_one(following: Following) -> None:
    if following.task is not None and isinstance(following.task.error, ClientError):
        following.task = None  # the connection was replaced; go on with the new one
    if following.task is None:
        try:
            following.task = session().start(following.take.conversation(following.scene))
        except NotConnectedError:
            return
    following.over = following.task.done and not isinstance(following.task.error, ClientError)
    _show(following)


def _withdraw(take: Take) -> Conversation[None]:
    """Cancel a submission that may be under way: the same key names the same job, if there is one."""
    reply = yield Submit(take.key, take.request.to_wire())
    yield Cancel(reply.job)


def _abandon(following: Following) -> None:
    if following.task is not None:
        session().stop(following.task)
    _following.pop(following.take.key, None)


def _restore(following: Following) -> None:
    """Undo goes back to an older entry and strip; what has happened since has happened all the same."""
    following.undone = False
    if not following.here:
        return
    found = find_take(following.take.key)
    if found is None:
        home = bpy.data.scenes.get(following.home) or bpy.context.scene
        _add_entry(home, following.take, following.strip)
    elif found[1].state in FINAL_STATES:
        return  # as it was; a strip that is not there was removed on purpose
    following.shown, following.placed = 0, False
    _show(following)


def _strip_of(entry: EX4D_Take, request: ShotRequest) -> TakeStrip:
    metadata = request_metadata(request)
    return TakeStrip(entry.key, entry.label, entry.frame_start, entry.frames, metadata, entry.fps)


def _add_entry(blender_scene: bpy.types.Scene, take: Take, strip: TakeStrip) -> EX4D_Take:
    entry = blender_scene.ex4d_takes.add()
    entry.label = entry.name = strip.label
    entry.key, entry.folder = take.key, to_blend(take.folder)
    entry.frame_start, entry.frames, entry.fps = strip.frame_start, strip.frames, strip.fps
    blender_scene.ex4d_take_index = len(blender_scene.ex4d_takes) - 1
    return entry


def _show(following: Following) -> None:
    """Copy what changed into the .blend."""
    found = find_take(following.take.key)
    if found is None:
        return  # another file is open; the take goes on into its folder
    blender_scene, entry = found
    following.home = blender_scene.name
    before = _shown_values(entry)
    _show_state(following, entry)
    try:
        _show_strip(following, entry, blender_scene)
        following.strip_problem = ""
    except StripError as error:
        following.strip_problem = str(error)
        if not entry.reason:
            _set(entry, "reason", following.strip_problem)
    # Only now are the frames up to this event in the strip.
    _set(entry, "last_event", following.take.last_event)
    if before != _shown_values(entry):
        session().redraw()


def _shown_values(entry: EX4D_Take) -> tuple:
    shown = (entry.state, entry.stage, entry.progress, entry.reason, entry.last_event)
    return (*shown, entry.queue_position, entry.seconds_left)


def _show_state(following: Following, entry: EX4D_Take) -> None:
    take, task, status = following.take, following.task, following.take.status
    _set(entry, "job", take.job)
    if following.withdrawn:
        _set(entry, "state", "cancelled")
    elif following.over and task.error is not None:
        _set(entry, "state", STOPPED)
        _set(entry, "reason", str(task.error))
    elif status is None:
        if not take.job:
            _set(entry, "progress", take.uploaded / take.upload_size if take.upload_size else 0.0)
    else:
        # When the backend is done, its last frames may still be on their way.
        fetching = status.state in FINAL_STATES and not following.over
        _set(entry, "state", "running" if fetching else status.state)
        _set(entry, "stage", "fetching" if fetching else status.stage)
        _set(entry, "reason", status.reason or following.strip_problem)
        _set(entry, "progress", status.done / status.total if status.total else float(status.state == "done"))
        _set(entry, "queue_position", status.queue_position)
    left = None if following.over else following.pace.seconds_left(time.monotonic(), entry.stage, entry.progress)
    _set(entry, "seconds_left", -1 if left is None else round(left))


def _show_strip(following: Following, entry: EX4D_Take, blender_scene: bpy.types.Scene) -> None:
    take = following.take
    following.rested += 1
    finished = following.over and entry.state == "done" and (take.folder / MOVIE).is_file()
    due = len(take.frames) != following.shown and (following.over or following.rested > _REST_TICKS)
    if not finished and not due:
        return
    before = find_strip(blender_scene, following.take.key)
    if before is None and following.placed:
        raise StripError("its strip was removed, so it stays away; Put in Sequencer brings it back")
    if finished:
        replace_with_movie(blender_scene, following.strip, take.folder / MOVIE)
    else:
        grow_image_strip(blender_scene, following.strip, take.frames)
        following.shown, following.rested = len(take.frames), 0
    if before is None and find_strip(blender_scene, following.take.key) is not None:
        following.placed = True
        show_version(blender_scene, entry)
    following.placed = following.placed or before is not None


def _set(entry: EX4D_Take, name: str, value: object) -> None:
    """Writing a property tells all of Blender, so write only what changes."""
    if getattr(entry, name) != value:
        setattr(entry, name, value)


def package_of(request: ShotRequest) -> Scene:
    """The package that a request is about, from the open file's imported scenes."""
    return open_scene(object_of(request))


def object_of(request: ShotRequest) -> bpy.types.Object:
    """The imported scene that a request is about.

    Raises:
        RequestError: it is not in the file.
    """
    for candidate in bpy.data.objects:
        if is_scene_object(candidate) and candidate.ex4d_scene.digest == request.scene:
            return candidate
    raise RequestError("the imported scene that this take is about is not in the file any more; import it again")


def _frames_on_disk(folder: Path) -> dict[int, Path]:
    matches = ((_FRAME_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in matches if match}


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    for key, following in list(_following.items()):
        following.here = find_take(key) is not None
        if following.over:
            del _following[key]
    resume_takes()


@bpy.app.handlers.persistent
def _after_undo(*_: object) -> None:
    for following in _following.values():
        following.undone = True  # dealt with in the next tick: this is no moment to change anything


_HANDLERS = (
    (bpy.app.handlers.load_post, _after_load),
    (bpy.app.handlers.undo_post, _after_undo),
    (bpy.app.handlers.redo_post, _after_undo),
)


def register() -> None:
    session().followers.append(follow_all)
    for handlers, handler in _HANDLERS:
        handlers.append(handler)


def unregister() -> None:
    for handlers, handler in _HANDLERS:
        handlers.remove(handler)
    session().followers.remove(follow_all)
    _following.clear()
