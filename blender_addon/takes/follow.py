"""Takes under way: start, follow with every tick, cancel, and resume after a reload, a restart or a new connection.

The truth is in `ex4d_core.takes.Take` while Blender runs; each tick copies what changed into ``Scene.ex4d_takes``, so
that a saved file, an undo step or another Blender finds its way back. Frames and movies are in the take's folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import bpy

from ex4d_core.client import ClientError, Task
from ex4d_core.messages import FINAL_STATES, JobStatus
from ex4d_core.scene import Scene
from ex4d_core.shot import RequestError, ShotRequest
from ex4d_core.takes import Take

from ..connection.session import NotConnectedError, redraw, session
from ..paths import from_blend, to_blend
from ..scenes.link import is_scene_object, open_scene
from ..sequencer.strips import StripError, TakeStrip, grow_image_strip, replace_with_movie
from .properties import EX4D_Take, find_take
from .shots import load_request, new_take_folder, request_metadata, save_request

SENDING, STOPPED = "sending", "stopped"
MOVIE = "take.mp4"
_FRAME_NAME = re.compile(r"frame_(\d{5,})\.png")


@dataclass
class Following:
    """A take that is being followed.

    Attributes:
        scene: the package to upload from; None when the backend has the job already.
        task: the conversation on the session's client; None until there is a client.
        strip: where the take belongs in the sequencer.
        shown: frames that the strip has taken in.
        cancel: whether the artist wants it to end.
    """

    take: Take
    scene: Scene | None
    strip: TakeStrip
    task: Task[JobStatus] | None = None
    shown: int = 0
    cancel: bool = False
    cancelling: Task[JobStatus] | None = field(default=None, repr=False)


_following: dict[str, Following] = {}


def send_take(scene: Scene, request: ShotRequest, frame_start: int, blender_scene: bpy.types.Scene) -> EX4D_Take:
    """Send a shot to the backend and follow it; the strip will appear in ``blender_scene``.

    Works while no backend answers: the shot is sent as soon as one does.

    Args:
        scene: the opened package that the request is about.
        frame_start: Blender frame of the take's first frame.

    Raises:
        OSError: the take's folder cannot be made.
    """
    folder = new_take_folder(request.label)
    save_request(folder, request)
    take = Take(request, folder)
    entry = blender_scene.ex4d_takes.add()
    entry.label = entry.name = request.label or folder.name
    entry.key, entry.folder = take.key, to_blend(folder)
    entry.frame_start, entry.frames = frame_start, len(request.camera)
    _follow(take, scene, _strip_of(entry, request))
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
    if known is not None:
        if known.take.folder == folder:
            return
        _abandon(known)
    try:
        request = load_request(folder)
        scene = None if entry.job else _package_of(request)
    except RequestError as error:
        entry.state, entry.reason = STOPPED, str(error)
        return
    take = Take(
        request,
        folder,
        key=entry.key,
        job=entry.job,
        last_event=entry.last_event,
        frames=_frames_on_disk(folder),
    )
    entry.state = entry.state if entry.job else SENDING
    entry.reason = ""
    _follow(take, scene, _strip_of(entry, request))


def cancel_take(entry: EX4D_Take) -> None:
    """Stop a take: the backend's job if it has one, else the sending of it."""
    following = _following.get(entry.key)
    if following is not None:
        following.cancel = True
        _follow_one(following)


def forget_take(blender_scene: bpy.types.Scene, entry: EX4D_Take) -> None:
    """Remove a take from the list; its strip and files stay."""
    following = _following.pop(entry.key, None)
    if following is not None:
        _abandon(following)
    blender_scene.ex4d_takes.remove(list(blender_scene.ex4d_takes).index(entry))


def is_followed(entry: EX4D_Take) -> bool:
    """Whether this take is under way in this Blender."""
    return entry.key in _following


def follow_all() -> None:
    """Bring every followed take's entry and strip in step; the session calls it once per tick."""
    for following in list(_following.values()):
        _follow_one(following)


def _follow(take: Take, scene: Scene | None, strip: TakeStrip) -> None:
    following = Following(take, scene, strip)
    _following[take.key] = following
    _follow_one(following)


