"""Handles in the viewport for the distance or the angle of the active camera's move."""

from __future__ import annotations

from typing import Any

import bpy

from .moves import handle_of, has_edited_keys, measure_of, move_of, radius_of

_COLOR, _HIGHLIGHT = (0.95, 0.75, 0.15), (1.0, 0.95, 0.6)


class EX4D_GGT_move(bpy.types.GizmoGroup):
    """An arrow along the move, or a dial around its subject."""

    bl_label = "EX-4D Camera Move"
    bl_space_type = "VIEW_3D"
    bl_region_type = "WINDOW"
    bl_options = {"3D", "PERSISTENT"}

    arrow: Any
    dial: Any

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Hidden in camera views, where the viewer is the camera, and once the keys are the artist's."""
        camera, view = context.object, context.region_data
        move = move_of(camera)
        if camera is None or move is None or not measure_of(move) or view is None:
            return False
        return view.view_perspective != "CAMERA" and camera.library is None and not has_edited_keys(camera)

    def setup(self, context: bpy.types.Context) -> None:
        """Make both handles; `refresh` shows one."""
        self.arrow = self.gizmos.new("GIZMO_GT_arrow_3d")
        self.dial = self.gizmos.new("GIZMO_GT_dial_3d")
        self.dial.draw_options = {"ANGLE_START_Y", "ANGLE_VALUE"}
        self.dial.use_draw_scale = False  # as large as the arc
        for handle in (self.arrow, self.dial):
            handle.color, handle.color_highlight = _COLOR, _HIGHLIGHT
            handle.alpha, handle.alpha_highlight = 0.8, 1.0
            handle.line_width = 3.0
        self.refresh(context)

    def refresh(self, context: bpy.types.Context) -> None:
        """Follow the active camera."""
        move = move_of(context.object)
        self.arrow.hide = move is None or measure_of(move) != "DISTANCE"
        self.dial.hide = move is None or measure_of(move) != "ANGLE"
        if move is None:
            return
        # Properties and not functions, so that Blender adds the undo steps.
        if not self.arrow.hide:
            self.arrow.target_set_prop("offset", move, "reach")
        if not self.dial.hide:
            self.dial.target_set_prop("offset", move, "angle")
        self.draw_prepare(context)

    def draw_prepare(self, context: bpy.types.Context) -> None:
        """Follow the scene, which may be moved."""
        camera = context.object
        move = move_of(camera)
        if camera is None or move is None or not measure_of(move):
            return
        self.arrow.matrix_basis = self.dial.matrix_basis = handle_of(camera, move)
        self.dial.scale_basis = radius_of(camera, move)


CLASSES = (EX4D_GGT_move,)
