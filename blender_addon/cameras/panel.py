"""Side bar: camera moves to start a shot from."""

from __future__ import annotations

import bpy

from ..connection.panel import CATEGORY
from ..scenes.link import active_scene_object
from .operators import EX4D_OT_add_camera, EX4D_OT_camera_to_view
from .saved import EX4D_MT_saved_moves


class EX4D_PT_camera(bpy.types.Panel):
    bl_label = "Camera"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY
    bl_order = 2

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        row = layout.row(align=True)
        if active_scene_object(context) is None:
            # A menu is never grey; a button is, and says why.
            row.operator(EX4D_OT_add_camera.bl_idname, icon="CAMERA_DATA")
        else:
            row.operator_menu_enum(EX4D_OT_add_camera.bl_idname, "preset", text="Add Camera Move", icon="CAMERA_DATA")
        row.menu(EX4D_MT_saved_moves.__name__, text="", icon="PRESET")
        layout.operator(EX4D_OT_camera_to_view.bl_idname, icon="VIEW_CAMERA")


class BelowCamera:
    """A panel below Camera that follows the camera while the box in its header is ticked.

    Attributes:
        settings: name of the group in Scene whose ``live`` that box is.
    """

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY
    bl_parent_id = EX4D_PT_camera.__name__
    settings: str

    def draw_header(self, context: bpy.types.Context) -> None:
        self.layout.prop(getattr(context.scene, self.settings), "live", text="")


CLASSES = (EX4D_PT_camera,)
