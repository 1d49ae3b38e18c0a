"""Reads the camera that filmed some footage from COLMAP's, NeRF's and our own files, as a `CameraPath`.

With known depth and such a camera, the meshes of all frames are in one world, that of the first frame's camera, so that
presets and the Blender import work as for a static camera.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.depth.colmap import MODEL_FILES, read_colmap, read_colmap_points, refuse_distortion
from ex4d.depth.source_camera import in_first_frames_world
from ex4d.depth.sparse_points import SparsePoints
from ex4d.media import FootageInfo
from ex4d.media.sequences import natural_key
from ex4d_core.cameras import CameraError, CameraPath, intrinsics_matrix, world_to_camera_from_opengl

# 100,000 frames with long names; as objects they take several times as much.
_MAX_JSON_BYTES = 100_000_000


def read_source_camera(path: Path, footage: FootageInfo, scale: float = 1.0) -> CameraPath:
    """The moving camera that filmed `footage`.

    Args:
        path: our own .npz (`CameraPath.save`); a transforms.json, or a folder that holds one; or a folder with
            COLMAP's model (cameras.bin and images.bin, or both as .txt), or one of its files.
        footage: of `ex4d.media.probe`.
        scale: multiplies positions, where depth has another unit than the cameras.

    Returns:
        One camera for each frame, in the order of the images' numbers, at the footage's size; the first is the world.

    Raises:
        CameraError: unreadable, distorted, not rigid, or not as many cameras as frames.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise CameraError(f"invalid scale={scale:g}: expected a finite factor above 0")
    if path.suffix.lower() == ".npz":
        camera = CameraPath.load(path, footage.width, footage.height)
    elif path.suffix.lower() == ".json":
        camera = _nerf(path, footage)
    elif path.is_dir() and (path / "transforms.json").exists():
        camera = _nerf(path / "transforms.json", footage)
    elif path.is_dir() or path.name in MODEL_FILES:
        camera = read_colmap(path)
    else:
        raise CameraError(
            f"{path}: not a camera file. Give a .npz, a transforms.json, or a folder with COLMAP's cameras and images "
            "(.bin or .txt)."
        )
    if len(camera) != footage.frames:
        raise CameraError(
            f"{path}: has {len(camera)} cameras, but the footage {footage.path.name} has {footage.frames} frames. "
            "Solve every frame, or trim the footage."
        )
    if (camera.width, camera.height) != (footage.width, footage.height):
        if abs(camera.width / camera.height - footage.width / footage.height) > 0.01 * footage.width / footage.height:
            raise CameraError(
                f"{path}: is for images of {camera.width}x{camera.height}, whose aspect ratio the footage "
                f"({footage.width}x{footage.height}) does not have. Use the same framing."
            )
        camera = camera.resized(footage.width, footage.height)
    return in_first_frames_world(camera, scale)


def read_source_points(path: Path, footage: FootageInfo, scale: float = 1.0) -> SparsePoints | None:
    """The points that were solved together with a camera of `read_source_camera`, which takes the same arguments.

    Returns:
        None for camera files without points: only COLMAP's models have them.

    Raises:
        CameraError: the points cannot be read.
    """
    if not (path.is_dir() or path.name in MODEL_FILES) or (path.is_dir() and (path / "transforms.json").exists()):
        return None
    points = read_colmap_points(path)
    if points is None:
        return None
    camera = read_colmap(path)
    return points.resized(footage.width / camera.width, footage.height / camera.height).scaled(scale)


def _nerf(path: Path, footage: FootageInfo) -> CameraPath:
    """transforms.json of NeRF, Instant-NGP and Nerfstudio: camera-to-world with y up and -z forward."""
    try:
        if (size := path.stat().st_size) > _MAX_JSON_BYTES:
            raise ValueError(f"{size} bytes, at most {_MAX_JSON_BYTES} are expected")
        document = json.loads(path.read_text("utf-8"))
        frames = sorted(document["frames"], key=lambda frame: natural_key(str(frame.get("file_path", ""))))
        poses = np.array([frame["transform_matrix"] for frame in frames], dtype=np.float64)
        if poses.shape != (len(frames), 4, 4):
            raise ValueError(f"transform_matrix of shape {poses.shape[1:]}")
        intrinsics = [_nerf_intrinsics({**document, **frame}, footage) for frame in frames]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CameraError(f"{path}: not a readable transforms.json ({error!r}). Export it again.") from error
    if not frames:
        raise CameraError(f"{path}: holds no frames. Export it again.")
    for index, frame in enumerate(frames):
        refuse_distortion(path, index, [{**document, **frame}.get(name, 0.0) for name in ("k1", "k2", "p1", "p2")])
    width, height = int(document.get("w", footage.width)), int(document.get("h", footage.height))
    return CameraPath(world_to_camera_from_opengl(poses), np.stack(intrinsics), width, height)


def _nerf_intrinsics(values: dict[str, Any], footage: FootageInfo) -> np.ndarray:
    width, height = float(values.get("w", footage.width)), float(values.get("h", footage.height))
    if "fl_x" in values:
        focal_x = float(values["fl_x"])
    elif "camera_angle_x" in values:
        focal_x = width / (2 * math.tan(float(values["camera_angle_x"]) / 2))
    else:
        raise ValueError("neither fl_x nor camera_angle_x")
    focal_y = float(values.get("fl_y", focal_x))
    return intrinsics_matrix(focal_x, focal_y, float(values.get("cx", width / 2)), float(values.get("cy", height / 2)))
