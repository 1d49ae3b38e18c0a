"""The meshes of scenes on the GPU, for what is drawn over them in viewports.

Per frame only the vertex positions, which Blender has already, and what follows from them are uploaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import bpy
import gpu
import numpy as np

from .back_limits import BackLimits
from .mesh import read_attribute


@dataclass
class GpuMesh:
    """The GPU buffers of a scene object.

    Attributes:
        vertices: their number.
        faces: vertex indices of the triangles; None for a mesh with other polygons.
        border: vertex indices of the lines around the image, or around the walls of a mesh of version 0.1; None for a
            mesh with other polygons, and for a closed one.
        uvs: of the vertices.
        positions: (3 V,) float32, reused for every frame.
        batches: of the faces and of the lines; None after the positions have changed.
        limits: of the positions, by occlusion model.
    """

    vertices: int
    faces: gpu.types.GPUIndexBuf | None
    border: gpu.types.GPUIndexBuf | None
    uvs: gpu.types.GPUVertBuf | None
    positions: np.ndarray = field(repr=False)
    batches: tuple[gpu.types.GPUBatch, gpu.types.GPUBatch | None] | None = None
    limits: dict[str, BackLimits | None] = field(default_factory=dict)


# By the session's identifiers of scene objects.
gpu_meshes: dict[int, GpuMesh] = {}


def batches_of(
    scene_object: bpy.types.Object, mesh: bpy.types.Mesh
) -> tuple[gpu.types.GPUBatch, gpu.types.GPUBatch | None] | None:
    """The scene's faces and border at their current positions; None for a mesh of other polygons, by a modifier."""
    uploaded = gpu_meshes.get(scene_object.session_uid)
    if uploaded is None or uploaded.vertices != len(mesh.vertices):
        _forget_deleted()
        uploaded = gpu_meshes[scene_object.session_uid] = _upload(mesh)
    if uploaded.batches is None and uploaded.faces is not None:
        read_attribute(mesh, "position", "vector", uploaded.positions)
        uploaded.limits.clear()
        layout = gpu.types.GPUVertFormat()
        layout.attr_add(id="pos", comp_type="F32", len=3, fetch_mode="FLOAT")
        buffer = gpu.types.GPUVertBuf(layout, uploaded.vertices)
        positions: Any = uploaded.positions.reshape(-1, 3)
        buffer.attr_fill("pos", positions)
        faces = gpu.types.GPUBatch(type="TRIS", buf=buffer, elem=uploaded.faces)
        if uploaded.uvs is not None:
            faces.vertbuf_add(uploaded.uvs)
        uploaded.batches = (
            faces,
            gpu.types.GPUBatch(type="LINES", buf=buffer, elem=uploaded.border) if uploaded.border is not None else None,
        )
    return uploaded.batches


def _upload(mesh: bpy.types.Mesh) -> GpuMesh:
    faces = border = uvs = None
    if len(mesh.loops) == 3 * len(mesh.polygons) and len(mesh.polygons):
        corners = np.empty(len(mesh.loops), dtype=np.int32)
        read_attribute(mesh, ".corner_vert", "value", corners)
        triangles: Any = corners.reshape(-1, 3)
        lines: Any = border_of(triangles)
        faces = gpu.types.GPUIndexBuf(type="TRIS", seq=triangles)
        border = gpu.types.GPUIndexBuf(type="LINES", seq=lines) if len(lines) else None
        uvs = _upload_uvs(mesh, corners)
    return GpuMesh(len(mesh.vertices), faces, border, uvs, np.empty(3 * len(mesh.vertices), dtype=np.float32))


def _upload_uvs(mesh: bpy.types.Mesh, corners: np.ndarray) -> gpu.types.GPUVertBuf:
    """The texture coordinates of the vertices, which have one each: all of their corners have the same."""
    of_corners = np.zeros((len(corners), 2), dtype=np.float32)
    if mesh.uv_layers.active is not None:
        read_attribute(mesh, mesh.uv_layers.active.name, "vector", of_corners.ravel())
    of_vertices: Any = np.zeros((len(mesh.vertices), 2), dtype=np.float32)
    of_vertices[corners] = of_corners
    layout = gpu.types.GPUVertFormat()
    layout.attr_add(id="uv", comp_type="F32", len=2, fetch_mode="FLOAT")
    buffer = gpu.types.GPUVertBuf(layout, len(of_vertices))
    buffer.attr_fill("uv", of_vertices)
    return buffer


def border_of(triangles: np.ndarray) -> np.ndarray:
    """(L, 2) int32 vertex indices of the edges that only one of the triangles (F, 3) has."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    keys = np.sort(edges[:, 0].astype(np.int64) << 32 | edges[:, 1])
    is_new = np.r_[True, keys[1:] != keys[:-1]]
    single = keys[is_new & np.r_[is_new[1:], True]]
    return np.stack([single >> 32, single & 0xFFFFFFFF], axis=1).astype(np.int32)


def _forget_deleted() -> None:
    for uid in gpu_meshes.keys() - {one.session_uid for one in bpy.data.objects}:
        del gpu_meshes[uid]
