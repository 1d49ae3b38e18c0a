"""Notices scene folders that are missing, as after a move, and says so in viewports and panels.

Blender shows a missing image in magenta, which is also the default colour of areas that the footage did not see. So a
mesh whose footage is missing is drawn over in gray in Solid view, a gray node stands in for the footage in its
materials, for renders (see `stand_in`), and a line of text says what is missing.
"""

from __future__ import annotations

from pathlib import Path

import blf
import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import MANIFEST, SceneError

from ..blender_types import Context, current_context
from ..connection.session import session
from ..paths import to_blend
from ..scheduler import scheduler
from .link import folders_of, images_of, is_scene_object, link_of
from .stand_in import is_outdated, update_stand_ins

# Asking for a file takes microseconds; the folder may be on a network drive, though, so it is not asked for often.
_LOOK_SECONDS = 0.0005
_TICKS_BETWEEN = 20
_FONT, _LINE, _MARGIN = 0, 16, 20

_handler: object | None = None


class MissingScenes:
    """The imported scenes of the open file whose folder is missing.

    Attributes:
        folders: where each was, by the object's ``session_uid``.
    """

    def __init__(self) -> None:
        """Start with a file that was just opened."""
        self.reset()

    def reset(self) -> None:
        """Know nothing, and look in the next tick."""
        self.folders: dict[int, Path] = {}
        self._ticks = 0

    def step(self) -> None:
        """Look again from time to time; the scheduler calls it in every tick."""
        if self._ticks <= 0:
            self._ticks = _TICKS_BETWEEN
            self.look()
        self._ticks -= 1

    def look(self) -> None:
        """Find out which scenes are missing; a scene that Blender's Find Missing Files has found is linked again."""
        before, self.folders = self.folders, {}
        for one in bpy.data.objects:
            if not is_scene_object(one):
                continue
            there = [folder for folder in folders_of(one) if (folder / MANIFEST).is_file()]
            if not there:
                self.folders[one.session_uid] = folders_of(one)[0]
            elif there[0] != folders_of(one)[0] and one.library is None:
                scheduler.run_when_idle(self.link_found)
        if self.folders != before:
            session().redraw()
            if before.keys() - self.folders.keys():
                scheduler.run_when_idle(reload_footage)
        if any(map(is_outdated, _scene_objects())):
            scheduler.run_when_idle(stand_in_for_footage)

    def link_found(self) -> None:
        """Let the scenes whose files were found elsewhere be linked to their folder there."""
        for one in bpy.data.objects:
            if not is_scene_object(one) or one.library is not None or (folders_of(one)[0] / MANIFEST).is_file():
                continue
            for folder in folders_of(one)[1:]:
                if is_package_of(one, folder):
                    link_of(one).folder = to_blend(folder)

    def folder_of(self, scene_object: bpy.types.Object) -> Path | None:
        """Where the missing folder of an imported scene was; None if it is there."""
        return self.folders.get(scene_object.session_uid)


missing_scenes = MissingScenes()


def _scene_objects() -> list[bpy.types.Object]:
    """The imported scenes of the open file, in all of its Blender scenes."""
    return [one for one in bpy.data.objects if is_scene_object(one)]


def reload_footage() -> None:
    """Read the footage of all scenes that are there again: Blender remembers that a movie could not be read."""
    for one in _scene_objects():
        if missing_scenes.folder_of(one) is None:
            for image in images_of(one):
                image.reload()
            one.update_tag()  # its positions are files, too
    stand_in_for_footage()


def stand_in_for_footage() -> None:
    """Let materials render gray where their footage is missing, and their footage where it is there again."""
    for one in _scene_objects():
        update_stand_ins(one)


def is_package_of(scene_object: bpy.types.Object, folder: Path) -> bool:
    """Whether a folder holds the very package that an imported scene shows."""
    try:
        return Scene.open(folder).digest == link_of(scene_object).digest
    except SceneError:
        return False


def missing_text(scene_object: bpy.types.Object) -> str:
    """What to say of a scene whose folder is missing."""
    text = iface_("The footage of {name} is missing: its folder {folder} was moved or deleted")
    return text.format(name=scene_object.name, folder=missing_scenes.folder_of(scene_object))


def _draw() -> None:
    context: Context = current_context()
    if not missing_scenes.folders:
        return
    scale = context.preferences.system.ui_scale
    blf.size(_FONT, 12 * scale)
    blf.color(_FONT, 1.0, 1.0, 1.0, 1.0)
    line = 0
    for one in context.view_layer.objects:
        if missing_scenes.folder_of(one) is not None:
            text = iface_("Footage of {name} missing: Relink Scene in the EX-4D tab").format(name=one.name)
            blf.position(_FONT, _MARGIN * scale, (_MARGIN + line * _LINE) * scale, 0)
            blf.draw(_FONT, text)
            line += 1


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    missing_scenes.reset()
    if bpy.app.background:  # there are no ticks before a file is rendered
        stand_in_for_footage()


HANDLERS = (("load_post", _after_load),)


def register() -> None:
    """Look in every tick, and draw in 3D viewports."""
    global _handler
    missing_scenes.reset()
    scheduler.every_tick(missing_scenes.step, _LOOK_SECONDS)
    if not bpy.app.background:
        _handler = bpy.types.SpaceView3D.draw_handler_add(_draw, (), "WINDOW", "POST_PIXEL")


def unregister() -> None:
    """Stop drawing."""
    global _handler
    if _handler is not None:
        bpy.types.SpaceView3D.draw_handler_remove(_handler, "WINDOW")
        _handler = None
