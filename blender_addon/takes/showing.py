"""A take under way as the open .blend shows it: its entry in the list, and its strip in the sequencer.

`follow` calls this with every tick. Writing into a .blend tells all of Blender, so only what changed is written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import bpy

from ex4d_core.jobs import stage_and_seconds
from ex4d_core.messages import FINAL_STATES
from ex4d_core.shot import ShotRequest
from ex4d_core.takes import Take

from ..connection.errands import Errand
from ..connection.session import session
from ..paths import to_blend
from ..sequencer.movies import discard_opened, movie_step
from ..sequencer.strips import StripError, TakeStrip, find_strip, grow_image_strip, strips_of_take
from ..shots.final import LARGEST_SEED
from .pace import Pace
from .properties import EX4D_Take, find_copies, find_take, takes_of_shot, version_name
from .shots import request_metadata

SENDING, STOPPED = "sending", "stopped"
MOVIE = "take.mp4"
# A strip that grows makes Blender draw everything again, viewport included, so it grows only after so many ticks:
# five times a second, or less often where drawing is slow.
_REST_TICKS = 10
# Of an entry, what is as it is in every copy of it.
_STATE = (
    *("job", "last_event", "state", "stage", "progress", "done", "total"),
    *("reason", "queue_position", "seconds_left", "cancelling"),
)
_REMOVED = "its strip was removed, so it stays away; Put in Sequencer brings it back"


@dataclass
class Following:
    """A take that is being followed, or was until its end.

    Attributes:
        errand: its way over the wire.
        strip: where the take belongs in the sequencer.
        home: ``session_uid`` of the Blender scene that lists it (see `home_of`).
        home_name: of that scene, which is all that a file that is loaded again has in common.
        shot, version: as its entry says.
        lost_with: the .blend that lists it now, but not as it was last saved, so that reverting it loses the entry;
            "" where it is saved or there is no such file.
        shown: frames that the strip has taken in.
        rested: ticks since it did.
        strip_problem: why the strip cannot be shown.
        here: whether it belongs to the open file.
        placing: the movie is on its way into the sequencer.
        settled: it has come there, or will not.
        over: nothing more will happen.
        placed: whether its strip has been in the sequencer; one that is gone since was removed on purpose.
        pace: how fast the present step goes.
    """

    take: Take
    errand: Errand
    strip: TakeStrip
    home: int
    home_name: str = ""
    shot: str = ""
    version: int = 1
    lost_with: str = ""
    shown: int = 0
    rested: int = _REST_TICKS
    strip_problem: str = ""
    here: bool = True
    placing: bool = False
    settled: bool = False
    over: bool = False
    placed: bool = False
    pace: Pace = field(default_factory=Pace)

    @property
    def movie(self) -> Path:
        """Where the finished movie is, once it has arrived."""
        return self.take.folder / MOVIE


def show(following: Following) -> None:
    """Copy what changed into the .blend."""
    found = find_copies(following.take.key)
    if not found:
        return  # another file is open; the take goes on into its folder
    blender_scene, entry = found[0]
    following.home, following.home_name = blender_scene.session_uid, blender_scene.name
    following.shot, following.version = entry.shot, entry.version
    before = _shown_values(entry)
    _show_state(following, entry)
    if not following.placing and not following.settled:
        try:
            _show_frames(following, entry, blender_scene)
        except StripError as error:
            following.strip_problem = str(error)
            if not entry.reason:
                _set(entry, "reason", following.strip_problem)
    # Only now are the frames up to this event in the strip.
    _set(entry, "last_event", following.take.last_event)
    for _, copy in found[1:]:  # their strips wait for the movie
        for name in _STATE:
            _set(copy, name, getattr(entry, name))
    if before != _shown_values(entry):
        session().redraw()


def movie_is_due(following: Following) -> bool:
    """Whether all has arrived, and the movie is to come into the open file's sequencer."""
    take, errand = following.take, following.errand
    if following.settled or not errand.over or errand.error or errand.withdrawn or take.status.state != "done":
        return False
    return find_take(take.key) is not None and following.movie.is_file()


def place_movie(following: Following) -> bool:
    """Take one step of the movie's way into the sequencer; returns whether there is another."""
    key, found = following.take.key, find_copies(following.take.key)
    if not found:
        return False  # another file was opened, or the Blender scene deleted
    blender_scene, entry = found[0]
    is_new = find_strip(blender_scene, key) is None
    if is_new and following.placed:
        discard_opened(blender_scene, key)
        following.strip_problem = _REMOVED
        return False
    try:
        more = movie_step(blender_scene, following.strip, following.movie)
        for other, _ in found[1:]:
            if not more and find_strip(other, key) is not None:
                more = movie_step(other, following.strip, following.movie)
    except RuntimeError as error:  # ours, or Blender's refusal to change what is not its own
        following.strip_problem = str(error)
        return False
    following.strip_problem = ""
    _note_place(following, entry, blender_scene, is_new)
    return more


