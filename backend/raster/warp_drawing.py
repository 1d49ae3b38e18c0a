"""Second pass of the `warp` rasterizer: draw every face of the mesh into a 64-bit depth-and-id buffer.

A thread per cell of the grid draws the cell's two faces, which are pixel-sized as a rule. Faces too large for one
thread (stretched curtains, close-ups) go to a queue, in pieces of some rows, which groups of threads drain; so are caps
drawn. Faces that are not snapped go to another queue, which `warp_unsnapped.py` drains. What comes out does not depend
on who draws what, or when. `warp_surface.py` explains the two kinds of faces; `warp_resolving.py` makes pictures.
"""

from __future__ import annotations

from typing import Any

import warp as wp

from backend.raster.warp_cutting import Whole, survives
from backend.raster.warp_surface import (
    BEHIND,
    CURTAIN,
    HALF_PIXEL,
    OPEN,
    SUBPIXEL_BITS,
    SUBPIXELS,
    THICKNESS,
    Projected,
    Source,
    View,
    cell_face,
    cross,
    edge_bias,
    is_obstacle,
    meets,
    mesh_face,
    on_border,
)

wp.set_module_options({"enable_backward": False})

# Each frame has counters, of pieces, of faces that are not snapped, of curtains and of their pieces, in a cache line of
# their own.
COUNTERS = wp.constant(32)
UNSNAPPED_COUNTER = wp.constant(1)
CURTAIN_COUNTER = wp.constant(2)
CURTAIN_PIECE_COUNTER = wp.constant(3)
# Edge functions of faces less wide and less high than 2^14, in 1/256 pixel, fit in 32 bits; wider ones than 32 pixels
# are better drawn span by span.
SMALL_WIDTH = wp.constant(1 << 13)
SMALL_HEIGHT = wp.constant(1 << 14)


@wp.struct
class Work:
    """Who draws what.

    A frame one of whose queues overflows has the faces that belong there found once more, by the groups: slower, but
    never wrong.
    """

    pieces: wp.array2d(dtype=wp.vec3i)  # (B, room): face, first and last row of the screen
    unsnapped: wp.array2d(dtype=int)  # (B, room): faces
    curtains: wp.array2d(dtype=int)  # (B, room): faces, for `warp_curtains`; empty unless they are drawn there
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
def draw_cells(
    source: Source, span: int, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)
):
    """Draw, or queue, both faces of each cell of the grid: threads are (frame, row, span of columns) of cells."""
    frame, row, first = wp.tid()
    for column in range(first * span, wp.min(first * span + span, source.columns - 1)):
        draw_cell(frame, row, column, source, projected, view, work, winners)


@wp.func
def draw_cell(
    frame: int,
    row: int,
    column: int,
    source: Source,
    projected: Projected,
    view: View,
    work: Work,
    winners: wp.array2d(dtype=wp.uint64),
):
    top_left = row * source.columns + column
    a = snapped(projected, frame, top_left + source.columns)
    b = snapped(projected, frame, top_left)
    c = snapped(projected, frame, top_left + 1)
    d = snapped(projected, frame, top_left + source.columns + 1)
    face = row * (source.columns - 1) + column
    if view.occlusion == OPEN and source.ring > 0 and b.w > 0.0 and not on_border(source, row, column):
        draw_vertex(face, b, frame, view, winners)
    if is_obstacle(source, view, frame, cell_face(row, column, False, source.columns)):
        draw_or_queue(face, a, b, c, frame, view, work, winners)
    else:
        leave_curtain(face, frame, view, work)
    face += (source.rows - 1) * (source.columns - 1)
    if is_obstacle(source, view, frame, cell_face(row, column, True, source.columns)):
        draw_or_queue(face, a, c, d, frame, view, work, winners)
    else:
        leave_curtain(face, frame, view, work)


@wp.func
def leave_curtain(face: int, frame: int, view: View, work: Work):
    """Queue a curtain of the "thickness" model."""
    if view.occlusion == THICKNESS:
        slot = wp.atomic_add(work.counters, frame * COUNTERS + CURTAIN_COUNTER, 1)
        if slot < work.curtains.shape[1]:
            work.curtains[frame, slot] = face


