"""Poses of frames that are not in the solve, from the points that they share with its frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ex4d.depth.solver.mapping import Mapping
from ex4d.depth.solver.matching import Matches
from ex4d.depth.solver.package import SEED, colmap

_FEWEST_POINTS = 20
_LARGEST_ERROR = 2.0  # pixels of the working size


@dataclass(frozen=True, eq=False)
class Placed:
    """A frame with its pose and what it sees.

    Attributes:
        pose: (4, 4) world to camera.
        pixels: (n, 2) of the working size.
        points: (n, 3) in the world.
    """

    pose: np.ndarray
    pixels: np.ndarray
    points: np.ndarray


class Registration:
    """Places frames beside those of a solve."""

    def __init__(self, mapping: Mapping, matches: Matches) -> None:
        """Take a solve, and matches of further frames with its own."""
        self._mapping, self._matches = mapping, matches
        self._points: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def solved(self, frame: int) -> Placed:
        """A frame of the solve itself."""
        return Placed(self._mapping.pose(frame), *self._mapping.seen(frame))

    def placed(self, frame: int, beside: tuple[int, ...]) -> Placed | None:
        """The pose of another frame; None where it shares too few points with the frames beside it.

        Args:
            beside: frames of the solve that it was matched with.
        """
        package = colmap()
        found: dict[int, tuple[int, np.ndarray]] = {}
        for other in beside:
            numbers, positions = self._points_of(other)
            pairs = self._matches.of(frame, other)
            for own, theirs in pairs[numbers[pairs[:, 1]] >= 0]:
                found.setdefault(int(own), (int(numbers[theirs]), positions[theirs]))
        if len(found) < _FEWEST_POINTS:
            return None
        pixels = self._matches.positions(frame)[list(found)]
        points = np.stack([position for _, position in found.values()])
        options = package.AbsolutePoseEstimationOptions()
        options.ransac.max_error, options.ransac.random_seed = _LARGEST_ERROR, SEED
        result = package.estimate_and_refine_absolute_pose(pixels, points, self._mapping.camera, options)
        if result is None or result["num_inliers"] < _FEWEST_POINTS:
            return None
        kept = np.asarray(result["inlier_mask"], dtype=bool)
        pose = np.vstack([result["cam_from_world"].matrix(), [0, 0, 0, 1]])
        return Placed(pose, pixels[kept], points[kept])

    def _points_of(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        if frame not in self._points:
            # Frames come in order, so that two at a time are enough.
            self._points = {number: self._points[number] for number in sorted(self._points)[-3:]}
            self._points[frame] = self._mapping.points_of(frame)
        return self._points[frame]
