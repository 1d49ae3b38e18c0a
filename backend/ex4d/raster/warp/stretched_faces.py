"""Draws stretched faces in the "thickness" occlusion model, as far as they are solid.

A part of the second pass of the `warp` rasterizer. `drawing.py` and `unsnapped.py` have drawn all other faces, and the
caps; here stretched faces are drawn into the same buffer by the same functions, each fragment only if it is within the
solid (`cutting.py`).
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.cutting import LARGEST_REACH, Cut, cut_stretched
from ex4d.raster.warp.drawing import (
    COUNTERS,
    STRETCHED_COUNTER,
    STRETCHED_PIECE_COUNTER,
    Work,
)
from ex4d.raster.warp.edge_rules import face_corner
from ex4d.raster.warp.filling import Box, draw_small, draw_snapped, is_wanted, may_show, screen_box, snapped
from ex4d.raster.warp.projection import (
    STRETCHED,
    SUBPIXEL_BITS,
    Projected,
    Source,
    View,
    is_stretched,
    mesh_face,
)
from ex4d.raster.warp.unsnapped import draw_homogeneous, is_unsnapped

wp.set_module_options({"enable_backward": False})


@wp.kernel
def draw_stretched(source: Source, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)):
    """Draw, or queue, the stretched faces that `drawing.py` has queued: threads are (frame, thread of the frame).

    If their queue overflowed, they are searched for again.
    """
    frame, thread = wp.tid()
    threads = work.groups * work.group_size
    count = work.counters[frame * COUNTERS + STRETCHED_COUNTER]
    if count <= work.stretched.shape[1]:
        for slot in range(thread, count, threads):
            draw_or_queue_stretched(work.stretched[frame, slot], frame, source, projected, view, work, winners)
    else:
        for index in range(thread, 2 * (source.rows - 1) * (source.columns - 1), threads):
            if is_stretched(source, view, frame, mesh_face(index, source.rows, source.columns)):
                draw_or_queue_stretched(index, frame, source, projected, view, work, winners)


def piece_drawer(draw: wp.Function) -> wp.Kernel:
    """A kernel that draws the queued pieces of stretched faces: threads are (frame, member of a group).

    Args:
        draw: draws a thread's part of a piece: piece, frame, member, group size, source, projected, view, winners.
    """

    @wp.kernel
    def draw_pieces(source: Source, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)):
        frame, thread = wp.tid()
        group = thread // work.group_size
        member = thread - group * work.group_size
        count = work.counters[frame * COUNTERS + STRETCHED_PIECE_COUNTER]
        if count <= work.pieces.shape[1]:
            for slot in range(group, count, work.groups):
                piece = work.pieces[frame, slot]
                draw(piece, frame, member, work.group_size, source, projected, view, winners)
        else:
            for index in range(group, 2 * (source.rows - 1) * (source.columns - 1), work.groups):
                if is_stretched(source, view, frame, mesh_face(index, source.rows, source.columns)):
                    whole = wp.vec3i(index, 0, view.height - 1)
                    draw(whole, frame, member, work.group_size, source, projected, view, winners)

    return draw_pieces


@wp.func
def draw_or_queue_stretched(
    index: int,
    frame: int,
    source: Source,
    projected: Projected,
    view: View,
    work: Work,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a small stretched face that is snapped, and queue any other."""
    face = mesh_face(index, source.rows, source.columns)
    a = snapped(projected, frame, face.corners[0])
    b = snapped(projected, frame, face.corners[1])
    c = snapped(projected, frame, face.corners[2])
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0:
        box = screen_box(a, b, c, view)
        # Most stretched faces lie between pixel centres.
        if is_wanted(box.left, box.top, box.right, box.bottom, frame, view):
            pixels = (box.right - box.left + 1) * (box.bottom - box.top + 1)
            if pixels <= work.direct_pixels:
                cut = cut_stretched(source, face, frame, projected, view)
                if view.is_hollow != 0:
                    box = reached_box(cut, box)
                if box.is_small:
                    draw_small(index + STRETCHED, a, b, c, box, cut, frame, view, winners)
                else:
                    draw_snapped(index + STRETCHED, a, b, c, box, 0, 1, cut, frame, view, winners)
            else:
                for top in range(box.top, box.bottom + 1, work.piece_rows):
                    queue_piece(wp.vec3i(index, top, wp.min(top + work.piece_rows - 1, box.bottom)), frame, work)
    else:
        if may_show(a, b, c, view):
            queue_piece(wp.vec3i(index, 0, view.height - 1), frame, work)


@wp.func
def reached_box(cut: Cut, box: Box) -> Box:
    """The part of a face's box that source pixels at its corners may reach; the rest of a hollow face shows nothing."""
    left = box.right
    top = box.bottom
    right = box.left
    bottom = box.top
    for k in range(3):
        if cut.reach_x[k] > 0:
            wide = int(LARGEST_REACH * float(cut.reach_x[k]))
            high = int(LARGEST_REACH * float(cut.reach_y[k]))
            left = wp.min(left, (cut.x[k] - wide) >> SUBPIXEL_BITS)
            right = wp.max(right, (cut.x[k] + wide) >> SUBPIXEL_BITS)
            top = wp.min(top, (cut.y[k] - high) >> SUBPIXEL_BITS)
            bottom = wp.max(bottom, (cut.y[k] + high) >> SUBPIXEL_BITS)
    part = box
    part.left = wp.max(box.left, left)
    part.right = wp.min(box.right, right)
    part.top = wp.max(box.top, top)
    part.bottom = wp.min(box.bottom, bottom)
    return part


@wp.func
def queue_piece(piece: wp.vec3i, frame: int, work: Work):
    """Queue some rows of a stretched face for groups."""
    slot = wp.atomic_add(work.counters, frame * COUNTERS + STRETCHED_PIECE_COUNTER, 1)
    if slot < work.pieces.shape[1]:
        work.pieces[frame, slot] = piece


@wp.func
def draw_snapped_part(
    piece: wp.vec3i,
    frame: int,
    member: int,
    group_size: int,
    source: Source,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of some rows of a stretched face: nothing, if its corners are not all snapped."""
    face = mesh_face(piece[0], source.rows, source.columns)
    a = snapped(projected, frame, face.corners[0])
    b = snapped(projected, frame, face.corners[1])
    c = snapped(projected, frame, face.corners[2])
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0:
        box = screen_box(a, b, c, view)
        box.top = wp.max(box.top, piece[1])
        box.bottom = wp.min(box.bottom, piece[2])
        cut = cut_stretched(source, face, frame, projected, view)
        draw_snapped(piece[0] + STRETCHED, a, b, c, box, member, group_size, cut, frame, view, winners)


@wp.func
def draw_unsnapped_part(
    piece: wp.vec3i,
    frame: int,
    member: int,
    group_size: int,
    source: Source,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of some rows of a stretched face, unless its corners are all snapped."""
    face = mesh_face(piece[0], source.rows, source.columns)
    if is_unsnapped(face, frame, projected):
        draw_homogeneous(
            piece[0] + STRETCHED,
            face_corner(face.corners[0], frame, source, projected, view),
            face_corner(face.corners[1], frame, source, projected, view),
            face_corner(face.corners[2], frame, source, projected, view),
            piece[1],
            piece[2],
            member,
            group_size,
            cut_stretched(source, face, frame, projected, view),
            view,
            frame,
            winners,
        )


draw_stretched_pieces = piece_drawer(draw_snapped_part)
draw_unsnapped_stretched = piece_drawer(draw_unsnapped_part)  # a kernel of its own, as in `unsnapped.py`
