"""Takes under way: start, follow with every tick, cancel, and resume after a reload, a restart or a new connection.

The truth is in `ex4d_core.takes.Take` while Blender runs; each tick copies what changed into ``Scene.ex4d_takes`` (see
`showing`), so that a saved file, an undo step or another Blender finds its way back. Frames and movies are in the
take's folder.
"""

from __future__ import annotations

import re
import uuid
from functools import partial
from pathlib import Path

import bpy

from ex4d_core.messages import FINAL_STATES
from ex4d_core.scene import Scene, SceneError
from ex4d_core.shot import RequestError, ShotRequest
from ex4d_core.takes import Take

from ..connection.errands import Errand, home_of, note_change, own_scenes
from ..connection.failures import contained
from ..connection.session import session
from ..paths import from_blend
from ..sequencer.movies import discard_opened, replace_with_movie, strips_are_held
from ..sequencer.strips import TAKE_KEY, StripError, TakeStrip, find_strip, grow_image_strip
from .properties import EX4D_Take, find_copies, find_take, takes_of_shot, version_name
from .shots import load_request, new_take_folder, package_of, request_metadata, save_request
from .showing import (
    MOVIE,
    SENDING,
    STOPPED,
    Following,
    add_entry,
    label_of,
    movie_is_due,
    place_movie,
    show,
    show_version,
    strip_of,
)

_FRAME_NAME = re.compile(r"frame_(\d{5,})\.png")

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
        RequestError: the Blender scene is linked, so that it cannot keep the take.
        OSError: the take's folder cannot be made.
    """
    if blender_scene.library is not None:
        raise RequestError(
            f"the scene {blender_scene.name!r} is linked from another file; make takes in one of this file"
        )
    folder = new_take_folder(request.label)
    save_request(folder, request)
    take = Take(request, folder)
    version = 1 + max((one.version for one in takes_of_shot(blender_scene, shot)), default=0)
    name = version_name(label_of(take), version)
    fps = float(scene.manifest.fps)
    strip = TakeStrip(take.key, name, frame_start, len(request.camera), request_metadata(request), fps)
    entry = add_entry(blender_scene, take, strip)
    entry.shot, entry.version = shot, version
    _follow(_new_following(take, scene, strip, blender_scene)).lost_with = bpy.data.filepath
    return entry


def resume_takes() -> None:
    """Go on with every take of the open file that is not finished and not being followed."""
    for blender_scene in own_scenes():
        for entry in blender_scene.ex4d_takes:
            if entry.cancelling or entry.state not in (*FINAL_STATES, STOPPED):
                with contained():
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
        scene = None if entry.job or entry.cancelling else package_of(request)
        frames = _frames_on_disk(folder)
    except (RequestError, SceneError, OSError) as error:
        entry.state, entry.reason = STOPPED, str(error)
        return
    take = Take(
        request,
        folder,
        key=entry.key,
        job=entry.job,
        submitted=True,  # as far as anybody knows
        last_event=entry.last_event,
        frames=frames,
    )
    entry.reason = ""
    if not entry.cancelling and (entry.state == STOPPED or not entry.job):
        entry.state = "running" if entry.job else SENDING
    cancelling = entry.cancelling
    _follow(_new_following(take, scene, strip_of(entry, request), entry.id_data, cancelling=cancelling))


def retry_take(entry: EX4D_Take) -> None:
    """Send a take that failed or was cancelled once more, as a job of its own, into the same folder and strip.

    Raises:
        RequestError: it is under way, its request cannot be read, or its scene is not in the file.
        SceneError: the scene package is missing or changed.
    """
    if is_followed(entry) and entry.state not in FINAL_STATES:
        raise RequestError("this take is under way; cancel it first, or press Preview for another one")
    request = load_request(from_blend(entry.folder))
    scene = package_of(request)
    known = _following.get(entry.key)
    if known is not None:
        _abandon(known)
    strip, key = find_strip(entry.id_data, entry.key), uuid.uuid4().hex
    if strip is not None:
        strip[TAKE_KEY] = key
    entry.key, entry.job, entry.last_event, entry.cancelling = key, "", 0, False
    entry.state, entry.stage, entry.reason, entry.progress = SENDING, "", "", 0.0
    take = Take(request, from_blend(entry.folder), key=key)
    _follow(_new_following(take, scene, strip_of(entry, request), entry.id_data)).lost_with = bpy.data.filepath


def place_take(entry: EX4D_Take) -> None:
    """Put a take into its scene's sequencer again: the movie, or as many frames as there are.

    Raises:
        RequestError: its request cannot be read.
        StripError: no channel is free, or the files are gone.
    """
    folder = from_blend(entry.folder)
    strip = strip_of(entry, load_request(folder))
    following = _following.get(entry.key)
    if (folder / MOVIE).is_file():
        replace_with_movie(entry.id_data, strip, folder / MOVIE)
    elif grow_image_strip(entry.id_data, strip, _frames_on_disk(folder)) is None:
        raise StripError(f"no frames of this take are in {folder} yet")
    if following is not None:
        following.placed, following.strip_problem = True, ""
    show_version(entry.id_data, entry)


def cancel_take(entry: EX4D_Take) -> None:
    """Stop a take: the backend's job, or the sending of it."""
    following = _following.get(entry.key)
    if following is not None and not following.over:
        following.errand.cancel()
        _follow_one(following)


