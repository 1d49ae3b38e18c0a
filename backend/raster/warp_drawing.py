"""Second pass of the `warp` rasterizer: draw every face of the mesh into a 64-bit depth-and-id buffer.

A thread per cell of the grid draws the cell's two faces, which are pixel-sized as a rule. Faces too large for one
thread (stretched curtains, close-ups) go to a queue, in pieces of some rows, and the few that are not snapped to
another; two more kernels drain them with a group of threads for each piece or face, and draw the caps. What comes out
does not depend on who draws what, or when. `warp_surface.py` explains the two kinds of edge functions;
`warp_resolving.py` makes pictures of it all.
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

# Each frame has two counters, of pieces and of faces that are not snapped, in a cache line of their own.
COUNTERS = wp.constant(32)
# Edge functions of faces less wide and less high than this, in 1/256 pixel, fit in 32 bits.
SMALL_EXTENT = wp.constant(1 << 14)
# A group draws faces that are not snapped so many pixels of a row abreast; their caps, which may fill the screen, in
# pieces of so many rows.
UNSNAPPED_ABREAST = wp.constant(4)
UNSNAPPED_CAP_ROWS = wp.constant(8)


@wp.struct
class Work:
    """Who draws what.

    A frame one of whose queues overflows has the faces that belong there found once more, by the groups: slower, but
    never wrong.
    """

    pieces: wp.array2d(dtype=wp.vec3i)  # (B, room): face, first and last row of the screen
    unsnapped: wp.array2d(dtype=int)  # (B, room): faces
    counters: wp.array(dtype=int)  # (B * COUNTERS,)
    direct_pixels: int  # a thread draws faces itself whose box on the screen has at most so many pixels
    piece_rows: int  # rows of the screen in a piece
    groups: int  # of threads, for each frame
    group_size: int


@wp.struct
class Snapped:
    """A snapped vertex on the screen: 1/256 pixels, and 1/z."""

    x: int
    y: int
    w: float


@wp.struct
class Box:
    """The pixels whose centres a snapped face may cover; left is beyond right, or top below bottom, if none."""

    left: int
    top: int
    right: int
    bottom: int
    is_small: bool  # the face is, whether or not all of it is on the screen


@wp.kernel
def draw_cells(source: Source, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)):
    """Draw, or queue, both faces of each cell of the grid: threads are (frame, row, column) of cells."""
    frame, row, column = wp.tid()
    top_left = row * source.columns + column
    a = snapped(projected, frame, top_left + source.columns)
    b = snapped(projected, frame, top_left)
    c = snapped(projected, frame, top_left + 1)
    d = snapped(projected, frame, top_left + source.columns + 1)
    face = row * (source.columns - 1) + column
    if is_obstacle(source, view, frame, cell_face(row, column, False, source.columns)):
        draw_or_queue(face, a, b, c, frame, view, work, winners)
    face += (source.rows - 1) * (source.columns - 1)
    if is_obstacle(source, view, frame, cell_face(row, column, True, source.columns)):
        draw_or_queue(face, a, c, d, frame, view, work, winners)


@wp.kernel
def draw_pieces(source: Source, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)):
    """Draw the pieces of large faces, and the caps: threads are (frame, member of a group)."""
    frame, thread = wp.tid()
    group = thread // work.group_size
    member = thread - group * work.group_size
    cells = (source.rows - 1) * (source.columns - 1)
    if view.occlusion == WATERTIGHT:
        cap_pieces = (view.height + work.piece_rows - 1) // work.piece_rows
        for cap_piece in range(group, 2 * cap_pieces, work.groups):
            cap = cap_piece // cap_pieces
            top = (cap_piece - cap * cap_pieces) * work.piece_rows
            draw_piece(
                wp.vec3i(2 * cells + cap, top, top + work.piece_rows - 1),
                frame,
                member,
                work.group_size,
                source,
                projected,
                view,
                winners,
            )
    count = work.counters[frame * COUNTERS]
    if count <= work.pieces.shape[1]:
        for slot in range(group, count, work.groups):
            piece = work.pieces[frame, slot]
            draw_piece(piece, frame, member, work.group_size, source, projected, view, winners)
    else:
        for face in range(group, 2 * cells, work.groups):
            if is_obstacle(source, view, frame, mesh_face(face, source.rows, source.columns)):
                # drawing once more what a thread has drawn already changes nothing
                whole = wp.vec3i(face, 0, view.height - 1)
                draw_piece(whole, frame, member, work.group_size, source, projected, view, winners)


@wp.kernel
def draw_unsnapped(source: Source, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)):
    """Draw faces, and caps, with corners that are not snapped: threads are (frame, member of a group)."""
    frame, thread = wp.tid()
    group = thread // work.group_size
    member = thread - group * work.group_size
    cells = (source.rows - 1) * (source.columns - 1)
    if view.occlusion == WATERTIGHT:
        cap_pieces = (view.height + UNSNAPPED_CAP_ROWS - 1) // UNSNAPPED_CAP_ROWS
        for cap_piece in range(group, 2 * cap_pieces, work.groups):
            cap = cap_piece // cap_pieces
            top = (cap_piece - cap * cap_pieces) * UNSNAPPED_CAP_ROWS
            bottom = wp.min(top + UNSNAPPED_CAP_ROWS, view.height) - 1
            draw_if_unsnapped(
                2 * cells + cap, top, bottom, frame, member, work.group_size, source, projected, view, winners
            )
    last = view.height - 1
    count = work.counters[frame * COUNTERS + 1]
    if count <= work.unsnapped.shape[1]:
        for slot in range(group, count, work.groups):
            face = work.unsnapped[frame, slot]
            draw_if_unsnapped(face, 0, last, frame, member, work.group_size, source, projected, view, winners)
    else:
        for face in range(group, 2 * cells, work.groups):
            if is_obstacle(source, view, frame, mesh_face(face, source.rows, source.columns)):
                draw_if_unsnapped(face, 0, last, frame, member, work.group_size, source, projected, view, winners)


@wp.func
def snapped(projected: Projected, frame: int, vertex: int) -> Snapped:
    corner = Snapped()
    corner.x = projected.x[frame, vertex]
    corner.y = projected.y[frame, vertex]
    corner.w = projected.inverse_z[frame, vertex]
    return corner


@wp.func
def draw_or_queue(
    face: int,
    a: Snapped,
    b: Snapped,
    c: Snapped,
    frame: int,
    view: View,
    work: Work,
    winners: wp.array2d(dtype=wp.uint64),
):
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0:
        box = screen_box(a, b, c, view)
        if box.left <= box.right and box.top <= box.bottom:
            if (box.right - box.left + 1) * (box.bottom - box.top + 1) <= work.direct_pixels:
                if box.is_small:
                    draw_small(face, a, b, c, box, frame, view, winners)
                else:
                    draw_snapped(face, a, b, c, box, 0, 1, frame, view, winners)
            else:
                for top in range(box.top, box.bottom + 1, work.piece_rows):
                    slot = wp.atomic_add(work.counters, frame * COUNTERS, 1)
                    if slot < work.pieces.shape[1]:
                        bottom = wp.min(top + work.piece_rows - 1, box.bottom)
                        work.pieces[frame, slot] = wp.vec3i(face, top, bottom)
    else:
        if a.w != BEHIND or b.w != BEHIND or c.w != BEHIND:
            slot = wp.atomic_add(work.counters, frame * COUNTERS + 1, 1)
            if slot < work.unsnapped.shape[1]:
                work.unsnapped[frame, slot] = face


@wp.func
def screen_box(a: Snapped, b: Snapped, c: Snapped, view: View) -> Box:
    left = wp.min(a.x, wp.min(b.x, c.x))
    right = wp.max(a.x, wp.max(b.x, c.x))
    top = wp.min(a.y, wp.min(b.y, c.y))
    bottom = wp.max(a.y, wp.max(b.y, c.y))
    box = Box()
    box.is_small = right - left < SMALL_EXTENT and bottom - top < SMALL_EXTENT
    box.left = wp.max((left + (HALF_PIXEL - 1)) >> SUBPIXEL_BITS, 0)
    box.right = wp.min((right - HALF_PIXEL) >> SUBPIXEL_BITS, view.width - 1)
    box.top = wp.max((top + (HALF_PIXEL - 1)) >> SUBPIXEL_BITS, 0)
    box.bottom = wp.min((bottom - HALF_PIXEL) >> SUBPIXEL_BITS, view.height - 1)
    return box


@wp.func
def draw_small(
    face: int,
    a: Snapped,
    b0: Snapped,
    c0: Snapped,
    box: Box,
    frame: int,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """What `draw_snapped` does, in 32 bits: to the same integers, and so to the same pixels and depths."""
    b = b0
    c = c0
    area = (b0.x - a.x) * (c0.y - a.y) - (b0.y - a.y) * (c0.x - a.x)
    if area == 0:
        return
    if area < 0:
        area = -area
        b = c0
        c = b0
    a_bias = int(edge_bias(c.x - b.x, c.y - b.y))
    b_bias = int(edge_bias(a.x - c.x, a.y - c.y))
    c_bias = int(edge_bias(b.x - a.x, b.y - a.y))
    x = (box.left << SUBPIXEL_BITS) + HALF_PIXEL
    y = (box.top << SUBPIXEL_BITS) + HALF_PIXEL
    a_row = (b.x - x) * (c.y - y) - (b.y - y) * (c.x - x)
    b_row = (c.x - x) * (a.y - y) - (c.y - y) * (a.x - x)
    c_row = (a.x - x) * (b.y - y) - (a.y - y) * (b.x - x)
    scale = 1.0 / float(area)
    aw = a.w * scale
    bw = b.w * scale
    cw = c.w * scale
    nearest = 1.0 / view.near
    farthest = 1.0 / view.far
    for row in range(box.top, box.bottom + 1):
        e_a = a_row
        e_b = b_row
        e_c = c_row
        for column in range(box.left, box.right + 1):
            if ((e_a + a_bias) | (e_b + b_bias) | (e_c + c_bias)) >= 0:
                w = float(e_a) * aw + float(e_b) * bw + float(e_c) * cw
                if w >= farthest and w <= nearest:
                    keep_nearest(winners, frame, row * view.width + column, 1.0 / w, face)
            e_a += (b.y - c.y) * SUBPIXELS
            e_b += (c.y - a.y) * SUBPIXELS
            e_c += (a.y - b.y) * SUBPIXELS
        a_row += (c.x - b.x) * SUBPIXELS
        b_row += (a.x - c.x) * SUBPIXELS
        c_row += (b.x - a.x) * SUBPIXELS


@wp.func
def draw_piece(
    piece: wp.vec3i,
    frame: int,
    member: int,
    group_size: int,
    source: Source,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of some rows of a face: nothing, if its corners are not all snapped."""
    corners = mesh_face(piece[0], source.rows, source.columns).corners
    a = snapped(projected, frame, corners[0])
    b = snapped(projected, frame, corners[1])
    c = snapped(projected, frame, corners[2])
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0:
        box = screen_box(a, b, c, view)
        box.top = wp.max(box.top, piece[1])
        box.bottom = wp.min(box.bottom, piece[2])
        draw_snapped(piece[0], a, b, c, box, member, group_size, frame, view, winners)


