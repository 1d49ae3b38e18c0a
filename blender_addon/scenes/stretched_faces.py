"""Draws stretched faces in the unseen colour in Solid view: faces that span a depth discontinuity of the footage.

Material Preview and Rendered view show them with the scene's material (see `material`). Solid view shows an image and
no shader, so there a GPU shader draws them over the mesh with the same test: every face that the source camera sees
edge-on gets the unseen colour, unless it is viewed from the source camera's position. Per frame only the vertex
positions, which Blender has already, go to the GPU, so playback stays fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import bpy
import gpu
import mathutils
import numpy as np

from ..blender_types import current_context
from .link import is_scene_object, link_of
from .material import ALIGNED_DEGREES, SOURCE_EYE, STRETCHED_DEGREES
from .mesh import mesh_data, read_attribute

# Offset towards the viewer, as a share of the depth range, so that it is drawn over the face that it coincides with.
_DEPTH_OFFSET = 4e-5

_VERTEX = """
void main()
{
  position = pos;
  gl_Position = object_to_screen * vec4(pos, 1.0);
  gl_Position.z -= DEPTH_OFFSET * gl_Position.w;
}
"""
_FRAGMENT = """
void main()
{
  vec3 normal = normalize(cross(dFdx(position), dFdy(position)));
  vec3 ray = normalize(position - eye);
  vec3 to_viewer = normalize(viewer.xyz - position * viewer.w);
  if (abs(dot(normal, ray)) >= EDGE_ON || dot(ray, to_viewer) < SAME_RAY) {
    discard;
  }
  fragment_color = color;
}
"""


@dataclass
class _GpuMesh:
    """The GPU buffers of a scene object.

    Attributes:
        vertices: their number.
        faces: vertex indices of the triangles; None for a mesh with other polygons.
        positions: (3 V,) float32, reused for every frame.
        batch: None after the positions have changed.
    """

    vertices: int
    faces: gpu.types.GPUIndexBuf | None
    positions: np.ndarray = field(repr=False)
    batch: gpu.types.GPUBatch | None = None


_meshes: dict[int, _GpuMesh] = {}
_shader: gpu.types.GPUShader | None = None
_handler: object | None = None


def _compiled_shader() -> Any:
    global _shader
    if _shader is None:
        info = gpu.types.GPUShaderCreateInfo()
        info.push_constant("MAT4", "object_to_screen")
        info.push_constant("VEC4", "color")
        info.push_constant("VEC4", "viewer")
        info.push_constant("VEC3", "eye")
        # Not push constants, which are limited to 128 bytes.
        info.define("EDGE_ON", f"{math.sin(math.radians(STRETCHED_DEGREES)):.9f}")
        info.define("SAME_RAY", f"{-math.cos(math.radians(ALIGNED_DEGREES)):.9f}")
        info.define("DEPTH_OFFSET", f"{_DEPTH_OFFSET:.9f}")
        varyings = gpu.types.GPUStageInterfaceInfo("ex4d_stretched_face")
        varyings.smooth("VEC3", "position")
        info.vertex_in(0, "VEC3", "pos")
        info.vertex_out(varyings)
        info.fragment_out(0, "VEC4", "fragment_color")
        info.vertex_source(_VERTEX)
        info.fragment_source(_FRAGMENT)
        _shader = gpu.shader.create_from_info(info)
    return _shader


def _draw() -> None:
    context = current_context()
    space = context.space_data
    if space.shading.type != "SOLID" or space.shading.show_xray:
        return
    visible = [
        one
        for one in context.view_layer.objects
        if is_scene_object(one) and one.get(SOURCE_EYE) is not None and one.visible_in_viewport_get(space)
    ]
    if not visible:
        return
    depsgraph = context.evaluated_depsgraph_get()
    shader = _compiled_shader()
    shader.bind()
    to_screen = gpu.matrix.get_projection_matrix() @ gpu.matrix.get_model_view_matrix()
    gpu.state.depth_test_set("LESS_EQUAL")
    for one in visible:
        evaluated = one.evaluated_get(depsgraph)
        batch = _batch_of(one, mesh_data(evaluated))
        if batch is None:
            continue
        shader.uniform_float("object_to_screen", to_screen @ evaluated.matrix_world)
        shader.uniform_float("color", (*link_of(one).unseen_color, 1.0))
        shader.uniform_float("eye", tuple(evaluated[SOURCE_EYE]))
        to_object = evaluated.matrix_world.inverted_safe()
        shader.uniform_float("viewer", to_object @ _viewer(context.region_data))
        batch.draw(shader)
    gpu.state.depth_test_set("NONE")


def _viewer(view: bpy.types.RegionView3D) -> mathutils.Vector:
    """The viewer's position and 1; in an orthographic viewport the direction to the viewer and 0."""
    columns = view.view_matrix.inverted().transposed()
    return columns[3].copy() if view.is_perspective else columns[2].copy()


