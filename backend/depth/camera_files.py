"""Cameras that other programs solved or rendered: COLMAP's text and NeRF's transforms.json, as a source camera's path.

With known depth and such a camera, the mesh of each frame stands in one world. That world is the first frame's camera,
so that presets and the Blender import work as for a camera that stands still.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ex4d_core.cameras import (
    CameraError,
    CameraPath,
    camera_from_quaternion,
    intrinsics_matrix,
    invert_rigid,
    world_to_camera_from_opengl,
)

from ..media import FootageInfo
from ..media.sequences import natural_key

# COLMAP's camera models: how many parameters, and whether the first is one focal length or two stand there.
_COLMAP_MODELS = {"SIMPLE_PINHOLE": 1, "PINHOLE": 2, "SIMPLE_RADIAL": 1, "RADIAL": 1, "OPENCV": 2}
_LARGEST_DISTORTION = 1e-3  # beyond this, straight lines are visibly bent, and a pinhole camera is wrong


class CameraFileError(CameraError):
    """A camera file that cannot be used for this footage."""


def read_source_camera(path: Path, footage: FootageInfo, scale: float = 1.0) -> CameraPath:
    """The moving camera that filmed `footage`.

    Args:
        path: our own .npz (`CameraPath.save`); a transforms.json; or a folder with COLMAP's cameras.txt and images.txt
            (`colmap model_converter --output_type TXT`), or its images.txt.
        scale: multiplies positions, where depth has another unit than the cameras.

    Returns:
        One camera for each frame, in the order of the images' numbers, at the footage's size; the first is the world.

    Raises:
        CameraFileError: unreadable, distorted, or not as many cameras as frames.
        CameraError: impossible cameras.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise CameraFileError(f"scale={scale:g} is not possible. Give a finite factor above 0.")
    if path.suffix.lower() == ".npz":
        camera = CameraPath.load(path, footage.width, footage.height)
    elif path.suffix.lower() == ".json":
        camera = _nerf(path, footage)
    elif path.is_dir() or path.name == "images.txt":
        camera = _colmap(path if path.is_dir() else path.parent)
    else:
        raise CameraFileError(
            f"{path}: is no camera file. Give a .npz, a transforms.json, or a folder with cameras.txt and images.txt."
        )
    if len(camera) != footage.frames:
        raise CameraFileError(
            f"{path}: has {len(camera)} cameras, but the footage {footage.path.name} has {footage.frames} frames. "
            "Solve every frame, or trim the footage."
        )
    if (camera.width, camera.height) != (footage.width, footage.height):
        if abs(camera.width / camera.height - footage.width / footage.height) > 0.01 * footage.width / footage.height:
            raise CameraFileError(
                f"{path}: is for pictures of {camera.width}x{camera.height}, which the footage "
                f"({footage.width}x{footage.height}) is not a copy of at another size. Use the same framing."
            )
        camera = camera.resized(footage.width, footage.height)
    return _in_first_frames_world(camera, scale)


def _in_first_frames_world(camera: CameraPath, scale: float) -> CameraPath:
    relative = camera.world_to_camera @ invert_rigid(camera.world_to_camera[:1])
    relative[:, :3, 3] *= scale
    relative[0] = np.eye(4)
    return CameraPath(relative, camera.intrinsics, camera.width, camera.height)


def _nerf(path: Path, footage: FootageInfo) -> CameraPath:
    """transforms.json of NeRF, Instant-NGP and Nerfstudio: camera-to-world with y up and -z forward."""
    try:
        document = json.loads(path.read_text("utf-8"))
        frames = sorted(document["frames"], key=lambda frame: natural_key(str(frame.get("file_path", ""))))
        poses = np.array([frame["transform_matrix"] for frame in frames], dtype=np.float64)
        if poses.shape != (len(frames), 4, 4):
            raise ValueError(f"transform_matrix of shape {poses.shape[1:]}")
        lenses = [_nerf_lens({**document, **frame}, footage) for frame in frames]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CameraFileError(f"{path}: is no transforms.json that can be read ({error!r}).") from error
    if not frames:
        raise CameraFileError(f"{path}: holds no frames.")
    for index, frame in enumerate(frames):
        _refuse_distortion(path, index, [{**document, **frame}.get(name, 0.0) for name in ("k1", "k2", "p1", "p2")])
    width, height = int(document.get("w", footage.width)), int(document.get("h", footage.height))
    return CameraPath(world_to_camera_from_opengl(poses), np.stack(lenses), width, height)


