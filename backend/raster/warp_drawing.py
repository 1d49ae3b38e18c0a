"""Second pass of the `warp` rasterizer: draw every face of the mesh into a 64-bit depth-and-id buffer.

A thread per cell of the grid draws the cell's two faces, which are pixel-sized as a rule. Faces too large for one
thread (stretched curtains, close-ups), and the few that are not snapped, go to a queue, in pieces of some rows; a
second kernel drains it with a group of threads for each piece, and draws the caps. What comes out does not depend on
who draws what, or when. `warp_surface.py` explains the two kinds of edge functions; `warp_resolving.py` makes pictures.
"""

from __future__ import annotations

import warp as wp

from backend.raster.warp_surface import (
    BEHIND,
    HALF_PIXEL,
    SUBPIXEL_BITS,
    SUBPIXELS,
    WATERTIGHT,
    Corner,
    Projected,
    Source,
    View,
    cell_face,
    cross,
    edge_bias,
    face_corner,
    homogeneous_edge,
    is_obstacle,
    mesh_face,
    owns_edge,
)

wp.set_module_options({"enable_backward": False})

COUNTERS_APART = wp.constant(32)  # the queues' counters lie in cache lines of their own


@wp.struct
class Work:
    """Who draws what.

    A frame whose queue overflows has its large faces found once more, by the groups: slower, but never wrong.
    """

    queue: wp.array2d(dtype=wp.vec3i)  # (B, capacity): face, first and last row of the screen
    queued: wp.array(dtype=int)  # (B * COUNTERS_APART,): how many pieces each frame has
    direct_pixels: int  # a thread draws faces itself whose box on the screen has at most so many pixels
    piece_rows: int  # rows of the screen in a piece
    groups: int  # of threads, for each frame
    group_rows: int  # a group draws so many rows at once,
    group_columns: int  # and so many pixels of each


@wp.struct
class Lanes:
    """What a thread draws of a face: rows first_row, first_row + row_step, ... last_row, and likewise of columns."""

    first_row: int
    last_row: int
    row_step: int
    column: int
    column_step: int


@wp.kernel
def draw_cells(source: Source, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)):
    """Draw, or queue, both faces of each cell of the grid: threads are (frame, row, column) of cells."""
    frame, row, column = wp.tid()
    index = row * (source.columns - 1) + column
    cells = (source.rows - 1) * (source.columns - 1)
    upper = cell_face(row, column, False, source.columns)
    lower = cell_face(row, column, True, source.columns)
    if is_obstacle(source, view, frame, upper):
        draw_or_queue(index, upper.corners, frame, projected, view, work, winners)
    if is_obstacle(source, view, frame, lower):
        draw_or_queue(index + cells, lower.corners, frame, projected, view, work, winners)


@wp.kernel
def draw_queued(source: Source, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)):
    """Drain the queues and draw the caps: threads are (frame, member of a group)."""
    frame, thread = wp.tid()
    size = work.group_rows * work.group_columns
    group = thread // size
    member = thread - group * size
    row = member // work.group_columns
    lanes = Lanes()
    lanes.row_step = work.group_rows
    lanes.column = member - row * work.group_columns
    lanes.column_step = work.group_columns
    cells = (source.rows - 1) * (source.columns - 1)

    if view.occlusion == WATERTIGHT:
        pieces = (view.height + work.piece_rows - 1) // work.piece_rows
        for cap_piece in range(group, 2 * pieces, work.groups):
            cap = cap_piece // pieces
            top = (cap_piece - cap * pieces) * work.piece_rows
            lanes.first_row = top + row
            lanes.last_row = wp.min(top + work.piece_rows, view.height) - 1
            draw_face(2 * cells + cap, frame, lanes, source, projected, view, winners)
    queued = work.queued[frame * COUNTERS_APART]
    if queued <= work.queue.shape[1]:
        for piece in range(group, queued, work.groups):
            item = work.queue[frame, piece]
            lanes.first_row = item[1] + row
            lanes.last_row = item[2]
            draw_face(item[0], frame, lanes, source, projected, view, winners)
    else:
        lanes.first_row = row
        lanes.last_row = view.height - 1
        for index in range(group, 2 * cells, work.groups):
            face = mesh_face(index, source.rows, source.columns)
            if is_obstacle(source, view, frame, face):
                # drawing once more what a thread has drawn already changes nothing
                draw_face(index, frame, lanes, source, projected, view, winners)


@wp.func
def draw_or_queue(
    face: int,
    corners: wp.vec3i,
    frame: int,
    projected: Projected,
    view: View,
    work: Work,
    winners: wp.array2d(dtype=wp.uint64),
):
    aw = projected.inverse_z[frame, corners[0]]
    bw = projected.inverse_z[frame, corners[1]]
    cw = projected.inverse_z[frame, corners[2]]
    if aw > 0.0 and bw > 0.0 and cw > 0.0:
        box = screen_box(frame, corners, projected, view)
        if box[0] <= box[2] and box[1] <= box[3]:
            if (box[2] - box[0] + 1) * (box[3] - box[1] + 1) <= work.direct_pixels:
                lanes = Lanes()
                lanes.last_row = view.height - 1
                lanes.row_step = 1
                lanes.column_step = 1
                draw_snapped(face, corners, frame, lanes, projected, view, winners)
            else:
                for top in range(box[1], box[3] + 1, work.piece_rows):
                    enqueue(frame, face, top, wp.min(top + work.piece_rows - 1, box[3]), work)
    else:
        if aw != BEHIND or bw != BEHIND or cw != BEHIND:
            enqueue(frame, face, 0, view.height - 1, work)


