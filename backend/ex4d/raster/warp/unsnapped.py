"""Draws faces that reach in front of the near plane, or far off the screen, in the `centered` convention.

A part of the second pass of the `warp` rasterizer. There are few such faces, and they need homogeneous edge functions
in float64, so they have a kernel of their own instead of slowing down `drawing.py`. It draws into the same buffer.
`clipping.py` does this in the `reference` convention.
"""

from __future__ import annotations

from typing import Any

import warp as wp

from ex4d.raster.warp.cutting import Whole, survives_unsnapped
from ex4d.raster.warp.drawing import COUNTERS, UNSNAPPED_COUNTER, Work
from ex4d.raster.warp.edge_rules import Corner, face_corner, homogeneous_edge, owns_edge, sample_centre, slanted
from ex4d.raster.warp.filling import keep_nearest
from ex4d.raster.warp.projection import (
    OPEN,
    Face,
    Projected,
    Source,
    View,
    is_needed_face,
    is_obstacle,
    mesh_face,
)

wp.set_module_options({"enable_backward": False})

# Of faces that are not snapped, a group draws so many pixels of a row in parallel; of caps, which may fill the screen,
# it draws pieces of so many rows.
UNSNAPPED_ABREAST = wp.constant(4)
UNSNAPPED_CAP_ROWS = wp.constant(8)


@wp.kernel
def draw_unsnapped(source: Source, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)):
    """Draw faces, and caps, with corners that are not snapped: threads are (frame, member of a group)."""
    frame, thread = wp.tid()
    size = work.group_size
    group = thread // size
    member = thread - group * size
    cells = (source.rows - 1) * (source.columns - 1)
    if view.occlusion != OPEN:
        cap_pieces = (view.height + UNSNAPPED_CAP_ROWS - 1) // UNSNAPPED_CAP_ROWS
        for cap_piece in range(group, 2 * cap_pieces, work.groups):
            cap = cap_piece // cap_pieces
            top = (cap_piece - cap * cap_pieces) * UNSNAPPED_CAP_ROWS
            bottom = wp.min(top + UNSNAPPED_CAP_ROWS, view.height) - 1
            face = 2 * cells + cap
            if is_unsnapped(mesh_face(face, source.rows, source.columns), frame, projected):
                draw_unsnapped_face(face, top, bottom, frame, member, size, source, projected, view, winners)
    last = view.height - 1
    count = work.counters[frame * COUNTERS + UNSNAPPED_COUNTER]
    if count <= work.unsnapped.shape[1]:
        for slot in range(group, count, work.groups):
            face = work.unsnapped[frame, slot]
            draw_unsnapped_face(face, 0, last, frame, member, size, source, projected, view, winners)
    else:
        for index in range(group, 2 * cells, work.groups):
            found = mesh_face(index, source.rows, source.columns)
            needed = is_needed_face(view, frame, found) and is_unsnapped(found, frame, projected)
            if needed and is_obstacle(source, view, frame, found):
                draw_unsnapped_face(index, 0, last, frame, member, size, source, projected, view, winners)


@wp.func
def is_unsnapped(face: Face, frame: int, projected: Projected) -> bool:
    """Whether a face has a vertex without snapped coordinates."""
    a = projected.inverse_z[frame, face.corners[0]]
    b = projected.inverse_z[frame, face.corners[1]]
    c = projected.inverse_z[frame, face.corners[2]]
    return wp.min(a, wp.min(b, c)) <= 0.0


