"""Side bar: the imported scene."""

from __future__ import annotations

import bpy

from ..connection.panel import CATEGORY
from .link import active_scene_object
from .operators import EX4D_OT_import_scene, EX4D_OT_match_view


class EX4D_PT_scene(bpy.types.Panel):
    bl_label = "Scene"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY
    bl_order = 1

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        imported = active_scene_object(context)
        if imported is not None:
            link = imported.ex4d_scene
            column = layout.column(align=True)
            column.label(text=imported.name, icon="MESH_GRID")
            column.label(text=f"Frames {link.frame_start} to {link.frame_start + link.frames - 1}", icon="BLANK1")
            layout.operator(EX4D_OT_match_view.bl_idname, icon="COLOR")
        layout.operator(EX4D_OT_import_scene.bl_idname, text="Import Scene", icon="IMPORT")


CLASSES = (EX4D_PT_scene,)
