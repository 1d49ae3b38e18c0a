"""Passes that follow from a render's depth and its cameras: positions in the scene's world, and motion vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ex4d.raster.half_sphere import directions
from ex4d_core.cameras import CameraPath
from ex4d_core.output_settings import MotionName
from ex4d_core.stereo import StereoSettings

_STEPS = {"forward": 1, "backward": -1}


class View(Protocol):
    """How the images of one eye show the world, frame by frame.

    Attributes:
        camera: where the eye is.
    """

    camera: CameraPath

    def seen(self, depth: np.ndarray, index: int) -> np.ndarray:
        """(H, W, 3) float64, the points of an image, in the camera's axes.

        Args:
            depth: (H, W) float64, as the render has it.
            index: of the frame.
        """
        ...

    def shown(self, points: np.ndarray, index: int) -> np.ndarray:
        """(N, 2) float64, the pixels, across and down from the corner, of (N, 3) points in the camera's axes, z > 0."""
        ...


class PinholeView:
    """The images of a camera path; depth is along z."""

    def __init__(self, camera: CameraPath) -> None:
        self.camera = camera

    def seen(self, depth: np.ndarray, index: int) -> np.ndarray:
        """See `View`."""
        (height, width), lens = depth.shape, self.camera.intrinsics[index]
        x = (np.arange(width) + 0.5 - lens[0, 2]) / lens[0, 0]
        y = (np.arange(height) + 0.5 - lens[1, 2]) / lens[1, 1]
        return np.dstack([x[None] * depth, y[:, None] * depth, depth])

    def shown(self, points: np.ndarray, index: int) -> np.ndarray:
        """See `View`."""
        lens = self.camera.intrinsics[index]
        return points[:, :2] / points[:, 2:] * lens[[0, 1], [0, 1]] + lens[:2, 2]


class HalfSphereView:
    """Equirectangular images of 180 by 180 degrees; depth is along the ray."""

    def __init__(self, camera: CameraPath, side: int) -> None:
        self.camera, self._side = camera, side
        self._rays = directions(side, np.arange(side)[None] + 0.5, np.arange(side)[:, None] + 0.5)

    def seen(self, depth: np.ndarray, index: int) -> np.ndarray:
        """See `View`."""
        return self._rays * depth[..., None]

    def shown(self, points: np.ndarray, index: int) -> np.ndarray:
        """See `View`."""
        x, y, z = points.T
        angles = np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], axis=-1)
        return (angles / math.pi + 0.5) * self._side


def views_of(camera: CameraPath, stereo: StereoSettings) -> tuple[View, ...]:
    """The view of each eye whose images stand side by side; one of a shot with one eye."""
    if not stereo.kind_of_movie:
        return (PinholeView(camera),)
    side, _ = stereo.eye_size(camera)
    is_round = stereo.layout == "vr180"
    return tuple(HalfSphereView(eye, side) if is_round else PinholeView(eye) for eye in stereo.eyes(camera))


def positions(depth: np.ndarray, views: Sequence[View], index: int) -> np.ndarray:
    """The points that a frame shows, in the scene's world.

    Args:
        depth: (H, W) float32 as the views have it, one beside the other; infinite where there is no surface.
        views: of the whole shot.
        index: of the frame.

    Returns:
        (H, W, 3) float32; 0 where there is no surface.
    """
    parts = []
    for view, part in zip(views, np.hsplit(depth, len(views)), strict=True):
        points, has_surface = _points(part, view, index)
        parts.append((points * has_surface[..., None]).astype(np.float32))
    return _beside(parts)


def motion_vectors(depth: np.ndarray, views: Sequence[View], index: int, motion: MotionName) -> dict[str, np.ndarray]:
    """How far the points of a frame are from where other frames of the shot show them, as channels of an EXR.

    The scene stands still; only the camera moves. u points to the right and v up, as in Nuke's layers of these names.

    Args:
        depth, views, index: as of `positions`.
        motion: forward.u and forward.v lead from this frame's pixel to that of the next frame, backward.u and
            backward.v to that of the frame before.

    Returns:
        (H, W) float32, pixels, by the channel's name. 0 where there is no surface, where the other camera has the
        point behind it, and where the shot has no such frame.
    """
    if motion == "none":
        return {}
    parts = [
        _vectors(part, view, index, motion) for view, part in zip(views, np.hsplit(depth, len(views)), strict=True)
    ]
    return {name: _beside([part[name] for part in parts]) for name in parts[0]}


def _vectors(depth: np.ndarray, view: View, index: int, motion: MotionName) -> dict[str, np.ndarray]:
    """The motion vectors of one view."""
    points, has_surface = _points(depth, view, index)
    channels = {}
    for name, step in _STEPS.items():
        if motion not in (name, "both"):
            continue
        u, v = (np.zeros(depth.shape, np.float32) for _ in range(2))
        if 0 <= index + step < len(view.camera):
            pose = view.camera.world_to_camera[index + step]
            seen = points @ pose[:3, :3].T + pose[:3, 3]
            counts = has_surface & (seen[..., 2] > 0)
            across, down = view.shown(seen[counts], index + step).T
            row, column = np.nonzero(counts)
            u[counts], v[counts] = across - column - 0.5, row + 0.5 - down
        channels |= {f"{name}.u": u, f"{name}.v": v}
    return channels


def _points(depth: np.ndarray, view: View, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The points (H, W, 3) float64 of a view's frame, and where there is a surface, (H, W) bool."""
    z = np.where(np.isfinite(depth), depth, 0.0).astype(np.float64)
    pose = view.camera.camera_to_world[index]
    return view.seen(z, index) @ pose[:3, :3].T + pose[:3, 3], z > 0


def _beside(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.hstack(parts)
