"""The depth offset of an imported scene: found from angles that the artist marks, and applied as a new scene."""

from __future__ import annotations

from pathlib import Path

import bpy
import mathutils
import numpy as np
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as mark_
from bpy.app.translations import pgettext_rpt as report_

from ex4d_core.angle_offset import offset_of_corner, offset_of_vertical
from ex4d_core.depth_mapping import DepthMapping
from ex4d_core.errors import Ex4dError
from ex4d_core.scene import Scene
from ex4d_core.scene_remap import remap_scene

from ..blender_types import Context, Operator, Panel, SidebarPanel, current_context
from ..connection.panel import draw_text
from ..errors import reports_errors
from ..scenes.depth_preview import depth_of, is_changed, shown_mapping
from ..scenes.importing import ImportSettings, import_scene
from ..scenes.link import NeedsScene, active_scene_object, chosen_scene_object, link_of, open_scene
from ..scenes.panel import EX4D_PT_scene
from ..scenes.placement import ground_of, place_like
from ..scenes.placement_operators import PicksPoints
from ..undo_steps import add_undo_step
from .sources import new_scene_folder

_GROUND_SHARE = 0.4  # of the frame, from the bottom, in which the ground is looked for


class _PicksAngle(PicksPoints):
    """Sets the depth offset by what was clicked."""

    def offset(self, package: Scene, index: int, points: np.ndarray, context: Context) -> float:
        """What each operator makes of points (N, 3), in the source camera's axes, with the package's depth."""
        raise NotImplementedError

    def use(self, context: Context) -> set[str]:
        scene_object = chosen_scene_object(context)
        fields, start = depth_of(scene_object), link_of(scene_object).frame_start
        try:
            package = open_scene(scene_object)
            index = min(max(context.scene.frame_current - start, 0), package.manifest.frames - 1)
            points = _in_camera(scene_object, package, index, self.picked)
            fields.offset = self.offset(package, index, points, context)
        except Ex4dError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        text = report_("Depth Offset: {offset}").format(offset=f"{fields.offset:.3f}")
        self.report({"INFO"}, text)
        add_undo_step(self.bl_label)
        return {"FINISHED"}


class EX4D_OT_pick_corner(_PicksAngle, Operator):
    """Click a square corner, then a point along each of its sides.

    Best is a corner on the ground, such as that of a tile.
    """

    bl_idname = "ex4d.pick_corner"
    bl_label = "Pick Square Corner"
    count, hint = 3, "Corner"

    def offset(self, package: Scene, index: int, points: np.ndarray, context: Context) -> float:
        return offset_of_corner(points, package.manifest.mapping)


class EX4D_OT_pick_vertical(_PicksAngle, Operator):
    """Click the foot of something upright, then its top; the ground is found in the lower part of the frame."""

    bl_idname = "ex4d.pick_vertical"
    bl_label = "Pick Vertical"
    count, hint = 2, "Vertical"

    def offset(self, package: Scene, index: int, points: np.ndarray, context: Context) -> float:
        scene_object = chosen_scene_object(context)
        ground = ground_of(scene_object, context.scene.frame_current, _GROUND_SHARE)
        to_scene = np.linalg.inv(np.array(scene_object.matrix_world, dtype=np.float64)[:3, :3])
        # A normal turns by the inverse transpose; a scene's scale is the same along all axes.
        normal = package.source_camera().world_to_camera[index, :3, :3] @ to_scene @ ground.normal
        return offset_of_vertical(points, normal, package.manifest.mapping)


class EX4D_OT_apply_depth(NeedsScene, Operator):
    """Make a new scene with this depth offset and far limit; this one is hidden and stays as it is."""

    bl_idname = "ex4d.apply_depth"
    bl_label = "Apply Depth Offset"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not super().poll(context):
            return False
        if not is_changed(chosen_scene_object(context)):
            cls.poll_message_set(iface_("Change Depth Offset or Far Limit first"))
            return False
        return True

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        apply_depth(context, chosen_scene_object(context))
        return {"FINISHED"}


