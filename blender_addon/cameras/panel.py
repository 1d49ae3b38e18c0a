"""Sidebar: camera moves to start a shot from."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.errors import RequestError
from ex4d_core.trajectories import has_pivot, is_degrees

from ..blender_types import Context, Panel, SidebarPanel
from ..connection.panel import draw_text
from ..scenes.link import active_scene_object
from ..shots.properties import active_shot
from .moves import EX4D_Move, EX4D_OT_move_around_pivot, EX4D_OT_reset_move, has_edited_keys, measure_of, move_of
from .operators import EX4D_OT_add_camera, EX4D_OT_camera_to_view
from .pivots import OBJECT, EX4D_OT_pick_pivot, pivot_of, pivot_settings
from .saved_moves import EX4D_MT_saved_moves


class EX4D_PT_camera(SidebarPanel, Panel):
    """Buttons that add cameras."""

    bl_label = "Camera"
    bl_order = 2

    def draw(self, context: Context) -> None:
        layout = self.layout
        row = layout.row(align=True)
        scene_object = active_scene_object(context)
        if scene_object is None:
            # A menu is never disabled; a button is, and says why.
            row.operator(EX4D_OT_add_camera.bl_idname, text="Add Move", icon="CAMERA_DATA")
        else:
            row.operator_menu_enum(EX4D_OT_add_camera.bl_idname, "preset", text="Add Move", icon="CAMERA_DATA")
        row.menu(EX4D_MT_saved_moves.__name__, text="", icon="PRESET")
        layout.operator(EX4D_OT_camera_to_view.bl_idname, icon="VIEW_CAMERA")
        if scene_object is not None:
            _draw_pivot(layout.column(), scene_object, context)
        layout.prop(context.scene.ex4d_path, "show")
        camera = active_shot(context.scene).camera
        if (move := move_of(camera)) is not None and camera is not None:
            _draw_move(layout.column(), camera, move, context)


def _draw_pivot(layout: bpy.types.UILayout, scene_object: bpy.types.Object, context: Context) -> None:
    """What new moves are about, and what is wrong with it."""
    pivot = pivot_settings(scene_object)
    row = layout.split(factor=0.3, align=True)
    row.label(text="Pivot")
    row = row.row(align=True)
    row.prop(pivot, "kind", text="")
    row.operator(EX4D_OT_pick_pivot.bl_idname, text="", icon="EYEDROPPER")
    if pivot.kind == OBJECT:
        layout.prop(pivot, "target", text="")
    try:
        pivot_of(scene_object, context)
    except RequestError as error:
        draw_text(layout, str(error), context, "ERROR")


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
    if has_pivot(move.preset):
        column.operator(EX4D_OT_move_around_pivot.bl_idname, icon="PIVOT_CURSOR").camera = camera.name
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
