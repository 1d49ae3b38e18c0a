"""Sidebar: camera moves to start a shot from."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.trajectories import is_degrees

from ..blender_types import Context, Panel, SidebarPanel
from ..connection.panel import draw_text
from ..scenes.link import active_scene_object
from ..shots.properties import active_shot
from .moves import EX4D_Move, EX4D_OT_reset_move, has_edited_keys, measure_of, move_of
from .operators import EX4D_OT_add_camera, EX4D_OT_camera_to_view
from .saved_moves import EX4D_MT_saved_moves


class EX4D_PT_camera(SidebarPanel, Panel):
    """Buttons that add cameras."""

    bl_label = "Camera"
    bl_order = 2

    def draw(self, context: Context) -> None:
        layout = self.layout
        row = layout.row(align=True)
        if active_scene_object(context) is None:
            # A menu is never disabled; a button is, and says why.
            row.operator(EX4D_OT_add_camera.bl_idname, text="Add Move", icon="CAMERA_DATA")
        else:
            row.operator_menu_enum(EX4D_OT_add_camera.bl_idname, "preset", text="Add Move", icon="CAMERA_DATA")
        row.menu(EX4D_MT_saved_moves.__name__, text="", icon="PRESET")
        layout.operator(EX4D_OT_camera_to_view.bl_idname, icon="VIEW_CAMERA")
        layout.prop(context.scene.ex4d_path, "show")
        camera = active_shot(context.scene).camera
        if (move := move_of(camera)) is not None and camera is not None:
            _draw_move(layout.column(), camera, move, context)


def _draw_move(
    layout: bpy.types.UILayout, camera: bpy.types.Object, move: EX4D_Move, context: bpy.types.Context
) -> None:
    """The amounts of the shot's move, as long as its keys are those that it was made with."""
    edited = has_edited_keys(camera)
    column = layout.column(align=True)
    column.active = not edited
    measure = measure_of(move)
    if measure or not is_degrees(move.preset):
        column.prop(move, {"ANGLE": "angle", "DISTANCE": "reach", "": "amount"}[measure])
    if measure == "ANGLE":
        column.prop(move, "elevation")
    column.prop(move, "easing", text="")
    if edited:
        draw_text(layout, iface_("The keys of {camera} were edited").format(camera=camera.name), context, "INFO")
        layout.operator(EX4D_OT_reset_move.bl_idname, icon="LOOP_BACK").camera = camera.name
    if move.problem:
        draw_text(layout, move.problem, context, "ERROR")


class BelowCamera(SidebarPanel):
    """A panel below Camera that updates with the camera while the checkbox in its header is on.

    Attributes:
        settings: the scene's property group whose ``live`` is that checkbox.
    """

    bl_parent_id = EX4D_PT_camera.__name__
    settings: str

    def draw_header(self, context: Context) -> None:
        self.layout.prop(getattr(context.scene, self.settings), "live", text="")


CLASSES = (EX4D_PT_camera,)
