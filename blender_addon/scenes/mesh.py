"""The DW-Mesh as a Blender mesh: fixed topology from the package, positions of each frame from a PC2 file.

Only the faces between pixels of the image are made: caps and the walls around the image close the mesh for rendering,
but in a viewport they would hide the footage from every side but one. All vertices are kept, as in the file.
"""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

from ex4d_core.mesh_cache import PC2_HEADER, positions_file
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError

from ..paths import to_blend
from .link import MESH_CACHE


def build_mesh(scene: Scene) -> bpy.types.Mesh:
    """A mesh with the positions of frame 0, UVs "UVMap", and flat faces.

    Positions are in the scene's world (OpenCV axes). The winding is reversed, since OpenCV's y axis points down.

    Raises:
        SceneError: topology and positions do not belong together.
    """
    faces, uvs, cap_faces = scene.topology()
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= len(uvs):
        raise SceneError(f"the mesh of {scene.manifest.name!r} has faces without vertices; reconstruct the scene again")
    faces = faces[between_pixels(scene, len(faces), cap_faces)]
    positions = positions_of_frame(scene, 0, len(uvs))
    corners = np.ascontiguousarray(faces[:, ::-1], dtype=np.int32).ravel()
    mesh = bpy.data.meshes.new(scene.manifest.name)
    mesh.vertices.add(len(uvs))
    mesh.loops.add(len(corners))
    mesh.polygons.add(len(faces))
    _write(mesh.attributes["position"], "vector", positions)
    mesh.polygons.foreach_set("loop_start", np.arange(0, len(corners), 3, dtype=np.int32))
    _write(mesh.attributes[".corner_vert"], "value", corners)
    # The faces were checked above, so the costly mesh.validate() is left out.
    mesh.update(calc_edges=True)
    mesh.uv_layers.new(name="UVMap", do_init=False).uv.foreach_set("vector", uvs[corners].astype(np.float32).ravel())
    # Flat faces need no vertex normals, which would cost time on every frame.
    _write(mesh.attributes.new("sharp_face", "BOOLEAN", "FACE"), "value", np.ones(len(faces), dtype=bool))
    return mesh


def mesh_data(candidate: bpy.types.Object) -> bpy.types.Mesh:
    """The data of a mesh object."""
    assert isinstance(candidate.data, bpy.types.Mesh)
    return candidate.data


def read_attribute(mesh: bpy.types.Mesh, name: str, field: str, values: np.ndarray) -> None:
    """Read a mesh attribute into a flat array."""
    data: Any = mesh.attributes[name]  # the stubs have only the base of attributes' classes
    data.data.foreach_get(field, values)


def _write(attribute: Any, field: str, values: np.ndarray) -> None:
    attribute.data.foreach_set(field, values)


def positions_of_frame(scene: Scene, index: int, vertices: int) -> np.ndarray:
    """(3 V,) float32 positions of a frame.

    Args:
        scene: the package.
        index: of the frame.
        vertices: number of vertices that the file must hold for every frame.

    Raises:
        SceneError: the file holds another mesh.
    """
    path = positions_file(scene)
    with open(path, "rb") as file:
        header = file.read(PC2_HEADER.size)
    signature, _, points, _, _, samples = (
        PC2_HEADER.unpack(header) if len(header) == PC2_HEADER.size else (b"", 0, 0, 0.0, 0.0, 0)
    )
    if signature.rstrip(b"\0") != b"POINTCACHE2" or (points, samples) != (vertices, scene.manifest.frames):
        raise SceneError(
            f"{path} holds {samples} frames of {points} points, the scene has {scene.manifest.frames} of {vertices}; "
            "reconstruct the scene again"
        )
    return np.fromfile(path, dtype="<f4", offset=PC2_HEADER.size + 12 * vertices * index, count=3 * vertices)


def between_pixels(scene: Scene, faces: int, cap_faces: int) -> np.ndarray:
    """(F,) bool, true for faces between pixels of the image; false for the caps, and for the walls around the image.

    The "centered" mesh has a ring of vertices around the image, half a pixel outside the outermost pixels' centres.

    Args:
        scene: the package.
        faces: number of faces.
        cap_faces: number of faces of the caps, the last ones.
    """
    inside = np.ones(faces, dtype=bool)
    inside[faces - cap_faces :] = False
    rows, columns = scene.manifest.height + 1, scene.manifest.width + 1
    if scene.manifest.convention == "centered" and faces == 2 * rows * columns + cap_faces:
        cells = inside[: 2 * rows * columns].reshape(2, rows, columns)
        cells[:, [0, -1]] = False
        cells[:, :, [0, -1]] = False
    return inside


def add_positions_cache(target: bpy.types.Object, scene: Scene, frame_start: int) -> bpy.types.MeshCacheModifier:
    """Animate an object's vertices with the package's positions, which are in the object's own axes."""
    cache = target.modifiers.new(MESH_CACHE, "MESH_CACHE")
    assert isinstance(cache, bpy.types.MeshCacheModifier)
    cache.cache_format = "PC2"
    cache.filepath = to_blend(positions_file(scene))
    cache.frame_start = frame_start
    cache.interpolation = "LINEAR"
    cache.show_expanded = False
    return cache
