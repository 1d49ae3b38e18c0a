"""The offset of relative depth from angles that are known: a square corner, or something upright on the ground.

Under a shift b of disparity w, a pixel's ray r leads to the point r / (w + b). The direction from one point to another
is then r2 (w1 + b) - r1 (w2 + b), up to a factor, and the normal of a plane m . r = w is m + (0, 0, b). So lines stay
lines and planes stay planes under every b: how flat a ground is says nothing. Angles change with b, and with nothing
else, since the factor of disparity scales all of space. One right angle is therefore enough, if its sides are not all
parallel to the image: there, all have the same disparity, and no b bends the angle.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ex4d_core.depth_mapping import MAX_OFFSET, MIN_OFFSET, DepthMapping
from ex4d_core.errors import Ex4dError

# Degrees by which the angle must change while the offset changes by 0.1; less drowns in errors of depth and of clicks.
_LEAST_EFFECT = 1.0
_TOLERANCE = 3.0  # degrees from the right angle that are left under the best offset
_LIKELY = -0.6, 1.5  # offsets that estimates have
_OFFSETS = np.concatenate([np.arange(MIN_OFFSET, 2, 0.0005), np.geomspace(2, MAX_OFFSET, 500)])


class OffsetError(Ex4dError):
    """An offset that cannot be told from what was marked; the text says why, and what to mark."""


def offset_of_corner(points: np.ndarray, mapping: DepthMapping) -> float:
    """The offset under which a corner is square.

    Args:
        points: (3, 3) the corner, and a point along each of its sides, in the source camera's axes under `mapping`.
        mapping: of the depth that they were taken from.

    Raises:
        OffsetError: no offset makes it square, or all nearly do.
    """

    def degrees(rays: np.ndarray, disparity: np.ndarray) -> np.ndarray:
        one, other = (_direction(rays, disparity, 0, end) for end in (1, 2))
        return np.degrees(np.arccos(np.clip(_cosine(one, other), -1, 1))) - 90

    return _offset(np.asarray(points, dtype=np.float64), mapping, degrees, "the corner")


def offset_of_vertical(points: np.ndarray, normal: np.ndarray, mapping: DepthMapping) -> float:
    """The offset under which an edge stands upright on the ground.

    Args:
        points: (2, 3) the edge's lower end, where the ground is, and its upper end, in the source camera's axes under
            `mapping`.
        normal: (3,) of the ground there, under `mapping`, of any length.
        mapping: of the depth that both were taken from.

    Raises:
        OffsetError: no offset makes it upright, or all nearly do.
    """
    points, normal = np.asarray(points, dtype=np.float64), np.asarray(normal, dtype=np.float64)
    # Of the plane m . r = w through the lower end, whose normal becomes m + (0, 0, b).
    plane = normal / (normal @ points[0])
    before = 1 / points[0, 2]

    def degrees(rays: np.ndarray, disparity: np.ndarray) -> np.ndarray:
        shift = disparity[:, 0] - before
        upwards = plane + np.outer(shift, [0, 0, 1])
        return np.degrees(np.arccos(np.clip(np.abs(_cosine(_direction(rays, disparity, 0, 1), upwards)), -1, 1)))

    return _offset(points, mapping, degrees, "the edge")


def _offset(
    points: np.ndarray, mapping: DepthMapping, degrees: Callable[[np.ndarray, np.ndarray], np.ndarray], what: str
) -> float:
    """The offset at which an angle's error vanishes, or is least.

    Args:
        points: (N, 3) in the source camera's axes, under `mapping`.
        mapping: of their depth.
        degrees: the error under rays (N, 3) and disparities (K, N) of K offsets: (K,).
        what: for messages.
    """
    if (points[:, 2] <= 0).any() or len(np.unique(points.round(9), axis=0)) < len(points):
        raise OffsetError(f"{what} needs {len(points)} different points in front of the source camera; mark it again")
    rays = points / points[:, 2:]
    relative = mapping.disparity(points[:, 2])
    offsets = _OFFSETS[float(relative.min()) + _OFFSETS > 0]
    # In the unit of the disparity of the points, so that the ground's shift, too, follows from the first one's.
    scale = (1 + mapping.offset) * mapping.nearest
    error = degrees(rays, (relative + offsets[:, None]) / scale)
    size = np.abs(error)
    found = np.flatnonzero((np.r_[True, size[1:] <= size[:-1]]) & (np.r_[size[:-1] <= size[1:], True]))
    found = found[size[found] < _TOLERANCE]
    if not len(found):
        raise OffsetError(
            f"no depth offset makes {what} square: under the best one {size.min():.0f} degrees are missing. Mark "
            "another one, whose points lie on clear surfaces"
        )
    in_question = (offsets > _LIKELY[0]) & (offsets < _LIKELY[1])
    likely = found[in_question[found]]
    best = int((likely if len(likely) else found)[0])
    if np.ptp(error[in_question]) < _TOLERANCE or _effect(offsets, error, best) < _LEAST_EFFECT:
        raise OffsetError(
            f"the depth offset hardly changes {what}, as where it faces the camera: mark one that leads away from it"
        )
    if len(likely) > 1:
        both = " and ".join(f"{one:.2f}" for one in offsets[likely[:2]])
        raise OffsetError(f"two depth offsets make {what} square, {both}: try both, or mark one on the ground")
    return float(offsets[best])


def _effect(offsets: np.ndarray, error: np.ndarray, best: int) -> float:
    """Degrees by which the angle changes near an offset, for a change of the offset by 0.1."""
    low, high = max(0, best - 40), min(len(offsets) - 1, best + 40)
    change = max(abs(error[high] - error[best]), abs(error[best] - error[low]))
    return 0.1 * float(change / (offsets[high] - offsets[low]) * 2)


def _direction(rays: np.ndarray, disparity: np.ndarray, start: int, end: int) -> np.ndarray:
    """(K, 3) direction from one point to another under K disparities of each."""
    return rays[end] * disparity[:, start, None] - rays[start] * disparity[:, end, None]


def _cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of the angles between (K, 3) directions each."""
    return (one * other).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
