"""The pie menu of 3D viewports: what a shot needs, within one stroke of the mouse."""

from __future__ import annotations

from ..blender_types import Context, Menu
from ..cameras.operators import EX4D_OT_add_camera, EX4D_OT_camera_to_view
from ..scenes.link import active_scene_object
from ..scenes.operators import EX4D_OT_look_through_source
from ..shots.camera_mismatch import EX4D_OT_look_through_shot
from ..takes.operators import EX4D_OT_send_final, EX4D_OT_send_take, EX4D_OT_show_result
from ..takes.properties import newest_take
from ..views.panel import EX4D_OT_show_view


class EX4D_MT_pie(Menu):
    """The add-on's pie menu."""

    bl_label = "EX-4D"

    def draw(self, context: Context) -> None:
        pie = self.layout.menu_pie()
        # Left, right, bottom, top, top left, top right, bottom left, bottom right.
        if active_scene_object(context) is None:
            # A menu is never disabled; a button is, and says why.
            pie.operator(EX4D_OT_add_camera.bl_idname, text="Add Move", icon="CAMERA_DATA")
        else:
            pie.operator_menu_enum(EX4D_OT_add_camera.bl_idname, "preset", text="Add Move", icon="CAMERA_DATA")
        pie.operator(EX4D_OT_camera_to_view.bl_idname, icon="VIEW_CAMERA")
        pie.operator(EX4D_OT_send_take.bl_idname, icon="RENDER_ANIMATION")
        pie.operator(EX4D_OT_look_through_shot.bl_idname, icon="VIEW_CAMERA")
        pie.operator(EX4D_OT_look_through_source.bl_idname, icon="OUTLINER_OB_CAMERA")
        pie.operator(EX4D_OT_show_view.bl_idname, icon="RENDER_STILL")
        newest = newest_take(context.scene)
        pie.operator(EX4D_OT_show_result.bl_idname, icon="PLAY").key = newest.key if newest is not None else ""
        pie.operator(EX4D_OT_send_final.bl_idname, icon="SHADERFX")


CLASSES = (EX4D_MT_pie,)
