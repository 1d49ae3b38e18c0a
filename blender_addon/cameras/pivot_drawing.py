"""Draws the pivot of the active imported scene into 3D viewports: a cross in a circle, of the same size everywhere."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import bpy
import gpu
from bpy_extras.view3d_utils import location_3d_to_region_2d
from gpu_extras.batch import batch_for_shader

from ..blender_types import current_context
from ..scenes.link import active_scene_object
from .pivots import MIDDLE, pivot_settings, place_of

# The gizmos' colour, over a dark outline that is visible on any footage.
_COLOR, _OUTLINE = (1.0, 0.8, 0.1, 1.0), (0.0, 0.0, 0.0, 0.7)
# In pixels of an interface at scale 1: of the circle; of the cross from and to, across the circle; of the lines.
_RADIUS, _CROSS, _WIDTH, _OUTLINE_WIDTH = 7.0, (3.0, 12.0), 1.5, 4.0
_CIRCLE = 24

_handler: Any = None


def pivot_lines() -> list[tuple[float, float]]:
    """Ends of the lines of a pivot around the origin, one pair after the other, for an interface at scale 1."""
    turns = [2 * math.pi * step / _CIRCLE for step in range(_CIRCLE + 1)]
    circle = [(_RADIUS * math.cos(turn), _RADIUS * math.sin(turn)) for turn in turns]
    ends = [end for pair in pairwise(circle) for end in pair]
    for x, y in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        ends += [(length * x, length * y) for length in _CROSS]
    return ends


def _draw() -> None:
    context = current_context()
    space, view = context.space_data, context.region_data
    if view is None or not space.overlay.show_overlays or not context.scene.ex4d_path.show:
        return
    scene_object = active_scene_object(context)
    if scene_object is None or not scene_object.visible_in_viewport_get(space):
        return
    # Through a camera the middle is where everybody expects it.
    if view.view_perspective == "CAMERA" and pivot_settings(scene_object).kind == MIDDLE:
        return
    place = place_of(scene_object, context)
    at = None if place is None else location_3d_to_region_2d(context.region, view, place)
    if at is None:
        return  # behind the viewer
    scale = context.preferences.system.ui_scale
    lines = [(at.x + scale * x, at.y + scale * y, 0.0) for x, y in pivot_lines()]
    shader = gpu.shader.from_builtin("POLYLINE_UNIFORM_COLOR")
    batch = batch_for_shader(shader, "LINES", {"pos": lines})
    gpu.state.blend_set("ALPHA")
    shader.bind()
    shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
    for color, width in ((_OUTLINE, _OUTLINE_WIDTH), (_COLOR, _WIDTH)):
        shader.uniform_float("lineWidth", width * scale)
        shader.uniform_float("color", color)
        batch.draw(shader)
    gpu.state.blend_set("NONE")


def register() -> None:
    """Draw into all viewports."""
    global _handler
    if not bpy.app.background:
        _handler = bpy.types.SpaceView3D.draw_handler_add(_draw, (), "WINDOW", "POST_PIXEL")


def unregister() -> None:
    """Stop drawing."""
    global _handler
    if _handler is not None:
        bpy.types.SpaceView3D.draw_handler_remove(_handler, "WINDOW")
    _handler = None
