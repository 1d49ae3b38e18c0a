"""Reconstructions under way: start, follow with every tick, cancel, resume, and import the scene at the end.

As with takes, the truth is in `ex4d_core.reconstruction.Reconstruction` while Blender runs, and each tick copies what
changed into ``Scene.ex4d_reconstructions``. Importing takes longer than a tick may, so it has a timer of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import bpy

from ex4d_core.messages import FINAL_STATES
from ex4d_core.reconstruction import Reconstruction, ReconstructionPlan
from ex4d_core.scene import SceneError

from ..connection.errands import Errand, home_of, note_change, own_scenes
from ..connection.failures import contained
from ..connection.session import session
from ..paths import from_blend, to_blend
from ..scenes.importing import import_scene
from .properties import EX4D_Reconstruction, find_reconstruction
from .sources import FootageError, new_scene_folder, plan_from_text, plan_to_text

SENDING, STOPPED, IMPORTED = "sending", "stopped", "imported"
OVER = (*(state for state in FINAL_STATES if state != "done"), STOPPED, IMPORTED)


@dataclass
class Following:
    """A reconstruction that is being followed, or was until its end, by its errand over the wire.

    Attributes:
        home: ``session_uid`` of the Blender scene that lists it (see `home_of`); 0 before it is listed.
        label, plan: as its entry says.
        imported: its scene has been imported.
    """

    made: Reconstruction
    errand: Errand
    home: int = 0
    label: str = ""
    plan: str = ""
    imported: bool = False

    @property
    def over(self) -> bool:
        """Nothing more will arrive."""
        return self.errand.over


_following: dict[str, Following] = {}


def start_reconstruction(plan: ReconstructionPlan, blender_scene: bpy.types.Scene) -> EX4D_Reconstruction:
    """Send footage and depth to the backend and follow what becomes of it; works while no backend answers, too.

    Raises:
        OSError: the folder for scenes cannot be made.
    """
    made = Reconstruction(new_scene_folder(plan.settings.name))
    entry = _add_entry(blender_scene, made, plan.settings.name, plan_to_text(plan))
    _follow_one(_follow(made, plan))
    return entry


def resume_reconstructions() -> None:
    """Go on with every reconstruction of the open file that is not over and not being followed."""
    for blender_scene in own_scenes():
        for entry in blender_scene.ex4d_reconstructions:
            if entry.state == "done":
                _import_soon()
            elif entry.cancelling or entry.state not in OVER:
                with contained():
                    resume_reconstruction(entry)


def resume_reconstruction(entry: EX4D_Reconstruction) -> None:
    """Go on with one that is not over; its entry says why, if that is impossible."""
    if is_followed(entry):
        return
    try:
        plan = None if entry.job or entry.cancelling else plan_from_text(entry.plan)
    except FootageError as error:
        entry.state, entry.reason = STOPPED, str(error)
        return
    known = {"key": entry.key, "job": entry.job, "last_event": entry.last_event}
    made = Reconstruction(from_blend(entry.folder), submitted=True, **known)  # as far as anybody knows
    entry.reason = ""
    if entry.job or not entry.cancelling:
        entry.state = "running" if entry.job else SENDING
    _following.pop(entry.key, None)
    _follow(made, plan, cancelling=entry.cancelling)


def cancel_reconstruction(entry: EX4D_Reconstruction) -> None:
    """Stop the backend's job, or the sending of it."""
    following = _following.get(entry.key)
    if following is None or following.over:
        return
    following.errand.cancel()
    if following.errand.withdrawn:
        following.made.discard()
    _show(following, entry)


def forget_reconstruction(blender_scene: bpy.types.Scene, entry: EX4D_Reconstruction) -> None:
    """Take one out of the list; the scene that came of it stays."""
    following = _following.pop(entry.key, None)
    if following is not None:
        following.errand.abandon()
    blender_scene.ex4d_reconstructions.remove(list(blender_scene.ex4d_reconstructions).index(entry))


def is_followed(entry: EX4D_Reconstruction) -> bool:
    """Whether it is under way in this Blender."""
    return entry.key in _following and not _following[entry.key].over


def follow_all() -> None:
    """Bring every entry in step; the session calls it once per tick."""
    for following in list(_following.values()):
        if not following.over:
            with contained():
                _follow_one(following)


def restore_all() -> None:
    """Bring the open file in step after an undo, or when the add-on was enabled; the session calls it."""
    for following in list(_following.values()):
        with contained():
            _restore(following)
    resume_reconstructions()


