"""Passes that follow from a render's depth and its cameras: positions in the scene's world, and motion vectors."""

from __future__ import annotations

import numpy as np

from ex4d_core.cameras import CameraPath
from ex4d_core.output_settings import MotionName

_STEPS = {"forward": 1, "backward": -1}


def positions(depth: np.ndarray, camera: CameraPath, index: int) -> np.ndarray:
    """The points that a frame shows, in the scene's world.

    Args:
        depth: (H, W) float32 along the camera's z; infinite where there is no surface.
        camera: of the whole shot.
        index: of the frame.

    Returns:
        (H, W, 3) float32; 0 where there is no surface.
    """
    points, has_surface = _points(depth, camera, index)
    return (points * has_surface[..., None]).astype(np.float32)


def motion_vectors(depth: np.ndarray, camera: CameraPath, index: int, motion: MotionName) -> dict[str, np.ndarray]:
    """How far the points of a frame are from where other frames of the shot show them, as channels of an EXR.

    The scene stands still; only the camera moves. u points to the right and v up, as in Nuke's layers of these names.

    Args:
        depth, camera, index: as of `positions`.
        motion: forward.u and forward.v lead from this frame's pixel to that of the next frame, backward.u and
            backward.v to that of the frame before.

    Returns:
        (H, W) float32, pixels, by the channel's name. 0 where there is no surface, where the other camera has the
        point behind it, and where the shot has no such frame.
    """
    points, has_surface = _points(depth, camera, index)
    channels = {}
    for name, step in _STEPS.items():
        if motion not in (name, "both"):
            continue
        u, v = (np.zeros(depth.shape, np.float32) for _ in range(2))
        if 0 <= index + step < len(camera):
            pose, lens = camera.world_to_camera[index + step], camera.intrinsics[index + step]
            seen = points @ pose[:3, :3].T + pose[:3, 3]
            counts = has_surface & (seen[..., 2] > 0)
            across, down, away = seen[counts].T
            row, column = np.nonzero(counts)
            u[counts] = across / away * lens[0, 0] + lens[0, 2] - column - 0.5
            v[counts] = row + 0.5 - down / away * lens[1, 1] - lens[1, 2]
        channels |= {f"{name}.u": u, f"{name}.v": v}
    return channels


def _points(depth: np.ndarray, camera: CameraPath, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The points (H, W, 3) float64 of a frame, and where there is a surface, (H, W) bool."""
    height, width = depth.shape
    lens, pose = camera.intrinsics[index], camera.camera_to_world[index]
    z = np.where(np.isfinite(depth), depth, 0.0).astype(np.float64)
    x = (np.arange(width) + 0.5 - lens[0, 2]) / lens[0, 0]
    y = (np.arange(height) + 0.5 - lens[1, 2]) / lens[1, 1]
    points = np.dstack([x[None] * z, y[:, None] * z, z])
    return points @ pose[:3, :3].T + pose[:3, 3], z > 0