def show_version(blender_scene: bpy.types.Scene, entry: EX4D_Take) -> None:
    """Let this take be seen of all that its shot has: the others' strips are muted."""
    for one in takes_of_shot(blender_scene, entry.shot) or [entry]:
        for strip in strips_of_take(blender_scene, one.key):
            _set(strip, "mute", one.key != entry.key)


def strip_of(entry: EX4D_Take, request: ShotRequest) -> TakeStrip:
    """Where a take of the open file belongs in the sequencer."""
    metadata = request_metadata(request)
    name = version_name(entry.label, entry.version)
    return TakeStrip(entry.key, name, entry.frame_start, entry.frames, metadata, entry.fps)


def label_of(take: Take) -> str:
    """What a take is called, whichever version it is."""
    return take.request.label or take.folder.name


def add_entry(blender_scene: bpy.types.Scene, take: Take, strip: TakeStrip) -> EX4D_Take:
    """List a take in a Blender scene."""
    entry = blender_scene.ex4d_takes.add()
    entry.label = entry.name = label_of(take)
    entry.key, entry.folder, entry.engine = take.key, to_blend(take.folder), take.request.engine
    entry.frame_start, entry.frames, entry.fps = strip.frame_start, strip.frames, strip.fps
    wan = take.request.wan
    if wan.seed <= LARGEST_SEED:
        entry.seed, entry.steps, entry.guidance = wan.seed, wan.steps, wan.guidance
    blender_scene.ex4d_take_index = len(blender_scene.ex4d_takes) - 1
    return entry


def _shown_values(entry: EX4D_Take) -> tuple:
    shown = (entry.state, entry.stage, entry.progress, entry.reason, entry.last_event)
    return (*shown, entry.queue_position, entry.seconds_left)


def _show_state(following: Following, entry: EX4D_Take) -> None:
    take, errand, status, told = following.take, following.errand, following.take.status, None
    _set(entry, "job", take.job)
    _set(entry, "cancelling", errand.cancelling and not errand.over)
    if errand.withdrawn:
        _set(entry, "state", "cancelled")
    elif following.over and errand.error is not None:
        _set(entry, "state", STOPPED)
        _set(entry, "reason", str(errand.error))
    elif status is None:
        if not take.job:
            _set(entry, "progress", take.progress)
    else:
        # When the backend is done, its last frames may still be on their way.
        fetching = status.state in FINAL_STATES and not following.over
        _set(entry, "state", "running" if fetching else status.state)
        stage, told = ("fetching", None) if fetching else stage_and_seconds(status.stage)
        _set(entry, "stage", stage)
        _set(entry, "done", status.done)
        _set(entry, "total", status.total)
        _set(entry, "reason", status.reason or following.strip_problem)
        _set(entry, "progress", take.progress)
        _set(entry, "queue_position", status.queue_position)
    left = following.pace.seconds_left(time.monotonic(), entry.stage, entry.progress, told)
    _set(entry, "seconds_left", -1 if left is None or following.over else round(left))


def _show_frames(following: Following, entry: EX4D_Take, blender_scene: bpy.types.Scene) -> None:
    frames = following.take.frames
    following.rested += 1
    if len(frames) == following.shown or not (following.over or following.rested > _REST_TICKS):
        return
    is_new = find_strip(blender_scene, following.take.key) is None
    if is_new and following.placed:
        raise StripError(_REMOVED)
    grow_image_strip(blender_scene, following.strip, frames)
    following.shown, following.rested, following.strip_problem = len(frames), 0, ""
    _note_place(following, entry, blender_scene, is_new)


def _note_place(following: Following, entry: EX4D_Take, blender_scene: bpy.types.Scene, is_new: bool) -> None:
    """A take whose strip has just appeared is seen instead of its shot's other takes."""
    if find_strip(blender_scene, following.take.key) is None:
        return
    following.placed = True
    if is_new:
        show_version(blender_scene, entry)


def _set(owner: EX4D_Take | bpy.types.Strip, name: str, value: object) -> None:
    """Writing a property tells all of Blender, so write only what changes."""
    if getattr(owner, name) != value:
        setattr(owner, name, value)
