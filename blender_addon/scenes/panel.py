"""Sidebar: the imported scene, its scale and its ground."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as mark_

from ..blender_types import Context, Panel, SidebarPanel
from ..connection.panel import draw_text
from .link import active_scene_object, chosen_scene_object, link_of
from .matching import EX4D_OT_keep_settings, EX4D_OT_match_footage, differences, is_asked
from .operators import EX4D_OT_import_scene, EX4D_OT_match_view, is_matched
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
