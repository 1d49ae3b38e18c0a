"""Side bar: cameras of shots."""

from __future__ import annotations

import bpy

from ..connection.panel import CATEGORY
from .operators import EX4D_OT_add_camera


class EX4D_PT_camera(bpy.types.Panel):
    bl_label = "Camera"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY
    bl_order = 2

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator_menu_enum(EX4D_OT_add_camera.bl_idname, "preset", text="Add Camera Move", icon="CAMERA_DATA")
        layout.prop(context.scene.ex4d_shot, "camera")


CLASSES = (EX4D_PT_camera,)