def _follow_one(following: Following) -> None:
    take = following.take
    if following.task is not None and isinstance(following.task.error, ClientError):
        following.task = None  # the connection was replaced; go on with the new one
    if following.task is None and not (following.cancel and not take.job):
        try:
            following.task = session().start(take.conversation(following.scene))
        except NotConnectedError:
            return
    if following.cancel and following.cancelling is None:
        if take.job:
            following.cancelling = session().start(take.cancel())
        elif following.task is None or not _is_submitted(following):
            _abandon(following)
    _show(following)
    if take.key in _following and (following.task is None or following.task.done):
        del _following[take.key]


def _is_submitted(following: Following) -> bool:
    """Whether the backend may have the job already, although its name has not come back yet."""
    take = following.take
    return take.upload_size > 0 and take.uploaded >= take.upload_size


def _abandon(following: Following) -> None:
    if following.task is not None:
        session().stop(following.task)
    _following.pop(following.take.key, None)


def _show(following: Following) -> None:
    """Copy what changed into the .blend."""
    found = find_take(following.take.key)
    if found is None:
        return  # another file is open; the take goes on into its folder
    blender_scene, entry = found
    before = (entry.state, entry.stage, entry.progress, entry.reason, entry.last_event)
    _show_state(following, entry)
    try:
        _show_strip(following, entry, blender_scene)
    except StripError as error:
        _set(entry, "reason", str(error))
    # Only now are the frames up to this event in the strip.
    _set(entry, "last_event", following.take.last_event)
    if before != (entry.state, entry.stage, entry.progress, entry.reason, entry.last_event):
        redraw()


def _show_state(following: Following, entry: EX4D_Take) -> None:
    take, task, status = following.take, following.task, following.take.status
    _set(entry, "job", take.job)
    if task is not None and task.error is not None:
        _set(entry, "state", STOPPED)
        _set(entry, "reason", str(task.error))
    elif take.key not in _following:
        _set(entry, "state", "cancelled")
    elif status is None:
        if not take.job:
            _set(entry, "progress", take.uploaded / take.upload_size if take.upload_size else 0.0)
    elif status.state in FINAL_STATES and not (task and task.done):
        _set(entry, "state", "running")  # the backend is done, its last frames are still on their way
        _set(entry, "stage", "fetching")
    else:
        _set(entry, "state", status.state)
        _set(entry, "reason", status.reason)
        _set(entry, "stage", status.stage)
        _set(entry, "progress", status.done / status.total if status.total else float(status.state == "done"))


def _show_strip(following: Following, entry: EX4D_Take, blender_scene: bpy.types.Scene) -> None:
    take = following.take
    done = following.task is not None and following.task.done and entry.state == "done"
    if done and (take.folder / MOVIE).is_file():
        replace_with_movie(blender_scene, following.strip, take.folder / MOVIE)
    elif len(take.frames) != following.shown:
        grow_image_strip(blender_scene, following.strip, take.frames)
        following.shown = len(take.frames)


def _set(entry: EX4D_Take, name: str, value: object) -> None:
    """Writing a property tells all of Blender, so write only what changes."""
    if getattr(entry, name) != value:
        setattr(entry, name, value)


def _strip_of(entry: EX4D_Take, request: ShotRequest) -> TakeStrip:
    return TakeStrip(entry.key, entry.label, entry.frame_start, entry.frames, request_metadata(request))


def _package_of(request: ShotRequest) -> Scene:
    """The package that a request is about, from the open file's imported scenes."""
    for candidate in bpy.data.objects:
        if is_scene_object(candidate) and candidate.ex4d_scene.digest == request.scene:
            return open_scene(candidate)
    raise RequestError("the imported scene that this take is about is not in the file any more; import it again")


def _frames_on_disk(folder: Path) -> dict[int, Path]:
    matches = ((_FRAME_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in matches if match}


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    resume_takes()


def register() -> None:
    session().followers.append(follow_all)
    bpy.app.handlers.load_post.append(_after_load)


def unregister() -> None:
    bpy.app.handlers.load_post.remove(_after_load)
    session().followers.remove(follow_all)
    _following.clear()
