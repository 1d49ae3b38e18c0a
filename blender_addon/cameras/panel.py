"""Sidebar: camera moves to start a shot from."""

from __future__ import annotations

from ..blender_types import Context, Panel, SidebarPanel
from ..scenes.link import active_scene_object
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
