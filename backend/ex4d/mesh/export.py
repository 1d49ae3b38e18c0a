"""Exports of a DW-Mesh: a coloured PLY file of one frame, and a PC2 vertex cache of all frames for Blender.

Coordinates are written as in the mesh (OpenCV axes); the program that loads them converts them. A file appears under
its name only when it is complete.
"""

from __future__ import annotations

import os
import struct
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from ex4d.media.media_errors import atomic_write
from ex4d.mesh.dw_mesh import DWMesh

PC2_HEADER = struct.Struct("<12siiffi")  # signature, version, points, start frame, sample rate, samples
PC2_SIGNATURE = b"POINTCACHE2\0"
PC2_VERSION = 1


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


class Pc2Writer:
    """Streams vertex positions into a PC2 point cache, as Blender's Mesh Cache modifier reads it.

    A context manager: the file takes its name when the block ends with all frames written, and vanishes when the
    block fails. Memory does not depend on the number of frames.

        with Pc2Writer(path, vertices_per_frame, frames) as cache:
            for mesh in meshes:
                cache.append(mesh.vertices)
    """

    def __init__(self, path: str | os.PathLike[str], vertices_per_frame: int, frames: int) -> None:
        """Prepare a cache of `frames` frames with `vertices_per_frame` vertices each, both at least 1."""
        if vertices_per_frame < 1 or frames < 1:
            raise ValueError(f"invalid cache of {vertices_per_frame} vertices and {frames} frames: expected at least 1")
        self.path = Path(path)
        self.vertices_per_frame = vertices_per_frame
        self.frames = frames
        self.written = 0

    def __enter__(self) -> Pc2Writer:
        """Create the file and write its header."""
        with ExitStack() as stack:
            self._file = stack.enter_context(open(stack.enter_context(atomic_write(self.path)), "wb"))
            self._file.write(
                PC2_HEADER.pack(PC2_SIGNATURE, PC2_VERSION, self.vertices_per_frame, 0.0, 1.0, self.frames)
            )
            self._unfinished = stack.pop_all()
        return self

    def append(self, vertices: torch.Tensor | np.ndarray) -> None:
        """Write the next frames.

        Args:
            vertices: (n, V, 3) or one frame's (V, 3), float32.

        Raises:
            ValueError: not the announced number of vertices, or too many frames.
        """
        if not isinstance(vertices, np.ndarray):
            vertices = vertices.detach().cpu().numpy()
        block = vertices[None] if vertices.ndim == 2 else vertices
        if block.ndim != 3 or block.shape[1:] != (self.vertices_per_frame, 3):
            raise ValueError(f"vertices have shape {vertices.shape}: expected (n, {self.vertices_per_frame}, 3)")
        if self.written + len(block) > self.frames:
            raise ValueError(f"the cache holds {self.frames} frames: {self.written} are written, got {len(block)} more")
        self._file.write(np.ascontiguousarray(block, dtype="<f4").data)
        self.written += len(block)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file and give it its name, or remove it after an error."""
        if kind is not None:
            self._unfinished.__exit__(kind, error, trace)
            return
        with self._unfinished:
            if self.written != self.frames:
                raise ValueError(f"the cache holds {self.frames} frames: only {self.written} were written")