def _batch_of(scene_object: bpy.types.Object, mesh: bpy.types.Mesh) -> gpu.types.GPUBatch | None:
    """The scene's faces at their current positions; None for a mesh that a modifier has made other polygons of."""
    uploaded = _meshes.get(scene_object.session_uid)
    if uploaded is None or uploaded.vertices != len(mesh.vertices):
        _forget_deleted()
        uploaded = _meshes[scene_object.session_uid] = _upload(mesh)
    if uploaded.batch is None and uploaded.faces is not None:
        read_attribute(mesh, "position", "vector", uploaded.positions)
        layout = gpu.types.GPUVertFormat()
        layout.attr_add(id="pos", comp_type="F32", len=3, fetch_mode="FLOAT")
        buffer = gpu.types.GPUVertBuf(layout, uploaded.vertices)
        positions: Any = uploaded.positions.reshape(-1, 3)
        buffer.attr_fill("pos", positions)
        uploaded.batch = gpu.types.GPUBatch(type="TRIS", buf=buffer, elem=uploaded.faces)
    return uploaded.batch


def _upload(mesh: bpy.types.Mesh) -> _GpuMesh:
    faces = None
    if len(mesh.loops) == 3 * len(mesh.polygons) and len(mesh.polygons):
        corners = np.empty(len(mesh.loops), dtype=np.int32)
        read_attribute(mesh, ".corner_vert", "value", corners)
        triangles: Any = corners.reshape(-1, 3)
        faces = gpu.types.GPUIndexBuf(type="TRIS", seq=triangles)
    return _GpuMesh(len(mesh.vertices), faces, np.empty(3 * len(mesh.vertices), dtype=np.float32))


def _forget_deleted() -> None:
    for uid in _meshes.keys() - {one.session_uid for one in bpy.data.objects}:
        del _meshes[uid]


@bpy.app.handlers.persistent
def _after_frame(*_: object) -> None:
    for uploaded in _meshes.values():
        uploaded.batch = None


@bpy.app.handlers.persistent
def _after_update(_: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> None:
    for update in depsgraph.updates if _meshes else ():
        uploaded = _meshes.get(update.id.session_uid) if isinstance(update.id, bpy.types.Object) else None
        if uploaded is not None and update.is_updated_geometry:
            uploaded.batch = None


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    _meshes.clear()


HANDLERS = (("frame_change_post", _after_frame), ("depsgraph_update_post", _after_update), ("load_post", _after_load))


def register() -> None:
    """Draw in every 3D viewport; nothing is drawn in the background."""
    global _handler
    if not bpy.app.background:
        _handler = bpy.types.SpaceView3D.draw_handler_add(_draw, (), "WINDOW", "POST_VIEW")


def unregister() -> None:
    """Stop drawing."""
    global _handler, _shader
    if _handler is not None:
        bpy.types.SpaceView3D.draw_handler_remove(_handler, "WINDOW")
    _handler = _shader = None
    _meshes.clear()