@wp.kernel
def draw_pieces(source: Source, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)):
    """Draw the pieces of large faces, and the caps: threads are (frame, member of a group)."""
    frame, thread = wp.tid()
    group = thread // work.group_size
    member = thread - group * work.group_size
    cells = (source.rows - 1) * (source.columns - 1)
    if view.occlusion != OPEN:
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
                    draw_small(face, a, b, c, box, Whole(), frame, view, winners)
                else:
                    draw_snapped(face, a, b, c, box, 0, 1, Whole(), frame, view, winners)
            else:
                for top in range(box.top, box.bottom + 1, work.piece_rows):
                    slot = wp.atomic_add(work.counters, frame * COUNTERS, 1)
                    if slot < work.pieces.shape[1]:
                        bottom = wp.min(top + work.piece_rows - 1, box.bottom)
                        work.pieces[frame, slot] = wp.vec3i(face, top, bottom)
    else:
        if a.w != BEHIND or b.w != BEHIND or c.w != BEHIND:
            slot = wp.atomic_add(work.counters, frame * COUNTERS + UNSNAPPED_COUNTER, 1)
            if slot < work.unsnapped.shape[1]:
                work.unsnapped[frame, slot] = face


@wp.func
def draw_vertex(face: int, b: Snapped, frame: int, view: View, winners: wp.array2d(dtype=wp.uint64)):
    """A source pixel that a pixel's centre meets is seen even where all its faces are curtains, which are not drawn.

    `warp_resolving` knows it by its upper face, of which it is the top left corner, and which may be a curtain.
    """
    column = b.x >> SUBPIXEL_BITS
    row = b.y >> SUBPIXEL_BITS
    if column >= 0 and column < view.width and row >= 0 and row < view.height:
        dx = b.x - (column << SUBPIXEL_BITS) - HALF_PIXEL
        dy = b.y - (row << SUBPIXEL_BITS) - HALF_PIXEL
        if meets(dx, dy):
            keep_nearest(winners, frame, row * view.width + column, 1.0 / b.w, face + CURTAIN)


@wp.func
def screen_box(a: Snapped, b: Snapped, c: Snapped, view: View) -> Box:
    left = wp.min(a.x, wp.min(b.x, c.x))
    right = wp.max(a.x, wp.max(b.x, c.x))
    top = wp.min(a.y, wp.min(b.y, c.y))
    bottom = wp.max(a.y, wp.max(b.y, c.y))
    box = Box()
    box.is_small = right - left < SMALL_WIDTH and bottom - top < SMALL_HEIGHT
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
    cut: Any,
    frame: int,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """What `draw_snapped` does, in 32 bits: to the same integers, and so to the same pixels and depths."""
    b = b0
    c = c0
    front = wp.bool(True)
    area = (b0.x - a.x) * (c0.y - a.y) - (b0.y - a.y) * (c0.x - a.x)
    if area == 0:
        return
    if area < 0:
        area = -area
        b = c0
        c = b0
        front = False
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
                    x_here = (column << SUBPIXEL_BITS) + HALF_PIXEL
                    y_here = (row << SUBPIXEL_BITS) + HALF_PIXEL
                    if survives(cut, float(e_a), float(e_b), float(e_c), x_here, y_here, front):
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
        draw_snapped(piece[0], a, b, c, box, member, group_size, Whole(), frame, view, winners)


@wp.func
def draw_snapped(
    face: int,
    a: Snapped,
    b0: Snapped,
    c0: Snapped,
    box: Box,
    member: int,
    group_size: int,
    cut: Any,
    frame: int,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of a snapped face within a box: the group takes pixels and rows in turns.

    cut is a `Whole`, or for a curtain that does not count to its end a `Cut`.
    """
    if box.left > box.right or box.top > box.bottom:
        return
    b = b0
    c = c0
    front = wp.bool(True)
    area = cross(b0.x - a.x, b0.y - a.y, c0.x - a.x, c0.y - a.y)
    if area == wp.int64(0):
        return
    if area < wp.int64(0):
        area = -area
        b = c0
        c = b0
        front = False
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
                    x = x0 + (offset << SUBPIXEL_BITS)
                    if survives(cut, float(e_a), float(e_b), float(e_c), x, y, front):
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
def keep_nearest(winners: wp.array2d(dtype=wp.uint64), frame: int, pixel: int, z: float, face: int):
    """Positive floats order as their bits do: the nearest face wins, of equals the lower id, in whatever order."""
    key = (wp.uint64(wp.cast(z, wp.uint32)) << wp.uint64(32)) | wp.uint64(face)
    wp.atomic_min(winners, frame, pixel, key)
