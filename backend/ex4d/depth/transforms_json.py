"""Reads transforms.json of NeRF, Instant-NGP and nerfstudio: an image's values go before those of the whole file.

Layout: nerfstudio's documentation, "Data conventions". Poses are camera-to-world with y up and -z forward.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.depth.pose_gaps import frame_order
from ex4d.depth.solved_images import Bend, SolvedImage, brown, fisheye
from ex4d.media import FootageInfo
from ex4d_core.cameras import CameraError, intrinsics_matrix, world_to_camera_from_opengl

# 100,000 frames with long names; as objects they take several times as much.
_MAX_JSON_BYTES = 100_000_000
_PINHOLES = ("", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
_FISHEYES = ("FISHEYE", "OPENCV_FISHEYE")
_TIMES = ("time", "timestamp")
# Focal lengths below this many image widths, with a centre within 1, are of an image whose sides are 1.
_LARGEST_NORMALISED = 20.0


def read_transforms(path: Path, footage: FootageInfo) -> tuple[list[SolvedImage], tuple[str, ...]]:
    """The images in the order of their frames, and sentences for the artist about what was assumed.

    Frames with a `time` of their own are in its order, others in that of the numbers in their names.

    Args:
        footage: whose size is taken where the file states none.

    Raises:
        CameraError: unreadable, of another lens than a pinhole or OpenCV's, or not rigid.
    """
    try:
        if (size := path.stat().st_size) > _MAX_JSON_BYTES:
            raise ValueError(f"{size} bytes, at most {_MAX_JSON_BYTES} are expected")
        document = json.loads(path.read_text("utf-8"))
        frames = document["frames"]
        frames = [frames[index] for index in _order(frames)]
        matrices = [frame["transform_matrix"] for frame in frames]
        # Some programs leave out the last row.
        poses = np.array([[*rows, [0, 0, 0, 1]] if len(rows) == 3 else rows for rows in matrices], dtype=np.float64)
        if frames and poses.shape != (len(frames), 4, 4):
            raise ValueError(f"transform_matrix of shape {poses.shape[1:]}")
        values = [{**document, **frame} for frame in frames]
        bends = [_bend(path, value) for value in values]  # first: another lens has no focal length
        lenses = [_lens(value, footage) for value in values]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, CameraError):
            raise
        raise CameraError(f"{path}: not a readable transforms.json ({error!r}). Export it again.") from error
    if not frames:
        raise CameraError(f"{path}: holds no frames. Export it again.")
    names = [str(frame.get("file_path", "")) for frame in frames]
    images = [
        SolvedImage(name, pose, matrix, width, height, bend)
        for name, pose, (matrix, width, height, _), bend in zip(
            names, world_to_camera_from_opengl(poses), lenses, bends, strict=True
        )
    ]
    return images, ("the camera file's intrinsics are shares of the image's sides",) if lenses[0][3] else ()


def _order(frames: Sequence[dict[str, Any]]) -> Sequence[int]:
    for name in _TIMES:
        times = [float(time) for frame in frames if isinstance(time := frame.get(name), int | float)]
        if len(set(times)) == len(frames) > 1:
            return sorted(range(len(frames)), key=times.__getitem__)
    return frame_order([str(frame.get("file_path", "")) for frame in frames])


def _lens(values: dict[str, Any], footage: FootageInfo) -> tuple[np.ndarray, float, float, bool]:
    """(3, 3) in pixels of an image of a width and a height, and whether it was stored without a unit."""
    width, height = float(values.get("w", footage.width)), float(values.get("h", footage.height))
    if not (1 <= width < math.inf and 1 <= height < math.inf):
        raise ValueError(f"an image of {width:g}x{height:g}")
    if "fl_x" in values:
        focal_x = float(values["fl_x"])
        focal_y = float(values.get("fl_y", focal_x))
    elif "camera_angle_x" in values:
        focal_x = focal_y = width / (2 * math.tan(float(values["camera_angle_x"]) / 2))
        if "camera_angle_y" in values:
            focal_y = height / (2 * math.tan(float(values["camera_angle_y"]) / 2))
    else:
        raise ValueError("neither fl_x nor camera_angle_x")
    centre = [float(values[name]) for name in ("cx", "cy") if name in values]
    if len(centre) == 2 and "fl_x" in values and 0 < focal_x < _LARGEST_NORMALISED and max(map(abs, centre)) <= 1:
        vertical = focal_y * height if "fl_y" in values else focal_x * width
        return intrinsics_matrix(focal_x * width, vertical, centre[0] * width, centre[1] * height), width, height, True
    x, y = float(values.get("cx", width / 2)), float(values.get("cy", height / 2))
    return intrinsics_matrix(focal_x, focal_y, x, y), width, height, False


def _bend(path: Path, values: dict[str, Any]) -> Bend | None:
    """The lens distortion of an image.

    Raises:
        CameraError: of a lens that cannot be undistorted, or not finite.
    """
    model = str(values.get("camera_model") or "").upper()
    is_fisheye = model in _FISHEYES or bool(values.get("is_fisheye", False))
    if not is_fisheye and model not in _PINHOLES:
        known = ", ".join((*_PINHOLES[1:], *_FISHEYES))
        raise CameraError(
            f"{path}: unsupported camera_model {model!r:.40}: expected one of {known}. Export perspective images."
        )
    names = ("k1", "k2", "k3", "k4", "p1", "p2")
    packed = values.get("distortion_params")
    try:
        found = [float(values.get(name) or 0) for name in names]
        if packed and not any(found):
            found = [*map(float, packed), *(0.0,) * 6][:6]
    except (TypeError, ValueError) as error:
        raise CameraError(f"{path}: lens distortion that is no number ({error}). Export it again.") from error
    if not all(map(math.isfinite, found)):
        raise CameraError(f"{path}: lens distortion {found} is not finite. Export it again.")
    if any(values.get(name) for name in ("k5", "k6")):
        raise CameraError(
            f"{path}: lens distortion with k5 or k6 is not supported. Undistort the images, or solve with OPENCV."
        )
    return fisheye(found[:4]) if is_fisheye else brown(found[:4], found[4:])
