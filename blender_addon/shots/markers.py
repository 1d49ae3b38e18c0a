"""Makes shots of the markers that switch cameras, and adds that to the menus of markers."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_rpt as report_

from ..blender_types import BlenderScene, Context, Operator
from ..cameras.cuts import Cut, camera_markers, cuts_by_markers
from ..takes.requests import whole_range
from .objects import shot_objects
from .properties import EX4D_Shot, active_shot, add_shot, free_label, listed_shot

# In Blender 4 the timeline has a menu of its own.
_MARKER_MENUS = ("TIME_MT_marker", "DOPESHEET_MT_marker")


class EX4D_OT_shots_from_markers(Operator):
    """Make a shot of each marker that switches cameras, up to the next one; shots that it made before are updated."""

    bl_idname = "ex4d.shots_from_markers"
    bl_label = "Shots from Markers"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not camera_markers(context.scene):
            cls.poll_message_set(iface_("No marker has a camera; use Marker > Bind Camera to Markers first"))
            return False
        return True

    def execute(self, context: Context) -> set[str]:
        scene = context.scene
        cuts = cuts_by_markers(scene, *_whole_range(context))
        if not cuts:
            self.report({"WARNING"}, report_("No frames to shoot; the scene's frame range does not meet the footage"))
            return {"CANCELLED"}
        for cut in cuts:
            set_up_shot(scene, cut)
        now = scene.frame_current
        shown = next((cut for cut in cuts if cut.frame_start <= now <= cut.frame_end), cuts[0])
        scene.ex4d_shot_index = list(scene.ex4d_shots).index(shot_of(scene, shown))
        return {"FINISHED"}


def set_up_shot(blender_scene: BlenderScene, cut: Cut) -> None:
    """Give a cut's shot its range; a new cut gets a new shot."""
    shot = shot_of(blender_scene, cut)
    if shot is None:
        if not blender_scene.ex4d_shots and active_shot(blender_scene).camera is not None:
            listed_shot(blender_scene)  # the shot that was set up so far is the first
        shot = add_shot(blender_scene, cut.camera)
        if cut.name:
            shot.label = free_label(blender_scene, cut.name, besides=shot)
        shot.marker = cut.name
    shot.use_range, shot.frame_start, shot.frame_end = True, cut.frame_start, cut.frame_end


def shot_of(blender_scene: BlenderScene, cut: Cut) -> EX4D_Shot | None:
    """The shot that was made of a cut's marker."""
    made = (shot for shot in blender_scene.ex4d_shots if shot.marker and shot.marker == cut.name)
    return next((shot for shot in made if shot.camera == cut.camera), None)


def _whole_range(context: Context) -> tuple[int, int]:
    """The frames that scene and footage have in common, or the scene's without footage."""
    scene_object, _ = shot_objects(context)
    if scene_object is None:
        return context.scene.frame_start, context.scene.frame_end
    return whole_range(context.scene, scene_object)


def _draw_in_menu(menu: Any, _: bpy.types.Context) -> None:
    menu.layout.separator()
    menu.layout.operator(EX4D_OT_shots_from_markers.bl_idname, icon="VIEW_CAMERA")


CLASSES = (EX4D_OT_shots_from_markers,)
MENUS = tuple((name, _draw_in_menu) for name in _MARKER_MENUS if hasattr(bpy.types, name))
