"""EX-4D's two rules for stretched faces of a DW-Mesh: faces that span a depth discontinuity.

Called by `dw_mesh.py` on blocks of the vertex grid; edges are measured once for the two faces that share them.
"""

from __future__ import annotations

import math

import torch

from ex4d_core.render_settings import OcclusionRule

Edges = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

MIN_INNER_ANGLE_DEGREES = 2.5  # EX-4D's threshold: a thinner face is stretched
BOUNDARY_RATIO = 2.0  # EX-4D's other rule: so is a face this much deeper than wide


def occluded_faces(
    x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, rule: OcclusionRule
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the faces of a grid of vertices that hide what was never seen.

    Args:
        x: (n, R, C) float32, of the vertices in their camera's space.
        y: likewise.
        z: likewise.
        rule: "angle" or "boundary"; see `DepthSurface.occlusion_rule`.

    Returns:
        (n, R-1, C-1) bool for the upper left face of each cell, and the same for the lower right face.
    """
    if rule == "angle":
        upper, lower = _upper_and_lower(_squared_lengths(x, y, z))
        return _smallest_angle_is_thin(*upper), _smallest_angle_is_thin(*lower)
    extents = [_upper_and_lower(_extents(plane)) for plane in (x, y, z)]
    upper, lower = zip(*extents, strict=True)
    return _deeper_than_wide(*upper), _deeper_than_wide(*lower)


def _edges(plane: torch.Tensor) -> Edges:
    """Differences of one coordinate (n, R, C) along horizontal, vertical and diagonal edges of the grid."""
    return (
        plane[:, :, 1:] - plane[:, :, :-1],
        plane[:, 1:] - plane[:, :-1],
        plane[:, :-1, 1:] - plane[:, 1:, :-1],
    )


def _upper_and_lower(edges: Edges) -> tuple[Edges, Edges]:
    """The three edges of each cell's upper face, and of its lower face."""
    horizontal, vertical, diagonal = edges
    return (
        (horizontal[:, :-1], vertical[:, :, :-1], diagonal),
        (horizontal[:, 1:], vertical[:, :, 1:], diagonal),
    )


def _extents(plane: torch.Tensor) -> Edges:
    horizontal, vertical, diagonal = _edges(plane)
    return horizontal.abs_(), vertical.abs_(), diagonal.abs_()


def _squared_lengths(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Edges:
    horizontal, vertical, diagonal = (
        dx.square_().addcmul_(dy, dy).addcmul_(dz, dz)
        for dx, dy, dz in zip(_edges(x), _edges(y), _edges(z), strict=True)
    )
    return horizontal, vertical, diagonal


def _smallest_angle_is_thin(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Law of cosines on squared edge lengths: the smallest angle lies opposite the shortest edge.

    cos(angle) = (p + q - s) / (2 sqrt(p q)) with s the shortest. Squared on both sides (p + q - s is never negative),
    it needs no root and no division, and a face of zero size counts as thin.
    """
    smaller, larger = torch.minimum(a, b), torch.maximum(a, b)
    shortest, middle = torch.minimum(smaller, c), torch.maximum(smaller, c)
    numerator = (larger + middle).sub_(shortest)
    limit = 4.0 * math.cos(math.radians(MIN_INNER_ANGLE_DEGREES)) ** 2
    return numerator.square_() >= larger.mul_(middle).mul_(limit)


def _deeper_than_wide(dx: Edges, dy: Edges, dz: Edges) -> torch.Tensor:
    across = torch.maximum(_largest(*dx), _largest(*dy))
    return _largest(*dz) > across.mul_(BOUNDARY_RATIO)


def _largest(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return torch.maximum(torch.maximum(a, b), c)
