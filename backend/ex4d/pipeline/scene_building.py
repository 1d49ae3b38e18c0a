"""Builds a scene package of depth and intrinsics that are already there: the last step of `reconstruct.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ex4d.depth import DepthClip
from ex4d.media import (
    FootageInfo,
    MotionMask,
    Undistorter,
    VideoWriter,
    footage_sha256,
    read_frames,
    sound_of,
    start_timecode,
)
from ex4d.mesh import DepthSurface, Pc2Writer, grid_topology
from ex4d.pipeline.deep_colors import DeepColors
from ex4d_core.cameras import CameraPath
from ex4d_core.lens_distortion import LensDistortion
from ex4d_core.mesh_cache import frame_positions, grid_vertices
from ex4d_core.pivots import middle_distance
from ex4d_core.render_settings import Convention
from ex4d_core.scene import Scene, SceneWriter
from ex4d_core.scene_manifest import FootageOrigin, SceneManifest
from ex4d_core.sources import name_for_people
from ex4d_core.trajectories import subject_distance

# Footage frames checked and written at a time, 60 MB at 1080p; of larger footage fewer.
_FRAMES_AT_ONCE, _PIXELS_AT_ONCE = 4, 4 * 1920 * 1080


def build_scene(
    footage: FootageInfo,
    depth: DepthClip,
    intrinsics: np.ndarray,
    folder: Path,
    *,
    name: str,
    convention: Convention = "centered",
    source_camera: CameraPath | None = None,
    mesh: bool = False,
    distortion: LensDistortion | None = None,
    mask: MotionMask | None = None,
    deep: DeepColors | None = None,
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
        mesh: write the vertex positions of every frame, too, for a package that Blender imports where it may not write;
            they take 12 bytes a pixel, of 19, and Blender writes them when it imports any other package.
        source_camera: the moving camera that filmed it, one pose for each frame; the meshes are then in that
            camera's world. None: a camera that stands still at the origin. Only `intrinsics` say what the lens is.
        distortion: of the footage's lens, for its size; colour and depth are undistorted by it, and the scene's camera
            is that of the undistorted image. `intrinsics` are those of the lens without it.
        mask: of what moves in the footage.
        deep: keeps the footage's colours as half floats, too.
        provenance: where depth and focal length came from, for people.
        progress: called with frames done and frames in all.

    Raises:
        DepthError: depth has impossible values, or its files are damaged.
        MediaError: the footage cannot be read to its end.
        SceneError: ``folder`` holds something else.
        ValueError: `source_camera` has another number of frames.
    """
    frames, height, width = footage.frames, footage.height, footage.width
    if source_camera is not None and len(source_camera) != frames:
        raise ValueError(f"a source camera of {len(source_camera)} frames does not fit footage of {frames}")
    if distortion is not None:
        intrinsics = distortion.zoomed(intrinsics)
    undistorter = None if distortion is None else Undistorter(distortion)
    still = np.broadcast_to(np.eye(4), (frames, 4, 4))
    camera = CameraPath(still if source_camera is None else source_camera.world_to_camera, intrinsics, width, height)
    vertices = grid_vertices(width, height, convention)
    nearest, farthest, distance, middle = np.inf, 0.0, 0.0, 0.0

    with SceneWriter(folder) as writer:
        color_file = writer.array("color", (frames, height, width, 3), np.uint8)
        deep_file = None if deep is None else writer.array("deep_color", (frames, height, width, 3), np.float16)
        depth_file = writer.array("depth", (frames, height, width), np.float32)
        with ExitStack() as files:
            sound = sound_of(footage.path)
            how = {"sound": sound, "pixel_aspect": footage.pixel_aspect}
            movie = files.enter_context(VideoWriter(writer.path("footage"), width, height, footage.fps, **how))
            positions = files.enter_context(Pc2Writer(writer.path("positions"), vertices, frames)) if mesh else None
            for start, color, z, halves in _batches(footage, depth, undistorter, deep):
                for image in color:
                    movie.write(image)
                part = camera.frames(start, start + len(z))
                lowest, highest = DepthSurface(
                    torch.from_numpy(z),
                    torch.from_numpy(color),
                    torch.tensor(part.intrinsics),
                    torch.from_numpy(part.camera_to_world),
                    convention,
                ).depth_range
                if positions is not None:
                    for index, one in enumerate(z):
                        positions.append(frame_positions(one, part, index, convention))
                color_file.write(color)
                depth_file.write(z)
                if deep_file is not None and halves is not None:
                    deep_file.write(halves)
                nearest, farthest = min(nearest, float(lowest.min())), max(farthest, float(highest.max()))
                if start == 0:
                    distance, middle = subject_distance(z[0]), middle_distance(z[0])
                progress(start + len(z), frames)
        color = z = halves = None  # large frames need not be held beside the topology, which is as large
        faces, uvs, cap_faces = grid_topology(height, width, convention)
        np.savez(writer.path("topology"), faces=faces.numpy(), uvs=uvs.numpy(), cap_faces=np.int64(cap_faces))
        camera.save(writer.path("source_camera"))
        if mask is not None:
            mask_file = writer.array("motion_mask", (frames, height, width), np.bool_)
            for moving in mask.frames():
                mask_file.write(moving if undistorter is None else undistorter.depth(moving))
        label = (provenance or {}).get("footage", footage.path.name)
        origins = {"depth": depth.source, "depth licence": depth.licence, **(provenance or {})}
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
                middle_distance=middle,
                depth_scale=depth.scale,
                depth_mapping=depth.mapping,
                color_space="" if deep is None else deep.space,
                distortion=distortion,
                provenance={what: name_for_people(text) for what, text in origins.items()},
                origin=FootageOrigin(
                    name_for_people(label), footage_sha256(footage.path), start_timecode(footage.path)
                ),
            )
        )


def _batches(
    footage: FootageInfo, depth: DepthClip, undistorter: Undistorter | None, deep: DeepColors | None
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray | None]]:
    """(first frame, colour (n, H, W, 3) uint8, depth (n, H, W) float32, half floats (n, H, W, 3)) until footage ends.

    Half floats are None where none are kept.
    """
    pairs = depth.with_frames(read_frames(footage.path, count=footage.frames))
    if undistorter is not None:
        # Only now: estimated depth is refined along the edges of the footage as it is.
        pairs = ((undistorter.color(color), undistorter.depth(z)) for color, z in pairs)
    frames = pairs if deep is None else _with_halves(pairs, deep, undistorter)
    at_once = max(1, min(_FRAMES_AT_ONCE, _PIXELS_AT_ONCE // (footage.width * footage.height)))
    start = 0
    while batch := list(islice(frames, at_once)):
        # A single frame is a view of what was read, not a copy.
        parts = [part[0][None] if len(part) == 1 else np.stack(part) for part in zip(*batch, strict=True)]
        yield start, parts[0], parts[1], None if deep is None else parts[2]
        start += len(batch)


def _with_halves(
    pairs: Iterator[tuple[np.ndarray, np.ndarray]], deep: DeepColors, undistorter: Undistorter | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Frames with their depth and half floats; colours of 8 bits are made from these where their space was given."""
    for (color, z), picture in zip(pairs, deep.frames(), strict=True):
        encoded = picture if undistorter is None else undistorter.color(picture)
        shown = deep.screen(encoded)
        yield color if shown is None else shown, z, deep.halves(encoded)