def import_finished() -> None:
    """Import every scene that has arrived whole; a timer calls it, and where timers do not run, the caller does."""
    for blender_scene in own_scenes():
        for entry in blender_scene.ex4d_reconstructions:
            if entry.state == "done":
                _import(blender_scene, entry)


def _follow(made: Reconstruction, plan: ReconstructionPlan | None, *, cancelling: bool = False) -> Following:
    errand = Errand(made, partial(made.conversation, plan), cancelling, withdrawn=cancelling and not made.job)
    return _following.setdefault(made.key, Following(made, errand))


def _follow_one(following: Following) -> None:
    following.errand.go_on()
    found = find_reconstruction(following.made.key)
    if found is not None:
        blender_scene, entry = found
        following.home, following.label, following.plan = blender_scene.session_uid, entry.label, entry.plan
        _show(following, entry)


def _add_entry(blender_scene: bpy.types.Scene, made: Reconstruction, label: str, plan: str) -> EX4D_Reconstruction:
    entry = blender_scene.ex4d_reconstructions.add()
    entry.label = entry.name = label
    entry.key, entry.folder, entry.plan = made.key, to_blend(made.folder), plan
    return entry


def _restore(following: Following) -> None:
    """Undo goes back to an older entry, or to none; what has happened since has happened all the same."""
    found = find_reconstruction(following.made.key)
    home = home_of(following.home)
    if found is None and home is None:
        return
    entry = found[1] if found else _add_entry(home, following.made, following.label, following.plan)
    if entry.state == IMPORTED:
        return
    _show(following, entry)
    if following.imported:
        entry.state, entry.reason = STOPPED, "its import was undone; Go On imports it again"


def _show(following: Following, entry: EX4D_Reconstruction) -> None:
    made, errand = following.made, following.errand
    state, stage, progress, reason = entry.state, entry.stage, entry.progress, entry.reason
    if errand.withdrawn:
        state, reason = "cancelled", ""
    elif errand.error is not None:
        state, reason = STOPPED, str(errand.error)
    elif made.status is None and not made.job:
        # Hashing first, and then sending what the backend lacks.
        if made.upload_size:
            stage, progress = "sending", made.progress
        else:
            stage, progress = "reading", made.hashed / made.hash_size if made.hash_size else 0.0
    elif made.status is not None:
        status = made.status
        fetching = status.state in FINAL_STATES and not following.over
        state = "running" if fetching else status.state
        stage = "fetching" if fetching else status.stage
        progress = made.progress
        reason = status.reason
    values = {"job": made.job, "state": state, "stage": stage, "progress": progress, "reason": reason}
    values |= {"last_event": made.last_event, "cancelling": errand.cancelling and not errand.over}
    for name, value in values.items():
        # Writing a property tells all of Blender, so write only what changes.
        if getattr(entry, name) != value and not (name == "progress" and abs(entry.progress - value) < 1e-3):
            setattr(entry, name, value)
            session().redraw()
    arrived = following.over and state == "done" and not following.imported
    if arrived:
        _import_soon()


def _import_soon() -> None:
    if not bpy.app.timers.is_registered(_import_timer):
        bpy.app.timers.register(_import_timer, first_interval=0.0)


def _import_timer() -> None:
    with contained():
        import_finished()


def _import(blender_scene: bpy.types.Scene, entry: EX4D_Reconstruction) -> None:
    try:
        with bpy.context.temp_override(scene=blender_scene, view_layer=blender_scene.view_layers[0]):
            imported = import_scene(from_blend(entry.folder))
    except SceneError as error:
        entry.state, entry.reason = STOPPED, str(error)
        return
    entry.state, entry.progress = IMPORTED, 1.0
    if entry.key in _following:
        _following[entry.key].imported = True
    blender_scene.ex4d_shot.scene_object = imported
    note_change("Import EX-4D Scene")


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    for key, following in list(_following.items()):
        if following.over:
            del _following[key]
    resume_reconstructions()


def register() -> None:
    session().followers.append(follow_all)
    session().restorers.append(restore_all)
    bpy.app.handlers.load_post.append(_after_load)


def unregister() -> None:
    bpy.app.handlers.load_post.remove(_after_load)
    session().restorers.remove(restore_all)
    session().followers.remove(follow_all)
    if bpy.app.timers.is_registered(_import_timer):
        bpy.app.timers.unregister(_import_timer)
    _following.clear()