def _nerf_lens(values: dict[str, Any], footage: FootageInfo) -> np.ndarray:
    width, height = float(values.get("w", footage.width)), float(values.get("h", footage.height))
    if "fl_x" in values:
        focal_x = float(values["fl_x"])
    elif "camera_angle_x" in values:
        focal_x = width / (2 * math.tan(float(values["camera_angle_x"]) / 2))
    else:
        raise ValueError("neither fl_x nor camera_angle_x")
    focal_y = float(values.get("fl_y", focal_x))
    return intrinsics_matrix(focal_x, focal_y, float(values.get("cx", width / 2)), float(values.get("cy", height / 2)))


def _colmap(folder: Path) -> CameraPath:
    """cameras.txt and images.txt of COLMAP: world-to-camera as quaternion (w first) and translation, OpenCV axes."""
    if (folder / "images.bin").exists() and not (folder / "images.txt").exists():
        raise CameraFileError(
            f"{folder}: holds COLMAP's binary files. Convert them: colmap model_converter --input_path {folder} "
            f"--output_path {folder} --output_type TXT"
        )
    lenses, sizes = _colmap_lenses(folder / "cameras.txt")
    path, images = folder / "images.txt", []
    lines = _lines(path, keep_empty=True)
    # Two lines an image: its pose, and its points, which may be none.
    for line in lines[::2]:
        words = line.split()
        try:
            images.append((words[9], [float(word) for word in words[1:8]], int(words[8])))
        except (ValueError, IndexError) as error:
            raise CameraFileError(f"{path}: cannot read the line {line[:80]!r}.") from error
    images.sort(key=lambda image: natural_key(image[0]))
    if not images:
        raise CameraFileError(f"{path}: holds no images.")
    try:
        intrinsics = np.stack([lenses[camera] for _, _, camera in images])
        found = {sizes[camera] for _, _, camera in images}
    except KeyError as error:
        raise CameraFileError(f"{path}: names a camera {error} that cameras.txt lacks.") from error
    if len(found) > 1:
        raise CameraFileError(f"{path}: images have different sizes {sorted(found)}. Solve the frames of one clip.")
    poses = np.stack([camera_from_quaternion(pose[:4], pose[4:]) for _, pose, _ in images])
    return CameraPath(poses, intrinsics, *found.pop())


def _colmap_lenses(path: Path) -> tuple[dict[int, np.ndarray], dict[int, tuple[int, int]]]:
    lenses, sizes = {}, {}
    for line in _lines(path):
        words = line.split()
        try:
            number, model, size = int(words[0]), words[1], (int(words[2]), int(words[3]))
            values = [float(word) for word in words[4:]]
            focals = _COLMAP_MODELS[model]
            centre_x, centre_y = values[focals : focals + 2]
        except KeyError as error:
            known = ", ".join(_COLMAP_MODELS)
            raise CameraFileError(
                f"{path}: camera model {error} is not known here. Undistort to one of {known}."
            ) from error
        except (ValueError, IndexError) as error:
            raise CameraFileError(f"{path}: cannot read the line {line[:80]!r}.") from error
        _refuse_distortion(path, number, values[focals + 2 :])
        lenses[number] = intrinsics_matrix(values[0], values[focals - 1], centre_x, centre_y)
        sizes[number] = size
    return lenses, sizes


def _lines(path: Path, keep_empty: bool = False) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CameraFileError(f"{path}: cannot be read ({error}).") from error
    return [line for line in lines if not line.startswith("#") and (keep_empty or line.strip())]


def _refuse_distortion(path: Path, number: int, coefficients: list[float]) -> None:
    if any(abs(value) > _LARGEST_DISTORTION for value in coefficients):
        raise CameraFileError(
            f"{path}: camera {number} has lens distortion {coefficients}. Undistort the footage and its depth first "
            "(colmap image_undistorter)."
        )