@wp.func
def draw_unsnapped_face(
    index: int,
    first_row: int,
    last_row: int,
    frame: int,
    member: int,
    group_size: int,
    source: Source,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of some rows of a face."""
    corners = mesh_face(index, source.rows, source.columns).corners
    draw_homogeneous(
        index,
        face_corner(corners[0], frame, source, projected, view),
        face_corner(corners[1], frame, source, projected, view),
        face_corner(corners[2], frame, source, projected, view),
        first_row,
        last_row,
        member,
        group_size,
        Whole(),
        view,
        frame,
        winners,
    )


@wp.func
def draw_homogeneous(
    face: int,
    a: Corner,
    b0: Corner,
    c0: Corner,
    first_row: int,
    last_row: int,
    member: int,
    group_size: int,
    cut: Any,
    view: View,
    frame: int,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of a face with vertices in front of the near plane or far off the screen.

    cut is a `Whole` or a `Cut`, as in `draw_snapped`.
    """
    near = wp.float64(view.near)
    if a.point[2] < near and b0.point[2] < near and c0.point[2] < near:
        return
    b = b0
    c = c0
    volume = signed_volume(a, b, c)
    if volume < wp.float64(0.0):
        volume = -volume
        b = c0
        c = b0
    if not (volume > wp.float64(0.0)):
        return
    far_off = wp.float64(1.0e30)
    rows = wp.vec2d(far_off, -far_off)
    rows = visible_extent(a, b, 1, near, rows)
    rows = visible_extent(b, c, 1, near, rows)
    rows = visible_extent(c, a, 1, near, rows)
    one = wp.float64(1.0)
    top = int(wp.max(wp.min(rows[0] - one, wp.float64(last_row + 1)), wp.float64(first_row)))
    bottom = int(wp.min(wp.max(rows[1] + one, wp.float64(first_row - 1)), wp.float64(last_row)))
    columns = wp.vec2d(far_off, -far_off)
    columns = visible_extent(a, b, 0, near, columns)
    columns = visible_extent(b, c, 0, near, columns)
    columns = visible_extent(c, a, 0, near, columns)
    if columns[1] < wp.float64(-1.0) or columns[0] > wp.float64(view.width + 1):
        return
    abreast = wp.min(UNSNAPPED_ABREAST, group_size)
    first_row_of_thread = member // abreast
    first_column = member - first_row_of_thread * abreast
    for row in range(top + first_row_of_thread, bottom + 1, group_size // abreast):
        y = wp.float64(row) + wp.float64(0.5)
        span = edge_span(a, b, y, columns)
        span = edge_span(b, c, y, span)
        span = edge_span(c, a, y, span)
        left = int(wp.max(wp.min(span[0] - one, wp.float64(view.width)), wp.float64(0.0)))
        right = int(wp.min(wp.max(span[1] + one, -one), wp.float64(view.width - 1)))
        for column in range(left + first_column, right + 1, abreast):
            sample_x = sample_centre(column) + slanted(row % view.samples, view)
            sample_y = sample_centre(row) - slanted(column % view.samples, view)
            e_a = homogeneous_edge(b, c, sample_x, sample_y)
            e_b = homogeneous_edge(c, a, sample_x, sample_y)
            e_c = homogeneous_edge(a, b, sample_x, sample_y)
            zero = wp.float64(0.0)
            inside_a = e_a > zero or (e_a == zero and owns_edge(b, c))
            inside_b = e_b > zero or (e_b == zero and owns_edge(c, a))
            inside_c = e_c > zero or (e_c == zero and owns_edge(a, b))
            if inside_a and inside_b and inside_c:
                z = float(volume / (e_a + e_b + e_c))
                if z >= view.near and z <= view.far and survives_unsnapped(cut):
                    keep_nearest(winners, frame, row * view.width + column, z, face)


@wp.func
def signed_volume(a: Corner, b: Corner, c: Corner) -> wp.float64:
    """Determinant of three corners: positive where the face shows its front, 0 if it is edge-on."""
    return wp.dot(a.point, wp.cross(b.point, c.point))


@wp.func
def visible_extent(a: Corner, b: Corner, axis: int, near: wp.float64, extent: wp.vec2d) -> wp.vec2d:
    """Widen extent, along one screen axis, by corner a and by where the edge a-b passes the near plane."""
    low = extent[0]
    high = extent[1]
    if a.point[2] >= near:
        low = wp.min(low, a.point[axis] / a.point[2])
        high = wp.max(high, a.point[axis] / a.point[2])
    if (a.point[2] >= near) != (b.point[2] >= near):
        t = (near - a.point[2]) / (b.point[2] - a.point[2])
        crossing = (a.point[axis] + t * (b.point[axis] - a.point[axis])) / near
        low = wp.min(low, crossing)
        high = wp.max(high, crossing)
    return wp.vec2d(low, high)


@wp.func
def edge_span(a: Corner, b: Corner, y: wp.float64, span: wp.vec2d) -> wp.vec2d:
    """The part of a row's span of x that may lie inside edge a-b, a pixel wider than exact."""
    slope = a.point[1] * b.point[2] - a.point[2] * b.point[1]
    offset = a.point[0] * b.point[1] - a.point[1] * b.point[0] + y * (a.point[2] * b.point[0] - a.point[0] * b.point[2])
    low = span[0]
    high = span[1]
    if slope > wp.float64(0.0):
        low = wp.max(low, -offset / slope - wp.float64(1.0))
    if slope < wp.float64(0.0):
        high = wp.min(high, -offset / slope + wp.float64(1.0))
    return wp.vec2d(low, high)
