"""Planes through points: how an artist's three points, or the lower part of a picture, become a ground. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ex4d_core.errors import Ex4dError

# Further than this from the camera's own idea of up, a plane is a wall or a slope that nobody means.
STEEPEST_DEGREES = 60.0
# A ground must hold at least this share of the points that it is looked for in.
LEAST_SHARE = 0.2
_TRIES = 300
_REFINEMENTS = 8
# Distance, as a share of the points' median distance from the camera, within which a point lies on a plane.
_TOLERANCE = 0.01


class GroundError(Ex4dError, ValueError):
    """Points that no ground goes through; the text says what to do instead."""


@dataclass(frozen=True)
class Plane:
    """A plane with a side.

    Attributes:
        point: (3,) on it.
        normal: (3,) of length 1; points away from the ground.
    """

    point: np.ndarray
    normal: np.ndarray


def plane_through(points: np.ndarray, above: np.ndarray) -> Plane:
    """The least-squares plane of some points: through their mean, along their two widest directions.

    Args:
        points: (N, 3), at least three.
        above: (3,) a point on the side that the normal shall point to.

    Raises:
        GroundError: fewer than three points, or all on one line.
    """
    points = np.asarray(points, dtype=np.float64)
    if len(points) < 3:
        raise GroundError(f"a ground needs three points, not {len(points)}")
    middle = points.mean(axis=0)
    _, spread, axes = np.linalg.svd(points - middle, full_matrices=False)
    if spread[1] <= 1e-4 * spread[0]:
        raise GroundError("these points lie on one line; choose points that span the ground")
    normal = axes[2]
    return Plane(middle, normal if (above - middle) @ normal >= 0 else -normal)


def ground_in(points: np.ndarray, eye: np.ndarray, up: np.ndarray, seed: int = 0) -> Plane:
    """The plane that most of the points lie on, of those that a camera may stand above.

    Planes through three points each are tried, that with the most points near it is kept, and then fitted to those by
    least squares, so that people and furniture on the ground do not tilt it.

    Args:
        points: (N, 3).
        eye: (3,) where the camera is.
        up: (3,) what the camera holds for up, of length 1.
        seed: of the tries; the same one gives the same ground.

    Raises:
        GroundError: no plane holds enough of the points.
    """
    points = np.asarray(points, dtype=np.float64)
    if len(points) < 3:
        raise GroundError("the footage shows too little there to find a ground in; pick three points")
    near = _TOLERANCE * float(np.median(np.linalg.norm(points - eye, axis=1)))
    corners = points[np.random.default_rng(seed).integers(0, len(points), (_TRIES, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sizes = np.linalg.norm(normals, axis=1)
    spans = sizes > 1e-12
    normals, corners = normals[spans] / sizes[spans, None], corners[spans]
    normals[(normals @ up) < 0] *= -1
    # The camera has to be above it, too.
    usable = (normals @ up > np.cos(np.radians(STEEPEST_DEGREES))) & (((eye - corners[:, 0]) * normals).sum(axis=1) > 0)
    normals, offsets = normals[usable], (normals[usable] * corners[usable, 0]).sum(axis=1)
    if not len(normals):
        raise _not_found()
    counts = (np.abs(points @ normals.T - offsets) <= near).sum(axis=0)
    best = int(counts.argmax())
    on_it = np.abs(points @ normals[best] - offsets[best]) <= near
    for _ in range(_REFINEMENTS):
        if on_it.sum() < max(3, LEAST_SHARE * len(points)):
            raise _not_found()
        plane = plane_through(points[on_it], eye)
        before, on_it = on_it, np.abs((points - plane.point) @ plane.normal) <= near
        if np.array_equal(before, on_it):
            break
    return plane


def _not_found() -> GroundError:
    return GroundError("no even ground was found in that part of the picture; pick three points on the ground instead")


def upright(plane: Plane, height: float = 0.0) -> np.ndarray:
    """(4, 4) the shortest turn that makes a plane level, about its point, and the way up or down to ``height``."""
    z = plane.normal[2]
    up = np.array([0.0, 0.0, 1.0])
    matrix = np.eye(4)
    if z < -1 + 1e-12:  # upside down: half a turn about x
        turn = np.diag([1.0, -1.0, -1.0])
    else:
        cross = np.cross(plane.normal, up)
        skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
        turn = np.eye(3) + skew + skew @ skew / (1 + z)
    matrix[:3, :3] = turn
    matrix[:3, 3] = plane.point - turn @ plane.point
    matrix[2, 3] += height - plane.point[2]
    return matrix
