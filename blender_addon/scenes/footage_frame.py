"""Draws where the footage's frame ends: a line around it, and the unseen colour beyond it in a camera's frame."""

from __future__ import annotations

import bpy
import gpu
import mathutils
from gpu_extras.batch import batch_for_shader

from ..blender_types import Context
from ..cameras.keyframes import camera_data
from .face_shaders import outside_shader, set_values
from .gpu_meshes import batches_of
from .link import link_of
from .mesh import mesh_data

# The line around the footage's frame, in pixels.
_LINE_WIDTH = 2.0


def draw_borders(context: Context, visible: list[bpy.types.Object]) -> None:
    """A line around each footage's frame, where its outermost pixels are in space."""
    depsgraph = context.evaluated_depsgraph_get()
    shader = gpu.shader.from_builtin("POLYLINE_UNIFORM_COLOR")
    for one in visible:
        evaluated = one.evaluated_get(depsgraph)
        batches = batches_of(one, mesh_data(evaluated))
        if batches is None or batches[1] is None:
            continue
        shader.bind()
        shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
        shader.uniform_float("lineWidth", _LINE_WIDTH * context.preferences.system.ui_scale)
        shader.uniform_float("color", (*link_of(one).unseen_color, 1.0))
        with gpu.matrix.push_pop():
            gpu.matrix.multiply_matrix(evaluated.matrix_world)
            batches[1].draw(shader)


def fill_outside(
    context: Context,
    camera: bpy.types.Object,
    to_screen: mathutils.Matrix,
    color: tuple[float, ...],
    known: gpu.types.GPUOffScreen | None,
) -> None:
    """Give what is empty in a camera's frame the unseen colour: the footage's frame ends before it.

    What other frames saw there, if that is ``known``, is remembered.
    """
    if camera.type != "CAMERA" or camera_data(camera).type != "PERSP":
        return
    evaluated = camera.evaluated_get(context.evaluated_depsgraph_get())
    to_world = evaluated.matrix_world.normalized()
    corners = [
        to_screen @ (to_world @ corner).to_4d() for corner in camera_data(evaluated).view_frame(scene=context.scene)
    ]
    places = [(corner.x / corner.w, corner.y / corner.w, 1.0) for corner in corners]  # as far away as can be
    shader = gpu.shader.from_builtin("UNIFORM_COLOR") if known is None else outside_shader()
    batch = batch_for_shader(shader, "TRIS", {"pos": places}, indices=[(0, 1, 2), (0, 2, 3)])
    if known is not None:
        shader.bind()
        set_values(shader, {"color": color, "known": known.texture_color})
        batch.draw(shader)
        return
    with gpu.matrix.push_pop(), gpu.matrix.push_pop_projection():
        gpu.matrix.load_identity()
        gpu.matrix.load_projection_matrix(mathutils.Matrix())
        shader.bind()
        shader.uniform_float("color", color)
        batch.draw(shader)
