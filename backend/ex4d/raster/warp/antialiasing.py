"""Silhouette antialiasing of the `reference` convention, between drawing and resolving: EX-4D's renders have it.

Where neighbouring pixels show different faces and a silhouette edge of the nearer face runs between their centres, the
pixel that the edge cuts off takes a share of its neighbour's colour and alpha, up to a half: Laine et al., "Modular
Primitives for High-Performance Differentiable Rendering", 2020, section 3.4. An edge is a silhouette if no face, or one
that is folded back over it, lies on its other side. The published weights were trained with such masks and colours.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.projection import (
    WATERTIGHT,
    Face,
    Projected,
    Source,
    View,
    is_obstacle,
    mesh_face,
)

wp.set_module_options({"enable_backward": False})

FACE_BITS = wp.constant(wp.uint64(0xFFFFFFFF))
# How far beyond the two centres, in pixels, a crossing may be computed and still count.
SLACK = wp.constant(1.0 / 16.0)


@wp.kernel
def find_silhouettes(
    source: Source,
    span: int,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
    shares: wp.array3d(dtype=float),
):
    """Find the share of its right and of its lower neighbour that a pixel takes; negative: that neighbour's of it.

    shares: (B, pixels, 2). Threads are (frame, row, span of columns) of pixels.
    """
    frame, row, first = wp.tid()
    for column in range(first * span, wp.min(first * span + span, view.width)):
        for axis in range(2):
            share = wp.float32(0.0)
            if (axis == 0 and column + 1 < view.width) or (axis == 1 and row + 1 < view.height):
                share = share_of_next(frame, row, column, axis, source, projected, view, winners)
            shares[frame, row * view.width + column, axis] = share


@wp.func
def share_of_next(
    frame: int,
    row: int,
    column: int,
    axis: int,
    source: Source,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
) -> float:
    """The share that a pixel takes of its next neighbour along an axis; see `find_silhouettes`."""
    next_column = column + 1 - axis
    next_row = row + axis
    here = winners[frame, row * view.width + column]
    there = winners[frame, next_row * view.width + next_column]
    share = wp.float32(0.0)
    if (here & FACE_BITS) != (there & FACE_BITS):
        nearer = wp.min(here, there)  # keys order as depths do, and empty is the farthest
        if nearer == here:
            share = 0.5 - reach(nearer, frame, column, row, axis, 1.0, source, projected, view)
        else:
            share = reach(nearer, frame, next_column, next_row, axis, -1.0, source, projected, view) - 0.5
    return share


@wp.func
def reach(
    key: wp.uint64,
    frame: int,
    column: int,
    row: int,
    axis: int,
    direction: float,
    source: Source,
    projected: Projected,
    view: View,
) -> float:
    """How far a pixel's face reaches from its centre to the neighbour's, in pixels: 0.5 where no silhouette is between.

    axis: 0 for neighbours in a row, 1 in a column; direction: 1 if the neighbour is the next, -1 if the one before.
    """
    distance = wp.float32(0.5)
    face = mesh_face(int(key & FACE_BITS), source.rows, source.columns)
    centre = wp.vec2(float(column) + 0.5, float(row) + 0.5)
    a = along_across(face.corners[0], frame, axis, centre, projected)
    b = along_across(face.corners[1], frame, axis, centre, projected)
    c = along_across(face.corners[2], frame, axis, centre, projected)
    edge = wp.int32(0)  # by the corner opposite
    p = b
    q = c
    farthest = crossing(b, c, direction)
    ca = crossing(c, a, direction)
    ab = crossing(a, b, direction)
    if ca > farthest:
        edge = 1
        p = c
        q = a
        farthest = ca
    if ab > farthest:
        edge = 2
        p = a
        q = b
        farthest = ab
    cuts = farthest > -SLACK and farthest < 1.0 + SLACK
    if cuts:  # flatter edges belong to the pairs along the other axis
        cuts = wp.abs(q[1] - p[1]) >= wp.abs(q[0] - p[0])
    if cuts:  # Warp's `and` evaluates both sides
        cuts = is_silhouette(face, edge, p, q, frame, axis, centre, source, projected, view)
    if cuts:
        distance = wp.clamp(farthest, 0.0, 1.0)
    return distance


@wp.func
def crossing(p: wp.vec2, q: wp.vec2, direction: float) -> float:
    """How far in a direction along the axis an edge crosses it; minus infinity if it does not."""
    distance = float(-wp.inf)
    if (p[1] < 0.0) != (q[1] < 0.0):
        distance = direction * (p[0] * q[1] - q[0] * p[1]) / (q[1] - p[1])
    return distance


@wp.func
def is_silhouette(
    face: Face,
    edge: int,
    p: wp.vec2,
    q: wp.vec2,
    frame: int,
    axis: int,
    centre: wp.vec2,
    source: Source,
    projected: Projected,
    view: View,
) -> bool:
    """Whether the surface ends, or folds back, at the edge opposite one of a face's corners.

    The face beyond has the corner's mirror image across the edge as its third corner. That holds for the grid's faces
    and for the two caps alike; where it lies outside the grid there is no face. Corners behind the camera count at
    their mirrored position, as in nvdiffrast.
    """
    i = (edge + 1) % 3
    j = (edge + 2) % 3
    beyond = Face()
    beyond.rows = wp.vec3i(face.rows[i], face.rows[j], face.rows[i] + face.rows[j] - face.rows[edge])
    beyond.columns = wp.vec3i(face.columns[i], face.columns[j], face.columns[i] + face.columns[j] - face.columns[edge])
    beyond.corners = beyond.rows * source.columns + beyond.columns
    ends = beyond.rows[2] < 0 or beyond.rows[2] >= source.rows
    ends = ends or beyond.columns[2] < 0 or beyond.columns[2] >= source.columns
    if not ends and view.occlusion != WATERTIGHT:
        ends = not is_obstacle(source, view, frame, beyond)
    if not ends:
        own = along_across(face.corners[edge], frame, axis, centre, projected)
        wing = along_across(beyond.corners[2], frame, axis, centre, projected)
        ends = (turn(p, q, own) < 0.0) == (turn(p, q, wing) < 0.0)
    return ends


@wp.func
def along_across(vertex: int, frame: int, axis: int, centre: wp.vec2, projected: Projected) -> wp.vec2:
    """A vertex as seen from a pixel's centre, in pixels: along the axis, and across it."""
    offset = wp.vec2(projected.exact_x[frame, vertex], projected.exact_y[frame, vertex]) - centre
    if axis == 1:
        offset = wp.vec2(offset[1], offset[0])
    return offset


@wp.func
def turn(p: wp.vec2, q: wp.vec2, r: wp.vec2) -> float:
    """Twice the signed area of a triangle."""
    return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
