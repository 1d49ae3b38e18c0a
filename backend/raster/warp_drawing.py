"""Second pass of the `warp` rasterizer: draw every face of the mesh into a 64-bit depth-and-id buffer.

`warp_projection.py` explains the two kinds of edge functions; `warp_resolving.py` turns the buffer into pictures.
"""

from __future__ import annotations

import warp as wp

from backend.raster.warp_projection import (
    HALF_PIXEL,
    SUBPIXEL_BITS,
    SUBPIXELS,
    Corner,
    Projected,
    View,
    cross,
    edge_bias,
    face_corner,
    face_corners,
    homogeneous_edge,
    owns_edge,
)

wp.set_module_options({"enable_backward": False})


@wp.kernel
def draw_cells(
    vertices: wp.array2d(dtype=wp.vec3),
    projected: Projected,
    view: View,
    columns: int,
    cells: int,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw both faces of each cell of the grid: threads are (frame, row, column) of cells."""
    frame, row, column = wp.tid()
    top_left = row * columns + column
    bottom_left = top_left + columns
    face = row * (columns - 1) + column
    upper = wp.vec3i(bottom_left, top_left, top_left + 1)
    lower = wp.vec3i(bottom_left, top_left + 1, bottom_left + 1)
    draw_face(face, upper, 0, view.height - 1, frame, vertices, projected, view, winners)
    draw_face(face + cells, lower, 0, view.height - 1, frame, vertices, projected, view, winners)


@wp.kernel
def draw_caps(
    vertices: wp.array2d(dtype=wp.vec3),
    projected: Projected,
    view: View,
    rows: int,
    columns: int,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw the caps: threads are (frame, cap, row of the screen), since a cap may fill it."""
    frame, cap, row = wp.tid()
    face = 2 * (rows - 1) * (columns - 1) + cap
    draw_face(face, face_corners(face, rows, columns), row, row, frame, vertices, projected, view, winners)


@wp.func
def draw_face(
    face: int,
    corners: wp.vec3i,
    first_row: int,
    last_row: int,
    frame: int,
    vertices: wp.array2d(dtype=wp.vec3),
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    aw = projected.inverse_z[frame, corners[0]]
    bw = projected.inverse_z[frame, corners[1]]
    cw = projected.inverse_z[frame, corners[2]]
    if aw > 0.0 and bw > 0.0 and cw > 0.0:
        draw_snapped(
            face,
            projected.x[frame, corners[0]],
            projected.y[frame, corners[0]],
            aw,
            projected.x[frame, corners[1]],
            projected.y[frame, corners[1]],
            bw,
            projected.x[frame, corners[2]],
            projected.y[frame, corners[2]],
            cw,
            first_row,
            last_row,
            view.width,
            1.0 / view.near,
            1.0 / view.far,
            frame,
            winners,
        )
    else:
        draw_homogeneous(
            face,
            face_corner(corners[0], frame, vertices, projected, view),
            face_corner(corners[1], frame, vertices, projected, view),
            face_corner(corners[2], frame, vertices, projected, view),
            first_row,
            last_row,
            view,
            frame,
            winners,
        )


@wp.func
def draw_snapped(
    face: int,
    ax: int,
    ay: int,
    aw: float,
    bx0: int,
    by0: int,
    bw0: float,
    cx0: int,
    cy0: int,
    cw0: float,
    first_row: int,
    last_row: int,
    width: int,
    nearest: float,
    farthest: float,
    frame: int,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a face all of whose vertices are snapped, in rows first_row..last_row of the screen.

    nearest and farthest bound 1/z.
    """
    bx = bx0
    by = by0
    bw = bw0
    cx = cx0
    cy = cy0
    cw = cw0
    left = wp.max((wp.min(ax, wp.min(bx, cx)) + (HALF_PIXEL - 1)) >> SUBPIXEL_BITS, 0)
    right = wp.min((wp.max(ax, wp.max(bx, cx)) - HALF_PIXEL) >> SUBPIXEL_BITS, width - 1)
    top = wp.max((wp.min(ay, wp.min(by, cy)) + (HALF_PIXEL - 1)) >> SUBPIXEL_BITS, first_row)
    bottom = wp.min((wp.max(ay, wp.max(by, cy)) - HALF_PIXEL) >> SUBPIXEL_BITS, last_row)
    if left > right or top > bottom:
        return
    area = cross(bx - ax, by - ay, cx - ax, cy - ay)
    if area == wp.int64(0):
        return
    if area < wp.int64(0):
        area = -area
        bx = cx0
        by = cy0
        bw = cw0
        cx = bx0
        cy = by0
        cw = bw0
    # edge k lies opposite vertex k; its function is positive inside and grows by step_k per pixel to the right
    a_bias = edge_bias(cx - bx, cy - by)
    b_bias = edge_bias(ax - cx, ay - cy)
    c_bias = edge_bias(bx - ax, by - ay)
    a_step = wp.int64(by - cy) * wp.int64(SUBPIXELS)
    b_step = wp.int64(cy - ay) * wp.int64(SUBPIXELS)
    c_step = wp.int64(ay - by) * wp.int64(SUBPIXELS)
    scale = 1.0 / float(area)
    aw = aw * scale
    bw = bw * scale
    cw = cw * scale
    x0 = (left << SUBPIXEL_BITS) + HALF_PIXEL
    for row in range(top, bottom + 1):
        y = (row << SUBPIXEL_BITS) + HALF_PIXEL
        a_edge = cross(bx - x0, by - y, cx - x0, cy - y)
        b_edge = cross(cx - x0, cy - y, ax - x0, ay - y)
        c_edge = cross(ax - x0, ay - y, bx - x0, by - y)
        first = wp.int64(0)
        last = wp.int64(right - left)
        if right - left > 3:
            # wide faces: solve for the row's span, so that a long thin face costs its length and not its box
            span = row_span(a_edge + a_bias, a_step, first, last)
            span = row_span(b_edge + b_bias, b_step, span[0], span[1])
            span = row_span(c_edge + c_bias, c_step, span[0], span[1])
            first = span[0]
            last = span[1]
        for offset in range(int(first), int(last) + 1):
            e_a = a_edge + wp.int64(offset) * a_step
            e_b = b_edge + wp.int64(offset) * b_step
            e_c = c_edge + wp.int64(offset) * c_step
            if ((e_a + a_bias) | (e_b + b_bias) | (e_c + c_bias)) >= wp.int64(0):
                w = float(e_a) * aw + float(e_b) * bw + float(e_c) * cw
                if w >= farthest and w <= nearest:
                    keep_nearest(winners, frame, row * width + left + offset, 1.0 / w, face)


@wp.func
def row_span(edge: wp.int64, step: wp.int64, first: wp.int64, last: wp.int64) -> wp.vec2l:
    """The part of first..last where edge + offset * step >= 0."""
    low = first
    high = last
    if step > wp.int64(0):
        low = wp.max(low, -floor_divide(edge, step))
    else:
        if step < wp.int64(0):
            high = wp.min(high, floor_divide(edge, -step))
        else:
            if edge < wp.int64(0):
                high = low - wp.int64(1)
    return wp.vec2l(low, high)


@wp.func
def floor_divide(a: wp.int64, b: wp.int64) -> wp.int64:
    """floor(a / b) for b > 0; Warp's own division truncates."""
    q = a / b
    if q * b > a:
        q = q - wp.int64(1)
    return q


@wp.func
def draw_homogeneous(
    face: int,
    a: Corner,
    b0: Corner,
    c0: Corner,
    first_row: int,
    last_row: int,
    view: View,
    frame: int,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a face with vertices before the near plane or far off the screen, in rows first_row..last_row."""
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
    for row in range(top, bottom + 1):
        y = wp.float64(row) + wp.float64(0.5)
        span = edge_span(a, b, y, columns)
        span = edge_span(b, c, y, span)
        span = edge_span(c, a, y, span)
        left = int(wp.max(wp.min(span[0] - one, wp.float64(view.width)), wp.float64(0.0)))
        right = int(wp.min(wp.max(span[1] + one, -one), wp.float64(view.width - 1)))
        for column in range(left, right + 1):
            e_a = homogeneous_edge(b, c, column, row)
            e_b = homogeneous_edge(c, a, column, row)
            e_c = homogeneous_edge(a, b, column, row)
            zero = wp.float64(0.0)
            inside_a = e_a > zero or (e_a == zero and owns_edge(b, c))
            inside_b = e_b > zero or (e_b == zero and owns_edge(c, a))
            inside_c = e_c > zero or (e_c == zero and owns_edge(a, b))
            if inside_a and inside_b and inside_c:
                z = float(volume / (e_a + e_b + e_c))
                if z >= view.near and z <= view.far:
                    keep_nearest(winners, frame, row * view.width + column, z, face)


@wp.func
def signed_volume(a: Corner, b: Corner, c: Corner) -> wp.float64:
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


@wp.func
def keep_nearest(winners: wp.array2d(dtype=wp.uint64), frame: int, pixel: int, z: float, face: int):
    """Positive floats order as their bits do: the nearest face wins, of equals the lower id, in whatever order."""
    key = (wp.uint64(wp.cast(z, wp.uint32)) << wp.uint64(32)) | wp.uint64(face)
    wp.atomic_min(winners, frame, pixel, key)
