"""Cameras in Blender's own menus: Add > Camera, View > Cameras, and the Asset Browser's context menu."""

from __future__ import annotations

from typing import Any

from ..scenes.link import active_scene_object
from ..scenes.operators import EX4D_OT_look_through_source
from ..shots.camera_mismatch import EX4D_OT_look_through_shot, EX4D_OT_shoot_view
from .asset_operators import EX4D_OT_add_asset_camera, EX4D_OT_save_move
from .operators import EX4D_OT_add_camera, EX4D_OT_camera_to_view
from .saved_moves import EX4D_MT_saved_moves


def _draw_add(menu: Any, context: Any) -> None:
    layout = menu.layout
    layout.separator()
    if active_scene_object(context) is None:
        layout.operator(EX4D_OT_add_camera.bl_idname, text="EX-4D Move", icon="CAMERA_DATA")
    else:
        layout.operator_menu_enum(EX4D_OT_add_camera.bl_idname, "preset", text="EX-4D Move", icon="CAMERA_DATA")
    layout.menu(EX4D_MT_saved_moves.__name__, text="EX-4D Saved Move", icon="PRESET")
    layout.operator(EX4D_OT_camera_to_view.bl_idname, text="EX-4D Move to This View", icon="VIEW_CAMERA")


def _draw_view(menu: Any, _: Any) -> None:
    layout = menu.layout
    layout.separator()
    layout.operator(EX4D_OT_look_through_shot.bl_idname, text="Look Through EX-4D Shot's Camera")
    layout.operator(EX4D_OT_look_through_source.bl_idname, text="Look Through EX-4D Source Camera")
    layout.operator(EX4D_OT_shoot_view.bl_idname, text="Shoot the Camera in View with EX-4D")
    layout.operator(EX4D_OT_camera_to_view.bl_idname, text="EX-4D Move to This View")


def _draw_assets(menu: Any, context: Any) -> None:
    asset = getattr(context, "asset", None)
    if asset is not None and asset.id_type == "ACTION":
        menu.layout.separator()
        menu.layout.operator(EX4D_OT_add_asset_camera.bl_idname, text="Add EX-4D Camera with This Move")
        menu.layout.operator(EX4D_OT_save_move.bl_idname, text="Save EX-4D Shot's Move as Asset")


MENUS = (
    ("VIEW3D_MT_camera_add", _draw_add),
    ("VIEW3D_MT_view_cameras", _draw_view),
    ("ASSETBROWSER_MT_context_menu", _draw_assets),
)
