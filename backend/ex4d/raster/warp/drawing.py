"""Second pass of the `warp` rasterizer: draws every face of the mesh into a 64-bit depth-and-id buffer.

A thread per cell of the grid draws the cell's two faces, which are usually pixel-sized. Faces too large for one thread
(stretched faces, close-ups) go to a queue, in pieces of some rows, which groups of threads drain; caps are drawn
likewise. Faces that are not snapped go to another queue, which `unsnapped.py` drains. The result does not depend on
which thread draws what, or when. `projection.py` explains the two kinds of faces; `resolving.py` produces images.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.cutting import Whole
from ex4d.raster.warp.filling import Snapped, draw_alone, draw_snapped, may_show, screen_box, snapped
from ex4d.raster.warp.near_edges import near_wanted_tile
from ex4d.raster.warp.projection import (
    OPEN,
    THICKNESS,
    Projected,
    Source,
    View,
    block_end,
    cell_face,
    is_needed,
    is_needed_face,
    is_obstacle,
    mesh_face,
    nearness,
)

wp.set_module_options({"enable_backward": False})

# Each frame has counters, of pieces, of faces that are not snapped, of stretched faces and of their pieces, in a cache
# line of their own.
COUNTERS = wp.constant(32)
UNSNAPPED_COUNTER = wp.constant(1)
STRETCHED_COUNTER = wp.constant(2)
STRETCHED_PIECE_COUNTER = wp.constant(3)


@wp.struct
class Work:
    """Queues, and how threads share the drawing.

    If a queue of a frame overflows, the groups search for the faces that belong there again: slower, but correct.
    """

    pieces: wp.array2d(dtype=wp.vec3i)  # (B, room): face, first and last row of the screen
    unsnapped: wp.array2d(dtype=int)  # (B, room): faces
    stretched: wp.array2d(dtype=int)  # (B, room): faces, for `stretched_faces`; empty unless they are drawn there
    counters: wp.array(dtype=int)  # (B * COUNTERS,)
    direct_pixels: int  # a single thread draws faces whose box on the screen has at most so many pixels
    direct_stretched: int  # the same of stretched faces
    piece_rows: int  # rows of the screen in a piece
    groups: int  # of threads, for each frame
    group_size: int
    stretched_threads: int  # for each frame, which draw stretched faces alone


@wp.kernel
def draw_cells(
    source: Source, span: int, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)
):
    """Draw, or queue, both faces of each cell of the grid: threads are (frame, row, span of columns) of cells."""
    frame, row, first = wp.tid()
    start = first * span
    last = wp.min(start + span, source.columns - 1)
    while start < last:
        stop = block_end(start, last, view)
        if is_needed(view, frame, row, row, start, start):
            for column in range(start, stop):
                draw_cell(frame, row, column, source, projected, view, work, winners)
        start = stop


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
    """Draw, or queue, both faces of a cell."""
    top_left = row * source.columns + column
    a = snapped(projected, frame, top_left + source.columns)
    b = snapped(projected, frame, top_left)
    c = snapped(projected, frame, top_left + 1)
    d = snapped(projected, frame, top_left + source.columns + 1)
    flat = wp.bool(False)
    if view.wanted.shape[1] > 0 and not near_wanted_tile(view, frame, a, b, c, d, False):
        flat = view.occlusion != THICKNESS or is_flat_cell(source, frame, row, column)
        if flat or not near_wanted_tile(view, frame, a, b, c, d, True):
            return
    else:
        flat = is_flat_cell(source, frame, row, column)
    face = row * (source.columns - 1) + column
    if flat or is_obstacle(source, view, frame, cell_face(row, column, False, source.columns)):
        draw_or_queue(face, a, b, c, frame, view, work, winners)
    else:
        queue_stretched(face, frame, work)
    face += (source.rows - 1) * (source.columns - 1)
    if flat or is_obstacle(source, view, frame, cell_face(row, column, True, source.columns)):
        draw_or_queue(face, a, c, d, frame, view, work, winners)
    else:
        queue_stretched(face, frame, work)


@wp.func
def is_flat_cell(source: Source, frame: int, row: int, column: int) -> bool:
    """Whether neither face of a cell can be stretched, since its depth hardly changes: most cells, told at a glance.

    Depth may differ by `Source.level_widths` pixel widths. With one width, nearly square pixels and rays within 45
    degrees of the axis in x and in y no angle of a face is below 2.9 degrees, and no step begins below three widths.
    """
    flat = row > 0 and column > 0 and row < source.rows - 2 and column < source.columns - 2
    if flat:
        y = row - source.ring
        x = column - source.ring
        a = source.depth[frame, y, x]
        b = source.depth[frame, y, x + 1]
        c = source.depth[frame, y + 1, x]
        d = source.depth[frame, y + 1, x + 1]
        low = wp.min(wp.min(a, b), wp.min(c, d))
        high = wp.max(wp.max(a, b), wp.max(c, d))
        pixel = wp.min(source.pixel_angles[frame, 0], source.pixel_angles[frame, 1])
        flat = high - low < source.level_widths * pixel * low
    return flat


@wp.func
def queue_stretched(face: int, frame: int, work: Work):
    """Queue a stretched face for `stretched_faces.py`; the `reference` convention has no queue, and draws none."""
    if work.stretched.shape[1] > 0:
        slot = wp.atomic_add(work.counters, frame * COUNTERS + STRETCHED_COUNTER, 1)
        if slot < work.stretched.shape[1]:
            work.stretched[frame, slot] = face


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
            found = mesh_face(face, source.rows, source.columns)
            if is_needed_face(view, frame, found) and is_obstacle(source, view, frame, found):
                # drawing again what a thread has drawn already changes nothing
                whole = wp.vec3i(face, 0, view.height - 1)
                draw_piece(whole, frame, member, work.group_size, source, projected, view, winners)


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
    """Draw a small face that is snapped, and queue any other."""
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0:
        box = screen_box(a, b, c, view)
        if box.left <= box.right and box.top <= box.bottom:
            if (box.right - box.left + 1) * (box.bottom - box.top + 1) <= work.direct_pixels:
                draw_alone(face, a, b, c, box, frame, view, winners)
            else:
                for top in range(box.top, box.bottom + 1, work.piece_rows):
                    slot = wp.atomic_add(work.counters, frame * COUNTERS, 1)
                    if slot < work.pieces.shape[1]:
                        bottom = wp.min(top + work.piece_rows - 1, box.bottom)
                        work.pieces[frame, slot] = wp.vec3i(face, top, bottom)
    else:
        if may_show(a, b, c, view):
            slot = wp.atomic_add(work.counters, frame * COUNTERS + UNSNAPPED_COUNTER, 1)
            if slot < work.unsnapped.shape[1]:
                work.unsnapped[frame, slot] = face


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
    nearer = nearness(piece[0], source, view)
    a.w *= nearer
    b.w *= nearer
    c.w *= nearer
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0:
        box = screen_box(a, b, c, view)
        box.top = wp.max(box.top, piece[1])
        box.bottom = wp.min(box.bottom, piece[2])
        draw_snapped(piece[0], a, b, c, box, member, group_size, Whole(), frame, view, winners)