@wp.func
def draw_snapped(
    face: int,
    a: Snapped,
    b0: Snapped,
    c0: Snapped,
    box: Box,
    member: int,
    group_size: int,
    frame: int,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of a snapped face within a box: the group takes pixels and rows in turns."""
    if box.left > box.right or box.top > box.bottom:
        return
    b = b0
    c = c0
    area = cross(b0.x - a.x, b0.y - a.y, c0.x - a.x, c0.y - a.y)
    if area == wp.int64(0):
        return
    if area < wp.int64(0):
        area = -area
        b = c0
        c = b0
    # edge k lies opposite vertex k; its function is positive inside and grows by step_k per pixel to the right
    a_bias = edge_bias(c.x - b.x, c.y - b.y)
    b_bias = edge_bias(a.x - c.x, a.y - c.y)
    c_bias = edge_bias(b.x - a.x, b.y - a.y)
    a_step = wp.int64(b.y - c.y) * wp.int64(SUBPIXELS)
    b_step = wp.int64(c.y - a.y) * wp.int64(SUBPIXELS)
    c_step = wp.int64(a.y - b.y) * wp.int64(SUBPIXELS)
    scale = 1.0 / float(area)
    aw = a.w * scale
    bw = b.w * scale
    cw = c.w * scale
    nearest = 1.0 / view.near
    farthest = 1.0 / view.far
    # a group draws abreast about as many pixels of a row as the face has there, and with what is left of it more rows
    abreast = wp.int32(1)
    if group_size > 1:
        extent = wp.max(a.y, wp.max(b.y, c.y)) - wp.min(a.y, wp.min(b.y, c.y))
        pixels_of_row = 0.5 * float(area) / (float(SUBPIXELS) * wp.max(float(extent), 1.0))
        while abreast < group_size and float(abreast) < pixels_of_row:
            abreast *= 2
    first_row = member // abreast
    first_column = member - first_row * abreast
    x0 = (box.left << SUBPIXEL_BITS) + HALF_PIXEL
    for row in range(box.top + first_row, box.bottom + 1, group_size // abreast):
        y = (row << SUBPIXEL_BITS) + HALF_PIXEL
        a_edge = cross(b.x - x0, b.y - y, c.x - x0, c.y - y)
        b_edge = cross(c.x - x0, c.y - y, a.x - x0, a.y - y)
        c_edge = cross(a.x - x0, a.y - y, b.x - x0, b.y - y)
        span = wp.vec2i(0, box.right - box.left)
        if box.right - box.left > 3:
            # wide faces: find the row's span, so that a long thin face costs its length and not its box
            span = row_span(a_edge, a_step, span)
            span = row_span(b_edge, b_step, span)
            span = row_span(c_edge, c_step, span)
        for offset in range(span[0] + first_column, span[1] + 1, abreast):
            e_a = a_edge + wp.int64(offset) * a_step
            e_b = b_edge + wp.int64(offset) * b_step
            e_c = c_edge + wp.int64(offset) * c_step
            if ((e_a + a_bias) | (e_b + b_bias) | (e_c + c_bias)) >= wp.int64(0):
                w = float(e_a) * aw + float(e_b) * bw + float(e_c) * cw
                if w >= farthest and w <= nearest:
                    keep_nearest(winners, frame, row * view.width + box.left + offset, 1.0 / w, face)


@wp.func
def row_span(edge: wp.int64, step: wp.int64, span: wp.vec2i) -> wp.vec2i:
    """The part of a span where edge + offset * step >= 0, or a pixel more on either side.

    Float32 is wrong by less than 1e-6 of an offset, and offsets beyond the span do not count: a pixel covers it.
    """
    low = span[0]
    high = span[1]
    if step == wp.int64(0):
        if edge < wp.int64(0):
            high = low - 1
    else:
        zero = wp.clamp(-float(edge) / float(step), float(low) - 2.0, float(high) + 2.0)
        if step > wp.int64(0):
            low = wp.max(low, int(wp.floor(zero)))
        else:
            high = wp.min(high, int(wp.ceil(zero)))
    return wp.vec2i(low, high)


@wp.func
def draw_if_unsnapped(
    face: int,
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
    """Draw a thread's part of a face, unless its corners are all snapped, in some rows of the screen."""
    corners = mesh_face(face, source.rows, source.columns).corners
    a = projected.inverse_z[frame, corners[0]]
    b = projected.inverse_z[frame, corners[1]]
    c = projected.inverse_z[frame, corners[2]]
    if a <= 0.0 or b <= 0.0 or c <= 0.0:
        draw_homogeneous(
            face,
            face_corner(corners[0], frame, source, projected, view),
            face_corner(corners[1], frame, source, projected, view),
            face_corner(corners[2], frame, source, projected, view),
            first_row,
            last_row,
            member,
            group_size,
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
