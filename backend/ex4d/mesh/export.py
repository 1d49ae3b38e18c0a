"""Exports one frame of a DW-Mesh as a coloured PLY file; `ex4d_core.mesh_cache` writes all frames for Blender.

Coordinates are written as in the mesh (OpenCV axes); the program that loads them converts them. A file appears under
its name only when it is complete.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ex4d.media.media_errors import atomic_write
from ex4d.mesh.dw_mesh import DWMesh


def write_ply(path: str | os.PathLike[str], mesh: DWMesh, frame: int, *, occluded: bool = True) -> None:
    """Write one frame as a binary PLY: positions, 8-bit colours and all faces, caps included.

    Args:
        path: the file; an existing one is replaced.
        mesh: of any number of frames.
        frame: which of them.
        occluded: whether to write occluded faces, too.

    Raises:
        IndexError: the mesh has no such frame.
        OSError, MediaError: the file cannot be written; nothing is left behind.
    """
    if not 0 <= frame < mesh.frames:
        raise IndexError(f"invalid frame {frame}: the mesh has frames 0 to {mesh.frames - 1}")
    vertices = np.empty(mesh.vertices.shape[1], dtype=[("position", "<f4", 3), ("color", "u1", 3)])
    vertices["position"] = mesh.vertices[frame].cpu().numpy()
    vertices["color"] = mesh.colors[frame].cpu().numpy()
    corners = mesh.faces if occluded else mesh.faces[~mesh.occluded[frame]]
    faces = np.empty(len(corners), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    faces["count"] = 3
    faces["corners"] = corners.cpu().numpy()
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment ex4d\n"
        f"element vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
        f"element face {len(faces)}\n"
        "property list uchar int vertex_indices\n"
        "end_header\n"
    )
    with atomic_write(Path(path)) as partial, open(partial, "wb") as file:
        file.write(header.encode("ascii"))
        file.write(vertices.data)
        file.write(faces.data)
