"""Writes camera paths as other programs read them: .chan, COLMAP's text, and transforms.json of nerfstudio.

All are in the scene's world. `ex4d.depth.camera_files` reads the last two back.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from ex4d.media.media_errors import atomic_write, translate_write_errors
from ex4d_core.cameras import FLIP_Y_AND_Z, CameraPath

IMAGE_NAME = "frame_{:05d}.png"
_EXACT = ".15g"
MODEL_FILES_WRITTEN = ("cameras.txt", "images.txt", "points3D.txt")


def write_chan(path: Path, camera: CameraPath, first_frame: int = 1) -> None:
    """Nuke's .chan: frame, position, rotation in degrees in Nuke's order ZXY, and vertical field of view; y up.

    It has no place for a principal point beside the middle, nor for pixels that are not square.
    """
    to_world = FLIP_Y_AND_Z @ camera.camera_to_world @ FLIP_Y_AND_Z
    fov = 2 * np.degrees(np.arctan(camera.height / 2 / camera.intrinsics[:, 1, 1]))
    rotations = [_zxy_degrees(matrix) for matrix in to_world[:, :3, :3]]
    rows = [
        "\t".join([str(first_frame + index), *(format(value, _EXACT) for value in (*place, *turns, angle))])
        for index, (place, turns, angle) in enumerate(zip(to_world[:, :3, 3], rotations, fov, strict=True))
    ]
    _write_text(path, "\n".join(rows))


def write_transforms(path: Path, camera: CameraPath, first_frame: int = 1, fps: float = 0.0) -> None:
    """transforms.json of nerfstudio: camera-to-world with y up, each frame with its intrinsics.

    Args:
        fps: adds the `time` of each frame, from 0; 0 adds none.
    """
    frames = []
    for index, (matrix, lens) in enumerate(zip(camera.camera_to_world @ FLIP_Y_AND_Z, camera.intrinsics, strict=True)):
        frame = {"file_path": f"images/{IMAGE_NAME.format(first_frame + index)}", "transform_matrix": matrix.tolist()}
        frame |= {"fl_x": lens[0, 0], "fl_y": lens[1, 1], "cx": lens[0, 2], "cy": lens[1, 2]}
        frames.append({**frame, "time": index / fps} if fps else frame)
    document = {"camera_model": "PINHOLE", "w": camera.width, "h": camera.height, "frames": frames}
    _write_text(path, json.dumps(document, indent=1))


def write_colmap(folder: Path, camera: CameraPath, first_frame: int = 1) -> None:
    """COLMAP's model as text, without points: one PINHOLE camera, or one for each frame of a lens that zooms."""
    zooms = not (camera.intrinsics == camera.intrinsics[0]).all()
    cameras, images = [], []
    for index, (matrix, lens) in enumerate(zip(camera.world_to_camera, camera.intrinsics, strict=True)):
        number = index + 1 if zooms else 1
        if zooms or index == 0:
            values = (lens[0, 0], lens[1, 1], lens[0, 2], lens[1, 2])
            cameras.append(f"{number} PINHOLE {camera.width} {camera.height} {_words(values)}")
        pose = _words((*_quaternion(matrix[:3, :3]), *matrix[:3, 3]))
        images += [f"{index + 1} {pose} {number} {IMAGE_NAME.format(first_frame + index)}", ""]
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in zip(MODEL_FILES_WRITTEN, (cameras, images, []), strict=True):
        _write_text(folder / name, "\n".join(lines))


def _zxy_degrees(rotation: np.ndarray) -> tuple[float, float, float]:
    """Turns about x, y and z of R = Ry Rx Rz."""
    sine = float(np.clip(-rotation[1, 2], -1, 1))
    x = math.asin(sine)
    if abs(sine) > 1 - 1e-12:  # straight up or down: turns about y and z are the same
        y, z = math.atan2(-rotation[2, 0], rotation[0, 0]), 0.0
    else:
        y = math.atan2(rotation[0, 2], rotation[2, 2])
        z = math.atan2(rotation[1, 0], rotation[1, 1])
    return math.degrees(x), math.degrees(y), math.degrees(z)


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """(4,) w, x, y, z of a rotation (3, 3), w not negative: the largest eigenvector, exact for all angles.

    Source: Bar-Itzhack, New method for extracting the quaternion from a rotation matrix, 2000.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    matrix = np.array(
        [
            [xx - yy - zz, 0, 0, 0],
            [yx + xy, yy - xx - zz, 0, 0],
            [zx + xz, zy + yz, zz - xx - yy, 0],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    _, vectors = np.linalg.eigh(matrix)
    x, y, z, w = vectors[:, -1]
    quaternion = np.array([w, x, y, z])
    return quaternion if w >= 0 else -quaternion


def _words(values: tuple[float, ...]) -> str:
    return " ".join(format(value, _EXACT) for value in values)


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as partial, translate_write_errors(path):
        partial.write_text(text + "\n" if text else "", encoding="utf-8")