@wp.func
def enqueue(frame: int, face: int, first_row: int, last_row: int, work: Work):
    slot = wp.atomic_add(work.queued, frame * COUNTERS_APART, 1)
    if slot < work.queue.shape[1]:
        work.queue[frame, slot] = wp.vec3i(face, first_row, last_row)


@wp.func
def screen_box(frame: int, corners: wp.vec3i, projected: Projected, view: View) -> wp.vec4i:
    """Left, top, right and bottom of the pixels whose centres a snapped face may cover; left above right if none."""
    ax = projected.x[frame, corners[0]]
    ay = projected.y[frame, corners[0]]
    bx = projected.x[frame, corners[1]]
    by = projected.y[frame, corners[1]]
    cx = projected.x[frame, corners[2]]
    cy = projected.y[frame, corners[2]]
    left = wp.max((wp.min(ax, wp.min(bx, cx)) + (HALF_PIXEL - 1)) >> SUBPIXEL_BITS, 0)
    right = wp.min((wp.max(ax, wp.max(bx, cx)) - HALF_PIXEL) >> SUBPIXEL_BITS, view.width - 1)
    top = wp.max((wp.min(ay, wp.min(by, cy)) + (HALF_PIXEL - 1)) >> SUBPIXEL_BITS, 0)
    bottom = wp.min((wp.max(ay, wp.max(by, cy)) - HALF_PIXEL) >> SUBPIXEL_BITS, view.height - 1)
    return wp.vec4i(left, top, right, bottom)


@wp.func
def draw_face(
    face: int,
    frame: int,
    lanes: Lanes,
    source: Source,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    corners = mesh_face(face, source.rows, source.columns).corners
    aw = projected.inverse_z[frame, corners[0]]
    bw = projected.inverse_z[frame, corners[1]]
    cw = projected.inverse_z[frame, corners[2]]
    if aw > 0.0 and bw > 0.0 and cw > 0.0:
        draw_snapped(face, corners, frame, lanes, projected, view, winners)
    else:
        draw_homogeneous(
            face,
            face_corner(corners[0], frame, source, projected, view),
            face_corner(corners[1], frame, source, projected, view),
            face_corner(corners[2], frame, source, projected, view),
            lanes,
            view,
            frame,
            winners,
        )


@wp.func
def draw_snapped(
    face: int,
    corners: wp.vec3i,
    frame: int,
    lanes: Lanes,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of a face all of whose vertices are snapped."""
    ax = projected.x[frame, corners[0]]
    ay = projected.y[frame, corners[0]]
    aw = projected.inverse_z[frame, corners[0]]
    bx = projected.x[frame, corners[1]]
    by = projected.y[frame, corners[1]]
    bw = projected.inverse_z[frame, corners[1]]
    cx = projected.x[frame, corners[2]]
    cy = projected.y[frame, corners[2]]
    cw = projected.inverse_z[frame, corners[2]]
    nearest = 1.0 / view.near
    farthest = 1.0 / view.far
    box = screen_box(frame, corners, projected, view)
    left = box[0]
    right = box[2]
    # a group's rows are counted from the piece's first, whether the face begins there or below
    top = wp.max(box[1], lanes.first_row)
    if lanes.row_step > 1:
        top = lanes.first_row + ((top - lanes.first_row + lanes.row_step - 1) // lanes.row_step) * lanes.row_step
    bottom = wp.min(box[3], lanes.last_row)
    if left > right or top > bottom:
        return
    area = cross(bx - ax, by - ay, cx - ax, cy - ay)
    if area == wp.int64(0):
        return
    if area < wp.int64(0):
        area = -area
        swap_x = bx
        swap_y = by
        swap_w = bw
        bx = cx
        by = cy
        bw = cw
        cx = swap_x
        cy = swap_y
        cw = swap_w
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
    for row in range(top, bottom + 1, lanes.row_step):
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
        for offset in range(int(first) + lanes.column, int(last) + 1, lanes.column_step):
            e_a = a_edge + wp.int64(offset) * a_step
            e_b = b_edge + wp.int64(offset) * b_step
            e_c = c_edge + wp.int64(offset) * c_step
            if ((e_a + a_bias) | (e_b + b_bias) | (e_c + c_bias)) >= wp.int64(0):
                w = float(e_a) * aw + float(e_b) * bw + float(e_c) * cw
                if w >= farthest and w <= nearest:
                    keep_nearest(winners, frame, row * view.width + left + offset, 1.0 / w, face)


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
    lanes: Lanes,
    view: View,
    frame: int,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of a face with vertices before the near plane or far off the screen."""
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
    top = int(wp.max(wp.min(rows[0] - one, wp.float64(lanes.last_row + 1)), wp.float64(lanes.first_row)))
    bottom = int(wp.min(wp.max(rows[1] + one, wp.float64(lanes.first_row - 1)), wp.float64(lanes.last_row)))
    top = lanes.first_row + ((top - lanes.first_row + lanes.row_step - 1) // lanes.row_step) * lanes.row_step
    columns = wp.vec2d(far_off, -far_off)
    columns = visible_extent(a, b, 0, near, columns)
    columns = visible_extent(b, c, 0, near, columns)
    columns = visible_extent(c, a, 0, near, columns)
    for row in range(top, bottom + 1, lanes.row_step):
        y = wp.float64(row) + wp.float64(0.5)
        span = edge_span(a, b, y, columns)
        span = edge_span(b, c, y, span)
        span = edge_span(c, a, y, span)
        left = int(wp.max(wp.min(span[0] - one, wp.float64(view.width)), wp.float64(0.0)))
        right = int(wp.min(wp.max(span[1] + one, -one), wp.float64(view.width - 1)))
        for column in range(left + lanes.column, right + 1, lanes.column_step):
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
