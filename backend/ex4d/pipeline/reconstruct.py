"""Footage and its depth to a scene package: the DW-Mesh of every frame, its texture, and the camera that filmed it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ex4d.depth import DepthClip
from ex4d.media import FootageInfo, VideoWriter, read_frames
from ex4d.mesh import Pc2Writer, build_dw_mesh, grid_topology
from ex4d_core.cameras import CameraPath
from ex4d_core.scene import Scene, SceneManifest, SceneWriter
from ex4d_core.sources import name_for_people
from ex4d_core.trajectories import subject_distance

# Footage frames turned into meshes at a time: enough to keep torch busy, 200 MB at 1080p.
_FRAMES_AT_ONCE = 4


def reconstruct(
    footage: FootageInfo,
    depth: DepthClip,
    intrinsics: np.ndarray,
    folder: Path,
    *,
    name: str,
    convention: str = "centered",
    source_camera: CameraPath | None = None,
    provenance: dict[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scene:
    """Build a scene package in ``folder``, streaming: memory does not depend on the number of frames.

    Args:
        footage: of `ex4d.media.probe`.
        depth: what a `DepthEstimator` made for this footage.
        intrinsics: (3, 3) or (T, 3, 3), pixels of the footage.
        name: of the scene, for people.
        convention: how the DW-Mesh for display is built; rendering may choose again.
        source_camera: the moving camera that filmed it, one pose for each frame; each frame's mesh then stands in that
            camera's world. None: a camera that stands still at the origin. Only `intrinsics` say what the lens is.
        provenance: where depth and focal length came from, for people.
        progress: called with frames done and frames in all.

    Raises:
        DepthError: depth has impossible values, or its files are damaged.
        MediaError: the footage cannot be read to its end.
        SceneError: ``folder`` is in use for something else.
        ValueError: `source_camera` has another number of frames.
    """
    frames, height, width = footage.frames, footage.height, footage.width
    lens = np.broadcast_to(np.asarray(intrinsics, dtype=np.float64), (frames, 3, 3))
    if source_camera is not None and len(source_camera) != frames:
        raise ValueError(f"a source camera of {len(source_camera)} frames does not fit footage of {frames}")
    still = np.broadcast_to(np.eye(4), (frames, 4, 4))
    camera = CameraPath(still if source_camera is None else source_camera.world_to_camera, lens, width, height)
    camera_to_world = None if source_camera is None else torch.from_numpy(camera.camera_to_world)
    faces, uvs, cap_faces = grid_topology(height, width, convention)
    nearest, farthest, distance = np.inf, 0.0, None

    with SceneWriter(folder) as writer:
        color_file = writer.array("color", (frames, height, width, 3), np.uint8)
        depth_file = writer.array("depth", (frames, height, width), np.float32)
        with (
            VideoWriter(writer.path("footage"), width, height, footage.fps) as movie,
            Pc2Writer(writer.path("positions"), len(uvs), frames) as positions,
        ):
            for start, color, z in _batches(footage, depth):
                for picture in color:
                    movie.write(picture)
                mesh = build_dw_mesh(
                    torch.from_numpy(z),
                    torch.from_numpy(color),
                    torch.from_numpy(lens[start : start + len(z)].copy()),
                    convention=convention,
                    camera_to_world=None if camera_to_world is None else camera_to_world[start : start + len(z)],
                )
                positions.append(mesh.vertices)
                color_file.write(color)
                depth_file.write(z)
                nearest, farthest = min(nearest, float(z.min())), max(farthest, float(z.max()))
                if start == 0:
                    distance = subject_distance(z[0])
                progress(start + len(z), frames)
        np.savez(writer.path("topology"), faces=faces.numpy(), uvs=uvs.numpy(), cap_faces=np.int64(cap_faces))
        camera.save(writer.path("source_camera"))
        told = {"depth": depth.source, "depth licence": depth.licence, **(provenance or {})}
        return writer.finish(
            SceneManifest(
                name=name_for_people(name),
                frames=frames,
                width=width,
                height=height,
                fps=footage.fps,
                convention=convention,
                depth_range=(nearest, farthest),
                subject_distance=distance,
                depth_scale=depth.scale,
                provenance={what: name_for_people(text) for what, text in told.items()},
            )
        )


def _batches(footage: FootageInfo, depth: DepthClip) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(first frame, colour (n, H, W, 3) uint8, depth (n, H, W) float32) until the footage ends."""
    pairs = zip(read_frames(footage.path, count=footage.frames), depth, strict=True)
    start = 0
    while batch := list(islice(pairs, _FRAMES_AT_ONCE)):
        color, z = (np.stack(part) for part in zip(*batch, strict=True))
        yield start, color, z
        start += len(batch)
