"""What the footage did not see, in Solid view: the surfaces that stretch from an outline to what lies behind it.

Material Preview and Rendered view show them by the scene's material (see `material`). Solid view shows an image and no
shader, so there they are drawn over the mesh, by the same test, on the graphics card: every face that the source
camera sees edge-on gets the artist's colour, unless it is looked at from the source camera's own place. Nothing is
computed or stored a frame beyond handing over the positions that Blender has already, so it plays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import bpy
import gpu
import mathutils
import numpy as np

from .link import is_scene_object
from .material import ALIGNED_DEGREES, CURTAIN_DEGREES, SOURCE_EYE

# How far towards the viewer it is drawn, as a share of the depth range, to win over the face that it lies on.
_NEARER = 4e-5

_VERTEX = """
void main()
{
  place = pos;
  gl_Position = object_to_screen * vec4(pos, 1.0);
  gl_Position.z -= NEARER * gl_Position.w;
}
"""
_FRAGMENT = """
void main()
{
  vec3 normal = normalize(cross(dFdx(place), dFdy(place)));
  vec3 ray = normalize(place - eye);
  vec3 to_viewer = normalize(viewer.xyz - place * viewer.w);
  if (abs(dot(normal, ray)) >= EDGE_ON || dot(ray, to_viewer) < SAME_RAY) {
    discard;
  }
  shown = color;
}
"""


@dataclass
class _Drawn:
    """What the graphics card holds of a scene.

    Attributes:
        faces: which vertices make a triangle; None for a mesh with other polygons.
        positions: room for the vertices' positions, used for every frame.
        batch: None when positions have changed since.
    """

    vertices: int
    faces: gpu.types.GPUIndexBuf | None
    positions: np.ndarray = field(repr=False)
    batch: gpu.types.GPUBatch | None = None


_drawn: dict[int, _Drawn] = {}
_shader: gpu.types.GPUShader | None = None
_handler: object | None = None


def _made_shader() -> gpu.types.GPUShader:
    global _shader
    if _shader is None:
        info = gpu.types.GPUShaderCreateInfo()
        info.push_constant("MAT4", "object_to_screen")
        info.push_constant("VEC4", "color")
        info.push_constant("VEC4", "viewer")
        info.push_constant("VEC3", "eye")
        # Not as push constants, of which there are 128 bytes.
        info.define("EDGE_ON", f"{math.sin(math.radians(CURTAIN_DEGREES)):.9f}")
        info.define("SAME_RAY", f"{-math.cos(math.radians(ALIGNED_DEGREES)):.9f}")
        info.define("NEARER", f"{_NEARER:.9f}")
        between = gpu.types.GPUStageInterfaceInfo("ex4d_curtain")
        between.smooth("VEC3", "place")
        info.vertex_in(0, "VEC3", "pos")
        info.vertex_out(between)
        info.fragment_out(0, "VEC4", "shown")
        info.vertex_source(_VERTEX)
        info.fragment_source(_FRAGMENT)
        _shader = gpu.shader.create_from_info(info)
    return _shader


def _draw() -> None:
    context = bpy.context
    space = context.space_data
    if space.shading.type != "SOLID" or space.shading.show_xray:
        return
    shown = [
        one
        for one in context.view_layer.objects
        if is_scene_object(one) and one.get(SOURCE_EYE) is not None and one.visible_in_viewport_get(space)
    ]
    if not shown:
        return
    depsgraph = context.evaluated_depsgraph_get()
    shader = _made_shader()
    shader.bind()
    to_screen = gpu.matrix.get_projection_matrix() @ gpu.matrix.get_model_view_matrix()
    gpu.state.depth_test_set("LESS_EQUAL")
    for one in shown:
        seen = one.evaluated_get(depsgraph)
        batch = _batch_of(one, seen.data)
        if batch is None:
            continue
        shader.uniform_float("object_to_screen", to_screen @ seen.matrix_world)
        shader.uniform_float("color", (*one.ex4d_scene.unseen_color, 1.0))
        shader.uniform_float("eye", tuple(seen[SOURCE_EYE]))
        to_object = seen.matrix_world.inverted_safe()
        shader.uniform_float("viewer", to_object @ _viewer(context.region_data))
        batch.draw(shader)
    gpu.state.depth_test_set("NONE")


def _viewer(view: bpy.types.RegionView3D) -> mathutils.Vector:
    """Where the viewport is looked at from, with a 1 behind it; a direction and a 0 where its rays are parallel."""
    to_world = view.view_matrix.inverted()
    return to_world.col[3].copy() if view.is_perspective else to_world.col[2].copy()


def _batch_of(scene_object: bpy.types.Object, mesh: bpy.types.Mesh) -> gpu.types.GPUBatch | None:
    """The scene's faces where they are now; None for a mesh that a modifier has made something else of."""
    drawn = _drawn.get(scene_object.session_uid)
    if drawn is None or drawn.vertices != len(mesh.vertices):
        _forget_deleted()
        drawn = _drawn[scene_object.session_uid] = _new_drawn(mesh)
    if drawn.batch is None and drawn.faces is not None:
        mesh.attributes["position"].data.foreach_get("vector", drawn.positions)
        layout = gpu.types.GPUVertFormat()
        layout.attr_add(id="pos", comp_type="F32", len=3, fetch_mode="FLOAT")
        buffer = gpu.types.GPUVertBuf(layout, drawn.vertices)
        buffer.attr_fill("pos", drawn.positions.reshape(-1, 3))
        drawn.batch = gpu.types.GPUBatch(type="TRIS", buf=buffer, elem=drawn.faces)
    return drawn.batch


def _new_drawn(mesh: bpy.types.Mesh) -> _Drawn:
    faces = None
    if len(mesh.loops) == 3 * len(mesh.polygons) and len(mesh.polygons):
        corners = np.empty(len(mesh.loops), dtype=np.int32)
        mesh.attributes[".corner_vert"].data.foreach_get("value", corners)
        faces = gpu.types.GPUIndexBuf(type="TRIS", seq=corners.reshape(-1, 3))
    return _Drawn(len(mesh.vertices), faces, np.empty(3 * len(mesh.vertices), dtype=np.float32))


def _forget_deleted() -> None:
    there = {one.session_uid for one in bpy.data.objects}
    for uid in _drawn.keys() - there:
        del _drawn[uid]


@bpy.app.handlers.persistent
def _after_frame(*_: object) -> None:
    for drawn in _drawn.values():
        drawn.batch = None


@bpy.app.handlers.persistent
def _after_update(_: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> None:
    if not _drawn:
        return
    for update in depsgraph.updates:
        drawn = _drawn.get(update.id.session_uid) if isinstance(update.id, bpy.types.Object) else None
        if drawn is not None and update.is_updated_geometry:
            drawn.batch = None


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    _drawn.clear()


_HANDLERS = (
    (bpy.app.handlers.frame_change_post, _after_frame),
    (bpy.app.handlers.depsgraph_update_post, _after_update),
    (bpy.app.handlers.load_post, _after_load),
)


def register() -> None:
    global _handler
    if bpy.app.background:
        return  # nothing is drawn there
    _handler = bpy.types.SpaceView3D.draw_handler_add(_draw, (), "WINDOW", "POST_VIEW")
    for handlers, handler in _HANDLERS:
        handlers.append(handler)


def unregister() -> None:
    global _handler, _shader
    if _handler is None:
        return
    for handlers, handler in _HANDLERS:
        handlers.remove(handler)
    bpy.types.SpaceView3D.draw_handler_remove(_handler, "WINDOW")
    _handler = _shader = None
    _drawn.clear()
