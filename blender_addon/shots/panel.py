"""Side bar: the scene's shots, and the active one's camera and frames."""

from __future__ import annotations

import bpy

from ..connection.panel import CATEGORY, draw_text
from .objects import note_on_camera
from .operators import EX4D_OT_add_shot, EX4D_OT_duplicate_shot, EX4D_OT_move_shot, EX4D_OT_remove_shot
from .properties import EX4D_Shot, active_shot, label_for


class EX4D_UL_shots(bpy.types.UIList):
    def draw_item(self, context, layout, data, item: EX4D_Shot, icon, active_data, active_property, index) -> None:
        row = layout.row(align=True)
        row.prop(item, "label", text="", emboss=False, icon="VIEW_CAMERA" if item.camera else "ERROR")
        if item.camera and label_for(item.camera) != item.label:
            camera = row.row()
            camera.alignment = "RIGHT"
            camera.label(text=item.camera.name, translate=False)


class EX4D_MT_shots(bpy.types.Menu):
    bl_label = "Shots"
    bl_description = "More to do with shots"

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.operator(EX4D_OT_duplicate_shot.bl_idname, icon="DUPLICATE")
        self.layout.operator(EX4D_OT_move_shot.bl_idname, text="Move Up", icon="TRIA_UP").direction = "UP"
        self.layout.operator(EX4D_OT_move_shot.bl_idname, text="Move Down", icon="TRIA_DOWN").direction = "DOWN"


class EX4D_PT_shots(bpy.types.Panel):
    bl_label = "Shots"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY
    bl_order = 3

    def draw(self, context: bpy.types.Context) -> None:
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
        layout.prop(shot, "camera")
        if text := note_on_camera(context):
            draw_text(layout, text, context, "ERROR")
        layout.prop(shot, "use_range")
        if shot.use_range:
            column = layout.column(align=True)
            column.prop(shot, "frame_start")
            column.prop(shot, "frame_end", text="Last")


CLASSES = (EX4D_UL_shots, EX4D_MT_shots, EX4D_PT_shots)
