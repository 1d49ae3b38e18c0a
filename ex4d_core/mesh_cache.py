"""The DW-Mesh's vertex positions as a PC2 point cache, computed from a scene's depth and written when it is needed.

Blender's Mesh Cache modifier reads PC2, which has float32 positions only: 12 bytes a vertex and frame, of which a scene
package needs none, as they follow from 4 bytes of depth. So the add-on writes the cache when it imports a scene. The
positions are those of `ex4d.mesh.build_dw_mesh`, without torch.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ex4d_core.cameras import CameraPath
from ex4d_core.durable_files import put_in_place
from ex4d_core.scene import PARTIAL_SUFFIX, Scene
from ex4d_core.scene_manifest import FILE_NAMES, SceneError

PC2_HEADER = struct.Struct("<12siiffi")  # signature, version, points, start frame, sample rate, samples
PC2_SIGNATURE = b"POINTCACHE2\0"
PC2_VERSION = 1

REFERENCE_BORDER_DEPTH = 100.0  # EX-4D's fixed depth of the 1-pixel border
RING_DEPTH_FACTOR = 1.1  # above 1 puts ring and caps behind the farthest surface; a small one keeps bounds tight


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
        # Its own name, since two Blenders may import a scene at once.
        self._partial = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex[:8]}{PARTIAL_SUFFIX}")

    def __enter__(self) -> Pc2Writer:
        """Create the file and write its header."""
        self._file = open(self._partial, "wb")
        self._file.write(PC2_HEADER.pack(PC2_SIGNATURE, PC2_VERSION, self.vertices_per_frame, 0.0, 1.0, self.frames))
        return self

    def append(self, vertices: Any) -> None:
        """Write the next frames.

        Args:
            vertices: (n, V, 3) or one frame's (V, 3), float32, an array or a tensor on the CPU.

        Raises:
            ValueError: not the announced number of vertices, or too many frames.
        """
        block = np.asarray(vertices)
        block = block[None] if block.ndim == 2 else block
        if block.ndim != 3 or block.shape[1:] != (self.vertices_per_frame, 3):
            shape = tuple(vertices.shape)
            raise ValueError(f"vertices have shape {shape}: expected (n, {self.vertices_per_frame}, 3)")
        if self.written + len(block) > self.frames:
            raise ValueError(f"the cache holds {self.frames} frames: {self.written} are written, got {len(block)} more")
        self._file.write(np.ascontiguousarray(block, dtype="<f4").data)
        self.written += len(block)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file and give it its name, or remove it after an error."""
        try:
            self._file.close()
            if kind is None:
                if self.written != self.frames:
                    raise ValueError(f"the cache holds {self.frames} frames: only {self.written} were written")
                put_in_place(self._partial, self.path)
        finally:
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)


def sample_positions(size: int, ring: int) -> np.ndarray:
    """Pixel coordinates of the vertex grid's columns (or rows), float64.

    With a ring: pixel centres and the image's two edges; without: pixel corners.
    """
    inner = np.arange(size, dtype=np.float64)
    return np.concatenate([[0.0], inner + 0.5, [float(size)]]) if ring else inner


def grid_vertices(width: int, height: int, convention: str) -> int:
    """How many vertices the mesh of an image has."""
    ring = _ring(convention)
    return (width + 2 * ring) * (height + 2 * ring)


def frame_positions(depth: np.ndarray, camera: CameraPath, frame: int, convention: str) -> np.ndarray:
    """Vertex positions of one frame's DW-Mesh.

    Args:
        depth: (H, W) float32 along z, scene units, finite and positive.
        camera: that filmed it.
        frame: of the camera.
        convention: "centered" or "reference", see `ex4d.mesh.build_dw_mesh`.

    Returns:
        (V, 3) float32 in the scene's world, OpenCV axes.
    """
    ring = _ring(convention)
    height, width = depth.shape
    lens = camera.intrinsics[frame]
    ray_x, ray_y = (
        ((sample_positions(size, ring) - lens[axis, 2]) / lens[axis, axis]).astype(np.float32)
        for axis, size in enumerate((width, height))
    )
    border = depth.max() * np.float32(RING_DEPTH_FACTOR) if ring else np.float32(REFERENCE_BORDER_DEPTH)
    positions = np.empty((height + 2 * ring, width + 2 * ring, 3), np.float32)
    z = positions[..., 2]
    z[:] = border
    z[1:-1, 1:-1] = depth if ring else depth[1:-1, 1:-1]
    np.multiply(z, ray_x, out=positions[..., 0])
    np.multiply(z, ray_y[:, None], out=positions[..., 1])
    pose = camera.camera_to_world[frame]
    if not np.array_equal(pose, np.eye(4)):
        rotation, eye = pose[:3, :3].astype(np.float32), pose[:3, 3].astype(np.float32)
        positions = positions @ rotation.T + eye
    return positions.reshape(-1, 3)


def positions_file(scene: Scene, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """The scene's PC2 cache: the package's own, or one beside its depth, which is written now if it is not there yet.

    Args:
        progress: called with frames done and frames in all, where there is something to write.

    Raises:
        SceneError: it cannot be written there, or the scene's depth cannot be read.
    """
    manifest = scene.manifest
    if "positions" in manifest.files:
        return scene.path("positions")
    path = scene.path("depth").with_name(FILE_NAMES["positions"])
    vertices = grid_vertices(manifest.width, manifest.height, manifest.convention)
    if not _is_complete(path, vertices, manifest.frames):
        depth, camera = scene.depth(), scene.source_camera()
        try:
            with Pc2Writer(path, vertices, manifest.frames) as cache:
                for frame in range(manifest.frames):
                    cache.append(frame_positions(depth[frame], camera, frame, manifest.convention))
                    progress(frame + 1, manifest.frames)
        except OSError as error:
            size = positions_bytes(vertices, manifest.frames)
            raise SceneError(
                f"cannot write {path} ({size / 1e6:.0f} MB) for Blender: {error.strerror}; copy the scene to a folder "
                "with room that you may write to, or have it written by: ex4d reconstruct --mesh"
            ) from error
    return path


def positions_bytes(vertices: int, frames: int) -> int:
    """Size of a PC2 cache."""
    return PC2_HEADER.size + 12 * vertices * frames


def _is_complete(path: Path, vertices: int, frames: int) -> bool:
    try:
        with open(path, "rb") as file:
            header = PC2_HEADER.unpack(file.read(PC2_HEADER.size))
        size = path.stat().st_size
    except (OSError, struct.error):
        return False
    return (header[2], header[5], size) == (vertices, frames, positions_bytes(vertices, frames))


def _ring(convention: str) -> int:
    """How many vertices lie beyond the image on each side."""
    return 1 if convention == "centered" else 0
