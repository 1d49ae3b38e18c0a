"""The lines that show a camera path in a viewport: from eye to eye, and frustums on some frames. Numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ex4d_core.cameras import CameraPath

# Besides the first and the last frame of each cut, so many have a frustum, or a point of the path, at most: so a redraw
# takes under 1 ms, however long the shot is.
_FRUSTUMS, _POINTS = 13, 257
# Pairs of a frustum's points, of which 0 is the eye and 1 to 4 are the corners of its image.
_EDGES = np.array([(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)])


@dataclass(frozen=True)
class Lines:
    """Line segments, each between two vertices that follow each other.

    Attributes:
        positions: (2N, 3) float32 in the scene's world.
        frames: (2N,) index of the path's frame that each vertex is about.
    """

    positions: np.ndarray
    frames: np.ndarray


def path_lines(path: CameraPath, cut_starts: Sequence[int], size: float) -> Lines:
    """The path from eye to eye, broken where it cuts, and frustums on evenly spaced frames.

    Args:
        path: in the scene's world.
        cut_starts: indices of the frames that begin a cut.
        size: distance of a frustum's image from its eye, in scene units.
    """
    points = _spread(len(path), cut_starts, _POINTS)
    pairs = np.stack([points[:-1], points[1:]], axis=1)
    steps = pairs[~np.isin(points[1:], cut_starts)].ravel()
    shown = _spread(len(path), cut_starts, _FRUSTUMS)
    frustums = frustum_points(path, shown, size)[:, _EDGES].reshape(-1, 3)
    return Lines(
        np.concatenate([path.camera_to_world[steps, :3, 3], frustums]).astype(np.float32),
        np.concatenate([steps, np.repeat(shown, _EDGES.size)]),
    )


def frustum_lines(path: CameraPath, frame: int, size: float) -> Lines:
    """The frustum of one frame; see `path_lines`."""
    points = frustum_points(path, np.array([frame]), size)[0, _EDGES].reshape(-1, 3)
    return Lines(points.astype(np.float32), np.full(len(points), frame))


def frustum_points(path: CameraPath, frames: np.ndarray, size: float) -> np.ndarray:
    """(N, 5, 3) in the scene's world: the eye of each frame, and the corners of its image at a distance of ``size``."""
    width, height = path.width, path.height
    corners = np.array([(0, 0, 1), (width, 0, 1), (width, height, 1), (0, height, 1)], dtype=np.float64)
    in_camera = size * np.einsum("nij,kj->nki", np.linalg.inv(path.intrinsics[frames]), corners)
    pose = path.camera_to_world[frames]
    in_world = np.einsum("nij,nkj->nki", pose[:, :3, :3], in_camera) + pose[:, None, :3, 3]
    return np.concatenate([pose[:, None, :3, 3], in_world], axis=1)


def _spread(length: int, cut_starts: Sequence[int], most: int) -> np.ndarray:
    """Indices of ``most`` frames at even distances, and of the first and the last frame of each cut."""
    starts = np.array(cut_starts, dtype=int)
    ends = np.append(starts[1:], length) - 1
    even = np.linspace(0, length - 1, min(length, most)).round().astype(int)
    return np.unique(np.concatenate([starts, ends, even]))