def apply_depth(context: Context, scene_object: bpy.types.Object) -> bpy.types.Object:
    """Import a new scene package with the depth that a scene is shown with; the old scene is hidden and stays.

    Returns:
        The new scene, in the place of the old one.

    Raises:
        SceneError: the package is missing, has changed, or the new one cannot be written.
        OSError: the folder for scenes cannot be created.
    """
    package = open_scene(scene_object)
    mapping = shown_mapping(scene_object, package.manifest.mapping)
    windows = current_context().window_manager
    windows.progress_begin(0, package.manifest.frames)
    try:
        folder = new_scene_folder(package.manifest.name)
        remap_scene(package, folder, mapping, lambda done, total: windows.progress_update(done))
    finally:
        windows.progress_end()
    made = show_instead(context, scene_object, folder)
    fields = depth_of(scene_object)
    fields.offset, fields.far_limit = package.manifest.mapping.offset, 0.0
    return made


def show_instead(context: Context, scene_object: bpy.types.Object, folder: Path) -> bpy.types.Object:
    """Import a scene package in the place of the scene that it was made from, which is hidden and stays."""
    link = link_of(scene_object)
    made = import_scene(folder, ImportSettings(frame_start=link.frame_start, set_up_scene=False))
    place_like(made, scene_object)
    link_of(made).unseen_color = link.unseen_color
    scene_object.hide_set(True)
    scene_object.hide_render = True
    if context.scene.ex4d_shot.scene_object in (None, scene_object):
        context.scene.ex4d_shot.scene_object = made
    return made


class EX4D_PT_depth_offset(SidebarPanel, Panel):
    """The depth offset and far limit of the chosen scene."""

    bl_label = "Depth Offset"
    bl_parent_id = EX4D_PT_scene.__name__
    bl_order = 2
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return active_scene_object(context) is not None

    def draw(self, context: Context) -> None:
        layout, scene_object = self.layout, chosen_scene_object(context)
        fields = depth_of(scene_object)
        column = layout.column(align=True)
        column.enabled = link_of(scene_object).source_camera is not None
        column.prop(fields, "offset", slider=True)
        column.prop(fields, "far_limit")
        row = layout.row(align=True)
        row.operator(EX4D_OT_pick_corner.bl_idname, text="Corner", icon="EYEDROPPER")
        row.operator(EX4D_OT_pick_vertical.bl_idname, text="Vertical", icon="EYEDROPPER")
        layout.operator(EX4D_OT_apply_depth.bl_idname, icon="CHECKMARK")
        if is_changed(scene_object):
            draw_text(layout, mark_("Takes show the depth as it was until you apply this"), context, "INFO")


def _in_camera(
    scene_object: bpy.types.Object, package: Scene, index: int, points: list[mathutils.Vector]
) -> np.ndarray:
    """(N, 3) points of the shown mesh in the source camera's axes, with the depth that the package has."""
    own = package.manifest.mapping
    to_scene = np.linalg.inv(np.array(scene_object.matrix_world, dtype=np.float64))
    to_camera = package.source_camera().world_to_camera[index] @ to_scene
    shown = np.array([tuple(point) for point in points], dtype=np.float64) @ to_camera[:3, :3].T + to_camera[:3, 3]
    if (shown[:, 2] <= 0).any():
        return shown
    return shown * (_package_depth(shown[:, 2], shown_mapping(scene_object, own), own) / shown[:, 2])[:, None]


def _package_depth(depth: np.ndarray, shown: DepthMapping, own: DepthMapping) -> np.ndarray:
    return own.depth(shown.disparity(depth)).astype(np.float64)


CLASSES = (EX4D_OT_pick_corner, EX4D_OT_pick_vertical, EX4D_OT_apply_depth, EX4D_PT_depth_offset)
