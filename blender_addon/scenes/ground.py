"""Fits the ground plane to picked points or to the lower part of an image. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ex4d_core.errors import Ex4dError

# A plane tilted by more than this against the camera's up direction is a wall or a slope, not the ground.
MAX_TILT_DEGREES = 60.0
# The ground must hold at least this share of the points.
MIN_SHARE = 0.2
_TRIES = 300
_REFINEMENTS = 8
# Distance, as a share of the points' median distance from the camera, within which a point lies on a plane.
_TOLERANCE = 0.01


class PlacementError(Ex4dError):
    """A scene that cannot be placed: no ground in its points, an invalid scale, or something else moves it."""


@dataclass(frozen=True)
class Plane:
    """An oriented plane.

    Attributes:
        point: (3,) on it.
        normal: (3,) of length 1, upwards from the ground.
    """

    point: np.ndarray
    normal: np.ndarray


def plane_through(points: np.ndarray, above: np.ndarray) -> Plane:
    """The least-squares plane of some points: through their mean, along their two widest directions.

    Args:
        points: (N, 3), at least three.
        above: (3,) a point on the side that the normal must point to.

    Raises:
        PlacementError: fewer than three points, or all on one line.
    """
    points = np.asarray(points, dtype=np.float64)
    if len(points) < 3:
        raise PlacementError(f"the ground needs at least 3 points, not {len(points)}; pick or select more")
    middle = points.mean(axis=0)
    _, spread, axes = np.linalg.svd(points - middle, full_matrices=False)
    if spread[1] <= 1e-4 * spread[0]:
        raise PlacementError("the points lie on one line; choose points that span the ground")
    normal = axes[2]
    return Plane(middle, normal if (above - middle) @ normal >= 0 else -normal)


def ground_in(points: np.ndarray, eye: np.ndarray, up: np.ndarray, seed: int = 0) -> Plane:
    """The plane that most of the points lie on, of those that a camera may stand above (RANSAC).

    Planes through three random points each are tried; the one with the most points near it is then fitted to those by
    least squares, so that people and furniture on the ground do not tilt it.

    Args:
        points: (N, 3).
        eye: (3,) position of the camera.
        up: (3,) up direction of the camera, of length 1.
        seed: of the random points; the same seed gives the same ground.

    Raises:
        PlacementError: no plane holds enough of the points.
    """
    points = np.asarray(points, dtype=np.float64)
    if len(points) < 3:
        raise PlacementError("the footage shows too little there to find the ground; pick three points instead")
    near = _TOLERANCE * float(np.median(np.linalg.norm(points - eye, axis=1)))
    corners = points[np.random.default_rng(seed).integers(0, len(points), (_TRIES, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sizes = np.linalg.norm(normals, axis=1)
    spans = sizes > 1e-12
    normals, corners = normals[spans] / sizes[spans, None], corners[spans]
    normals[(normals @ up) < 0] *= -1
    # The camera must be above it, too.
    usable = (normals @ up > np.cos(np.radians(MAX_TILT_DEGREES))) & (((eye - corners[:, 0]) * normals).sum(axis=1) > 0)
    normals, offsets = normals[usable], (normals[usable] * corners[usable, 0]).sum(axis=1)
    if not len(normals):
        raise _not_found()
    counts = (np.abs(points @ normals.T - offsets) <= near).sum(axis=0)
    best = int(counts.argmax())
    on_it = np.abs(points @ normals[best] - offsets[best]) <= near
    rounds = 0
    while True:
        if on_it.sum() < max(3, MIN_SHARE * len(points)):
            raise _not_found()
        plane = plane_through(points[on_it], eye)
        before, on_it = on_it, np.abs((points - plane.point) @ plane.normal) <= near
        rounds += 1
        if rounds == _REFINEMENTS or np.array_equal(before, on_it):
            return plane


def _not_found() -> PlacementError:
    return PlacementError("no flat ground was found in the lower part of the frame; pick three points instead")


def upright(plane: Plane, height: float = 0.0) -> np.ndarray:
    """(4, 4) the smallest rotation that levels a plane, about its point, and the vertical translation to ``height``."""
    z = plane.normal[2]
    up = np.array([0.0, 0.0, 1.0])
    matrix = np.eye(4)
    if z < -1 + 1e-12:  # upside down: half a turn about x
        rotation = np.diag([1.0, -1.0, -1.0])
    else:
        cross = np.cross(plane.normal, up)
        skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
        rotation = np.eye(3) + skew + skew @ skew / (1 + z)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = plane.point - rotation @ plane.point
    matrix[2, 3] += height - plane.point[2]
    return matrix