def forget_take(blender_scene: bpy.types.Scene, entry: EX4D_Take) -> None:
    """Remove a take from the list; its strip and files stay."""
    following = _following.get(entry.key)
    if following is not None and len(find_copies(entry.key)) == 1:
        _abandon(following)
    discard_opened(blender_scene, entry.key)
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
        if not following.over:
            with contained():
                _follow_one(following)


def restore_all() -> None:
    """Bring the open file in step after an undo, or when the add-on was enabled; the session calls it."""
    for following in list(_following.values()):
        with contained():
            _restore(following)
    resume_takes()  # those whose removal from the list was undone, and those under way since before


def _follow(following: Following) -> Following:
    _following[following.take.key] = following
    _follow_one(following)
    return following


def _new_following(
    take: Take, scene: Scene | None, strip: TakeStrip, home: bpy.types.Scene, *, cancelling: bool = False
) -> Following:
    errand = Errand(take, partial(take.conversation, scene), cancelling, withdrawn=cancelling and not take.job)
    return Following(take, errand, strip, home.session_uid)


def _follow_one(following: Following) -> None:
    errand = following.errand
    errand.go_on()
    due = movie_is_due(following)
    if due and not following.placing and not strips_are_held(bpy.context.window_manager.windows):
        following.placing = True
        session().alone(partial(_place, following))
    following.over = errand.over and not following.placing and not due
    show(following)


def _place(following: Following) -> None:
    """In a tick of its own: one step of the movie's way into the sequencer."""
    if _following.get(following.take.key) is not following or not following.placing:
        return
    if strips_are_held(bpy.context.window_manager.windows):
        following.placing = False  # goes on from here as soon as they are let go
        return
    more = False
    try:
        more = place_movie(following)
    finally:  # whatever happens, the take comes to its end
        following.placing, following.settled = more, not more  # the next tick tells
    if more:
        session().alone(partial(_place, following))


def _abandon(following: Following) -> None:
    following.errand.abandon()
    _following.pop(following.take.key, None)


def _restore(following: Following) -> None:
    """Undo goes back to an older entry and strip; what has happened since has happened all the same."""
    if not following.here:
        return
    found = find_take(following.take.key)
    if found is None:
        home = home_of(following.home)
        if home is None:
            return  # its takes are gone with it
        entry = _renewed(home, following) or add_entry(home, following.take, following.strip)
        entry.shot, entry.version = following.shot, following.version
    elif found[1].state in FINAL_STATES:
        return  # as it was; a strip that is not there was removed on purpose
    _look_anew(following)
    following.over = False


def _list_again(following: Following) -> None:
    """The file that lists it was loaded as it was before the take was sent, which has happened all the same."""
    home = bpy.data.scenes.get(following.home_name) or bpy.context.scene
    following.here, following.home = True, home.session_uid
    _restore(following)
    session().alone(partial(note_change, "EX-4D Take Found Again"))


def _renewed(home: bpy.types.Scene, following: Following) -> EX4D_Take | None:
    """The entry whose making again was undone: the new job writes into its folder all the same."""
    entry = next((one for one in home.ex4d_takes if from_blend(one.folder) == following.take.folder), None)
    if entry is not None:
        strip = find_strip(home, entry.key)
        if strip is not None:
            strip[TAKE_KEY] = following.take.key
        entry.key, entry.state, entry.reason = following.take.key, SENDING, ""
    return entry


def _look_anew(following: Following) -> None:
    """What is in the sequencer is not what was put there any more, and nobody removed it on purpose."""
    following.shown, following.placed, following.settled = 0, False, False


def _frames_on_disk(folder: Path) -> dict[int, Path]:
    matches = ((_FRAME_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in matches if match}


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    for key, following in list(_following.items()):
        following.here = find_take(key) is not None
        if not following.here and following.lost_with and following.lost_with == bpy.data.filepath:
            with contained():
                _list_again(following)
        elif not following.over:
            _look_anew(following)
        elif not following.lost_with:
            del _following[key]
    resume_takes()


@bpy.app.handlers.persistent
def _after_save(target: str, *_: object) -> None:
    if target != bpy.data.filepath:
        return  # that was a copy
    for following in _following.values():
        if following.here:
            following.lost_with = ""


def register() -> None:
    session().followers.append(follow_all)
    session().restorers.append(restore_all)
    bpy.app.handlers.load_post.append(_after_load)
    bpy.app.handlers.save_post.append(_after_save)


def unregister() -> None:
    bpy.app.handlers.save_post.remove(_after_save)
    bpy.app.handlers.load_post.remove(_after_load)
    session().restorers.remove(restore_all)
    session().followers.remove(follow_all)
    _following.clear()
