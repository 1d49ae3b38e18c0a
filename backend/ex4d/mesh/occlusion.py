"""EX-4D's two rules for which faces of a DW-Mesh are curtains: stretched between a near surface and a far one.

Called by `dw_mesh.py` on blocks of the vertex grid; edges are measured once for the two faces that share them.
"""

from __future__ import annotations

import math

import torch

MIN_INNER_ANGLE_DEGREES = 2.5  # EX-4D's threshold: a thinner face is a curtain
BOUNDARY_RATIO = 2.0  # EX-4D's other rule: a face this much deeper than wide is one


def occluded_faces(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, rule: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Which faces of a grid of vertices hide what was never seen.

    Args:
        x, y, z: (n, R, C) float32, the vertices in their camera's space.
        rule: one of `ex4d_core.shot.OCCLUSION_RULES`.

    Returns:
        (n, R-1, C-1) bool for the upper left face of each cell, and the same for the lower right face.
    """
    if rule == "angle":
        lengths = _squared_lengths(x, y, z)
        return tuple(_smallest_angle_is_thin(*edges) for edges in _upper_and_lower(*lengths))
    extents = [_upper_and_lower(*(edge.abs_() for edge in _edges(plane))) for plane in (x, y, z)]
    sides = []
    for dx, dy, dz in zip(*extents, strict=True):
        across = torch.maximum(_largest(*dx), _largest(*dy))
        sides.append(_largest(*dz) > across.mul_(BOUNDARY_RATIO))
    return tuple(sides)


def _edges(plane: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Differences of one coordinate (n, R, C) along horizontal, vertical and diagonal edges of the grid."""
    return (
        plane[:, :, 1:] - plane[:, :, :-1],
        plane[:, 1:] - plane[:, :-1],
        plane[:, :-1, 1:] - plane[:, 1:, :-1],
    )


def _upper_and_lower(horizontal: torch.Tensor, vertical: torch.Tensor, diagonal: torch.Tensor):
    """The three edges of each cell's upper face, and of its lower face."""
    return (
        (horizontal[:, :-1], vertical[:, :, :-1], diagonal),
        (horizontal[:, 1:], vertical[:, :, 1:], diagonal),
    )


def _squared_lengths(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> list[torch.Tensor]:
    return [
        dx.square_().addcmul_(dy, dy).addcmul_(dz, dz)
        for dx, dy, dz in zip(_edges(x), _edges(y), _edges(z), strict=True)
    ]


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


def _largest(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return torch.maximum(torch.maximum(a, b), c)
