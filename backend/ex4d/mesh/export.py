"""DW-Mesh to files that other programs read: a coloured PLY of one frame, and Blender's PC2 vertex cache of all.

Coordinates are written as the mesh has them (OpenCV axes); whoever loads them converts. A file appears under its name
only when it is complete.
"""

from __future__ import annotations

import os
import struct
import uuid
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from ex4d.mesh.dw_mesh import DWMesh

PC2_HEADER = struct.Struct("<12siiffi")  # signature, version, points, start frame, sample rate, samples
PC2_SIGNATURE = b"POINTCACHE2\0"
PC2_VERSION = 1


def write_ply(path: str | os.PathLike, mesh: DWMesh, frame: int) -> None:
    """Write one frame as a binary PLY: positions, 8-bit colours and all faces, caps included.

    Raises:
        IndexError: when the mesh has no such frame.
        OSError: when the file cannot be written; nothing is left behind.
    """
    if not 0 <= frame < mesh.frames:
        raise IndexError(f"the mesh has frames 0..{mesh.frames - 1}, asked for {frame}")
    vertices = np.empty(mesh.vertices.shape[1], dtype=[("position", "<f4", 3), ("color", "u1", 3)])
    vertices["position"] = mesh.vertices[frame].cpu().numpy()
    vertices["color"] = mesh.colors[frame].cpu().numpy()
    faces = np.empty(len(mesh.faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    faces["count"] = 3
    faces["corners"] = mesh.faces.cpu().numpy()
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
        f"element face {len(faces)}\n"
        "property list uchar int vertex_indices\n"
        "end_header\n"
    )
    path = Path(path)
    unfinished = _unfinished_name(path)
    try:
        with open(unfinished, "wb") as file:
            file.write(header.encode("ascii"))
            file.write(memoryview(vertices).cast("B"))
            file.write(memoryview(faces).cast("B"))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


class Pc2Writer:
    """Streams vertex positions into a PC2 point cache, as Blender's Mesh Cache modifier reads it.

    A context manager: the file takes its name when the block ends with all frames written, and vanishes when the
    block fails. Memory does not depend on the number of frames.

        with Pc2Writer(path, vertices_per_frame, frames) as cache:
            for mesh in meshes:
                cache.append(mesh.vertices)

    Args:
        path: file to write.
        vertices_per_frame, frames: what the cache will hold, both at least 1.
        start: frame number of the first sample.
        sample_rate: frames from one sample to the next.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        vertices_per_frame: int,
        frames: int,
        *,
        start: float = 0.0,
        sample_rate: float | Fraction = 1.0,
    ) -> None:
        if vertices_per_frame < 1 or frames < 1:
            raise ValueError(f"a cache needs vertices and frames, got {vertices_per_frame} vertices, {frames} frames")
        self.path = Path(path)
        self.vertices_per_frame = vertices_per_frame
        self.frames = frames
        self.written = 0
        self._unfinished = _unfinished_name(self.path)
        self._file = open(self._unfinished, "wb")  # noqa: SIM115 (closed by __exit__)
        self._file.write(
            PC2_HEADER.pack(PC2_SIGNATURE, PC2_VERSION, vertices_per_frame, start, float(sample_rate), frames)
        )

    def append(self, vertices: torch.Tensor | np.ndarray) -> None:
        """Write the next frames.

        Args:
            vertices: (n, V, 3) or one frame's (V, 3), float32.

        Raises:
            ValueError: another number of vertices than announced, or more frames.
        """
        if isinstance(vertices, torch.Tensor):
            vertices = vertices.detach().cpu().numpy()
        block = vertices[None] if vertices.ndim == 2 else vertices
        if block.ndim != 3 or block.shape[1:] != (self.vertices_per_frame, 3):
            raise ValueError(
                f"vertices have shape {vertices.shape}, the cache was opened for (n, {self.vertices_per_frame}, 3)"
            )
        if self.written + len(block) > self.frames:
            raise ValueError(
                f"the cache was opened for {self.frames} frames: {self.written} are written, {len(block)} more came"
            )
        self._file.write(memoryview(np.ascontiguousarray(block, dtype="<f4")).cast("B"))
        self.written += len(block)

    def __enter__(self) -> Pc2Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
            if kind is not None:
                return
            if self.written != self.frames:
                raise ValueError(f"the cache was opened for {self.frames} frames, only {self.written} were written")
            os.replace(self._unfinished, self.path)
        finally:
            self._unfinished.unlink(missing_ok=True)


def _unfinished_name(path: Path) -> Path:
    """A name of its own beside the target, so that two writers never share one and a rename stays on one disk."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
