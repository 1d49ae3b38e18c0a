"""Blender's cameras and optics from those of `ex4d_core.cameras`, and back.

A Blender camera looks along -z with y up in a world with z up, and its optics are a sensor in millimetres; scene and
shots have OpenCV's axes and intrinsics in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ex4d_core.cameras import (
    FLIP_Y_AND_Z,
    ORTHONORMAL_TOLERANCE,
    CameraError,
    intrinsics_matrix,
    invert_rigid,
    require_rigid,
)

# Blender's world (x right, y away from the viewer, z up) from the scene's OpenCV world (x right, y down, z forward).
BLENDER_FROM_SCENE = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=np.float64)


@dataclass(frozen=True)
class BlenderLens:
    """A Blender camera's optics and the render format that it looks through.

    Attributes:
        lens, sensor_width, sensor_height: millimetres.
        sensor_fit: "AUTO", "HORIZONTAL" or "VERTICAL".
        shift_x, shift_y: in units of the image's fitted side.
        width, height: rendered pixels, the scene's resolution percentage already applied.
        pixel_aspect_x, pixel_aspect_y: the render format's pixel aspect.
    """

    lens: float
    sensor_width: float
    sensor_height: float
    sensor_fit: Literal["AUTO", "HORIZONTAL", "VERTICAL"]
    shift_x: float
    shift_y: float
    width: int
    height: int
    pixel_aspect_x: float = 1.0
    pixel_aspect_y: float = 1.0


def intrinsics_from_blender(optics: BlenderLens) -> np.ndarray:
    """(3, 3) intrinsics in pixels, following Blender's own ``BKE_camera_params_compute_viewplane``."""
    aspect = optics.pixel_aspect_y / optics.pixel_aspect_x
    fit = optics.sensor_fit
    if fit == "AUTO":
        wide = optics.width * optics.pixel_aspect_x >= optics.height * optics.pixel_aspect_y
        fit = "HORIZONTAL" if wide else "VERTICAL"
    # With AUTO Blender measures the sensor by its width even when it fits it to the height.
    sensor = optics.sensor_height if optics.sensor_fit == "VERTICAL" else optics.sensor_width
    fitted_side = optics.width if fit == "HORIZONTAL" else aspect * optics.height
    focal_x = optics.lens / sensor * fitted_side
    return intrinsics_matrix(
        focal_x,
        focal_x / aspect,
        optics.width / 2 - optics.shift_x * fitted_side,
        optics.height / 2 + optics.shift_y * fitted_side / aspect,
    )


def blender_from_intrinsics(intrinsics: np.ndarray, width: int, height: int, sensor_width: float = 36.0) -> BlenderLens:
    """Blender optics that see exactly what (3, 3) ``intrinsics`` see; sensor fitted to the image's width."""
    focal_x, focal_y = intrinsics[0, 0], intrinsics[1, 1]
    # Blender wants pixel aspects of at least 1.
    aspect_x, aspect_y = (1.0, focal_x / focal_y) if focal_x >= focal_y else (focal_y / focal_x, 1.0)
    return BlenderLens(
        lens=focal_x * sensor_width / width,
        sensor_width=sensor_width,
        sensor_height=sensor_width * height / width,
        sensor_fit="HORIZONTAL",
        shift_x=(width / 2 - intrinsics[0, 2]) / width,
        shift_y=(intrinsics[1, 2] - height / 2) * (focal_x / focal_y) / width,
        width=width,
        height=height,
        pixel_aspect_x=aspect_x,
        pixel_aspect_y=aspect_y,
    )


def world_to_camera_from_blender(
    camera_matrices: np.ndarray, scene_matrix: np.ndarray = BLENDER_FROM_SCENE
) -> np.ndarray:
    """OpenCV world-to-camera in the scene's world, from Blender's evaluated ``matrix_world`` of a camera.

    Args:
        camera_matrices: (T, 4, 4) camera-to-world in Blender's world. Scale (of parents, say) does not change what
            Blender renders and is taken out.
        scene_matrix: (4, 4) ``matrix_world`` of the imported scene object, which an artist may move, turn and scale
            uniformly; as imported it is ``BLENDER_FROM_SCENE``.

    Raises:
        CameraError: the scene object is scaled unevenly or sheared, or a camera is sheared or mirrored.
    """
    scene_matrix = np.asarray(scene_matrix, dtype=np.float64)
    scale = np.linalg.norm(scene_matrix[:3, :3], axis=0)
    if scale.min() <= 0 or scale.max() / scale.min() > 1 + ORTHONORMAL_TOLERANCE:
        raise CameraError(f"the scene object is scaled unevenly by {scale.round(4).tolist()}; scale all axes alike")
    camera_in_scene = np.linalg.inv(scene_matrix) @ np.asarray(camera_matrices, dtype=np.float64)
    lengths = np.linalg.norm(camera_in_scene[:, :3, :3], axis=1, keepdims=True)
    if lengths.min() < 1e-12:
        raise CameraError("the camera is scaled to zero; give it a scale of 1")
    camera_in_scene[:, :3, :3] /= lengths
    camera_to_world = camera_in_scene @ FLIP_Y_AND_Z
    require_rigid(camera_to_world)
    return invert_rigid(camera_to_world)


def blender_from_world_to_camera(
    world_to_camera: np.ndarray, scene_matrix: np.ndarray = BLENDER_FROM_SCENE
) -> np.ndarray:
    """Blender ``matrix_world`` (T, 4, 4) of cameras given in the scene's world; the inverse of the function above."""
    camera = np.asarray(scene_matrix, dtype=np.float64) @ invert_rigid(world_to_camera) @ FLIP_Y_AND_Z
    camera[:, :3, :3] /= np.linalg.norm(camera[:, :3, :3], axis=1, keepdims=True)
    return camera
