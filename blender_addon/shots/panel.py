"""Sidebar: the list of shots, and the active shot's camera and frame range."""

from __future__ import annotations

from typing import Any

import bpy

from ..blender_types import Context, Menu, Panel, SidebarPanel, UIList
from ..cameras.stereo import takes_both_eyes
from ..connection.panel import draw_text
from ..scenes.link import link_of
from .camera_mismatch import draw_camera_mismatch
from .markers import EX4D_OT_shots_from_markers
from .objects import shot_objects
from .occlusion import meaning_of
from .operators import EX4D_OT_add_shot, EX4D_OT_duplicate_shot, EX4D_OT_move_shot, EX4D_OT_remove_shot
from .properties import EX4D_Shot, active_shot, label_for


class EX4D_UL_shots(UIList):
    """The list of shots."""

    def draw_item(
        self,
        context: Context,
        layout: bpy.types.UILayout,
        data: Any,
        item: EX4D_Shot,
        icon: int,
        active_data: Any,
        active_property: str,
    ) -> None:
        row = layout.row(align=True)
        row.prop(item, "label", text="", emboss=False, icon=_icon_of(item))
        if item.camera and label_for(item.camera) != item.label:
            camera = row.row()
            camera.alignment = "RIGHT"
            camera.label(text=item.camera.name, translate=False)


def _icon_of(shot: EX4D_Shot) -> Any:
    if shot.use_active_camera:
        return "LINKED"
    return "VIEW_CAMERA" if shot.camera else "ERROR"


class EX4D_MT_shots(Menu):
    """More operators on shots."""

    bl_label = "Shot Specials"
    bl_description = "More operations on shots"

    def draw(self, context: Context) -> None:
        self.layout.operator(EX4D_OT_shots_from_markers.bl_idname, icon="MARKER")
        self.layout.operator(EX4D_OT_duplicate_shot.bl_idname, icon="DUPLICATE")
        self.layout.operator(EX4D_OT_move_shot.bl_idname, text="Move Up", icon="TRIA_UP").direction = "UP"
        self.layout.operator(EX4D_OT_move_shot.bl_idname, text="Move Down", icon="TRIA_DOWN").direction = "DOWN"
        self.layout.separator()
        self.layout.operator("ex4d.send_to_farm", icon="EXPORT")


class EX4D_PT_shots(SidebarPanel, Panel):
    """The shots of the scene."""

    bl_label = "Shots"
    bl_order = 3

    def draw(self, context: Context) -> None:
        layout, scene = self.layout, context.scene
        row = layout.row()
        row.template_list(EX4D_UL_shots.__name__, "", scene, "ex4d_shots", scene, "ex4d_shot_index", rows=3)
        column = row.column(align=True)
        column.operator(EX4D_OT_add_shot.bl_idname, text="", icon="ADD")
        column.operator(EX4D_OT_remove_shot.bl_idname, text="", icon="REMOVE")
        column.menu(EX4D_MT_shots.__name__, text="", icon="DOWNARROW_HLT")
        shot = active_shot(scene)
        layout.use_property_split = True
        layout.use_property_decorate = False
        # As wide as the sidebar, which may be narrow.
        wide = layout.column()
        wide.use_property_split = False
        wide.prop(scene if shot.use_active_camera else shot, "camera", text="")
        wide.prop(shot, "use_active_camera")
        draw_camera_mismatch(wide, context)
        wide.prop(shot, "use_range")
        if shot.use_range:
            column = layout.column(align=True)
            column.prop(shot, "frame_start", text="Start")
            column.prop(shot, "frame_end", text="End")
        wide = layout.column(align=True)
        wide.use_property_split = False
        wide.label(text="Occlusion")
        wide.prop(shot, "occlusion", text="")
        scene_object, _ = shot_objects(context)
        convention = link_of(scene_object).convention if scene_object is not None else ""
        draw_text(layout, meaning_of(shot.occlusion, convention), context)
        if convention != "reference":
            layout.prop(shot, "memory")
        samples = layout.row()
        samples.active = convention != "reference"  # which has its own antialiasing
        samples.prop(shot, "samples")
        if takes_both_eyes(scene.render):
            layout.label(text="Stereo: Both Eyes, Side by Side", icon="CAMERA_STEREO")


CLASSES = (EX4D_UL_shots, EX4D_MT_shots, EX4D_PT_shots)
