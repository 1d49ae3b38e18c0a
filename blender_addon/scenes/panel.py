"""Sidebar: the imported scene, its scale and its ground."""

from __future__ import annotations

import math

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as mark_

from ..blender_types import Context, Panel, SidebarPanel
from ..connection.panel import draw_text
from .enclosing import enclosing_objects
from .link import EX4D_SceneLink, active_scene_object, chosen_scene_object, is_assumed, link_of
from .matching import EX4D_OT_keep_settings, EX4D_OT_match_footage, differences, is_asked
from .missing import missing_scenes, missing_text
from .operators import (
    EX4D_OT_hide_enclosing,
    EX4D_OT_import_scene,
    EX4D_OT_look_through_source,
    EX4D_OT_match_view,
    EX4D_OT_show_hidden,
    is_matched,
)
from .placement import eye_of
from .placement_operators import (
    EX4D_OT_align_ground,
    EX4D_OT_pick_ground,
    EX4D_OT_pick_scale,
    EX4D_OT_reset_placement,
    EX4D_OT_set_scale,
)


class EX4D_PT_scene(SidebarPanel, Panel):
    """The imported scene that is chosen."""

    bl_label = "Scene"
    bl_order = 1

    def draw(self, context: Context) -> None:
        layout = self.layout
        imported = active_scene_object(context)
        if imported is not None:
            link = link_of(imported)
            column = layout.column(align=True)
            column.label(text=imported.name, icon="MESH_GRID", translate=False)
            frames = iface_("Frames {first} to {last}")
            last = link.frame_start + link.frames - 1
            column.label(text=frames.format(first=link.frame_start, last=last), icon="BLANK1", translate=False)
            _draw_missing(layout, imported, context)
            _draw_lens(layout, link, context)
            row = layout.row(align=True)
            row.operator(EX4D_OT_look_through_source.bl_idname, text="Look Through", icon="VIEW_CAMERA")
            row.prop(context.scene, "ex4d_viewports", text="", icon="WORKSPACE")
            _draw_enclosing(layout, imported, context)
            layout.prop(link, "unseen_color")
            if is_asked(link) and (different := differences(context.scene, imported)):
                box = layout.box().column(align=True)
                draw_text(box, mark_("This Blender scene differs from the footage:"), context, "QUESTION")
                for one in different:
                    draw_text(box, str(one), context)
                row = box.row(align=True)
                row.operator(EX4D_OT_match_footage.bl_idname)
                row.operator(EX4D_OT_keep_settings.bl_idname)
            if not is_matched(imported, context.scene):
                layout.operator(EX4D_OT_match_view.bl_idname, icon="COLOR")
        row = layout.row(align=True)
        row.operator(EX4D_OT_import_scene.bl_idname, text="Import Scene", icon="IMPORT")
        if imported is not None:
            row.operator("ex4d.delete_scene_files", text="", icon="TRASH")


def _draw_missing(layout: bpy.types.UILayout, imported: bpy.types.Object, context: Context) -> None:
    """Say that the scene's folder is missing, with the ways to find it."""
    if missing_scenes.folder_of(imported) is None:
        return
    draw_text(layout, missing_text(imported), context, "ERROR")
    column = layout.column(align=True)
    column.operator("ex4d.relink_scene", icon="FILE_FOLDER")
    column.operator("file.find_missing_files", icon="VIEWZOOM")


def _draw_lens(layout: bpy.types.UILayout, link: EX4D_SceneLink, context: Context) -> None:
    """The source camera's lens, and whether it was assumed."""
    camera = link.source_camera
    if camera is None or not isinstance(camera.data, bpy.types.Camera):
        return
    text = iface_("Lens: {degrees}°, {focal} mm on {sensor} mm")
    text = text.format(
        degrees=f"{math.degrees(camera.data.angle_x):.1f}",
        focal=f"{camera.data.lens:.1f}",
        sensor=f"{camera.data.sensor_width:g}",
    )
    draw_text(layout, text, context)
    if is_assumed(link.lens_origin):
        draw_text(layout, "The lens is assumed: set it if depth looks stretched or flat", context, "ERROR")
    if link.camera_notes:
        draw_text(layout, link.camera_notes, context, "INFO")
    row = layout.row(align=True)
    row.operator("ex4d.set_lens", text="Set Lens", icon="CAMERA_DATA")
    row.operator("ex4d.set_motion_mask", text="", icon="MOD_MASK")


def _draw_enclosing(layout: bpy.types.UILayout, imported: bpy.types.Object, context: Context) -> None:
    """What keeps the source camera from seeing the footage, or did so until it was hidden."""
    link, enclosing = link_of(imported), enclosing_objects(context, imported)
    if enclosing:
        text = iface_("{names} encloses the source camera, which sees no footage")
        draw_text(layout, text.format(names=", ".join(one.name for one in enclosing)), context, "ERROR")
        layout.operator(EX4D_OT_hide_enclosing.bl_idname, text="Hide", icon="HIDE_ON")
    hidden = link.hidden_object
    if hidden is not None and hidden.name in context.view_layer.objects and hidden.hide_get():
        text = iface_("{name} is hidden, since it encloses the source camera").format(name=hidden.name)
        draw_text(layout, text, context, "INFO")
        layout.operator(EX4D_OT_show_hidden.bl_idname, text="Show", icon="HIDE_OFF")


class EX4D_PT_placement(SidebarPanel, Panel):
    """Buttons that scale the scene and align it to the ground."""

    bl_label = "Scale and Ground"
    bl_parent_id = EX4D_PT_scene.__name__
    bl_order = 1
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return active_scene_object(context) is not None

    def draw(self, context: Context) -> None:
        layout = self.layout
        units = context.scene.unit_settings
        height = bpy.utils.units.to_string(
            units.system if units.system != "NONE" else "METRIC",
            "LENGTH",
            float(eye_of(chosen_scene_object(context))[2]) * units.scale_length,
            precision=2,
        )
        layout.label(text=iface_("Camera Height: {height}").format(height=height), translate=False)
        row = layout.row(align=True)
        row.operator(EX4D_OT_align_ground.bl_idname, text="Find Ground", icon="MOD_PHYSICS")
        row.operator(EX4D_OT_pick_ground.bl_idname, text="", icon="EYEDROPPER")
        row = layout.row(align=True)
        row.operator(EX4D_OT_set_scale.bl_idname, text="Scale", icon="FULLSCREEN_ENTER").method = "FACTOR"
        row.operator(EX4D_OT_pick_scale.bl_idname, text="", icon="EYEDROPPER")
        layout.operator(EX4D_OT_reset_placement.bl_idname, icon="LOOP_BACK")


CLASSES = (EX4D_PT_scene, EX4D_PT_placement)
