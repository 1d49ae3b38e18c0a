"""Second pass of the `warp` rasterizer, for the "thickness" occlusion model alone: curtains, as far as they are solid.

`warp_drawing.py` and `warp_unsnapped.py` have drawn all other faces, and the caps; here curtains go into the same
buffer by the same functions, each fragment only if it is within the solid (`warp_cutting.py`).
"""

from __future__ import annotations

import warp as wp

from backend.raster.warp_cutting import cut_curtain
from backend.raster.warp_drawing import (
    COUNTERS,
    CURTAIN_COUNTER,
    CURTAIN_PIECE_COUNTER,
    Work,
    draw_snapped,
    screen_box,
    snapped,
)
from backend.raster.warp_surface import (
    BEHIND,
    CURTAIN,
    Face,
    Projected,
    Source,
    View,
    face_corner,
    is_curtain,
    mesh_face,
)
from backend.raster.warp_unsnapped import draw_homogeneous

wp.set_module_options({"enable_backward": False})


@wp.kernel
def draw_curtains(source: Source, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)):
    """Draw, or queue in pieces, the curtains that `warp_drawing` has left: threads are (frame, thread of the frame).

    Where their queue overflowed, they are found once more.
    """
    frame, thread = wp.tid()
    threads = work.groups * work.group_size
    count = work.counters[frame * COUNTERS + CURTAIN_COUNTER]
    if count <= work.curtains.shape[1]:
        for slot in range(thread, count, threads):
            index = work.curtains[frame, slot]
            face = mesh_face(index, source.rows, source.columns)
            draw_or_queue_curtain(index, face, frame, source, projected, view, work, winners)
    else:
        for index in range(thread, 2 * (source.rows - 1) * (source.columns - 1), threads):
            face = mesh_face(index, source.rows, source.columns)
            if is_curtain(source, view, frame, face):
                draw_or_queue_curtain(index, face, frame, source, projected, view, work, winners)


@wp.kernel
def draw_curtain_pieces(
    source: Source, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)
):
    """Draw what was queued: threads are (frame, member of a group)."""
    frame, thread = wp.tid()
    group = thread // work.group_size
    member = thread - group * work.group_size
    count = wp.min(work.counters[frame * COUNTERS + CURTAIN_PIECE_COUNTER], work.pieces.shape[1])
    for slot in range(group, count, work.groups):
        piece = work.pieces[frame, slot]
        draw_curtain(piece, frame, member, work.group_size, source, projected, view, winners)


@wp.func
def draw_or_queue_curtain(
    index: int,
    face: Face,
    frame: int,
    source: Source,
    projected: Projected,
    view: View,
    work: Work,
    winners: wp.array2d(dtype=wp.uint64),
):
    """What finds no room in the queue is drawn at once: slower, but never wrong."""
    a = snapped(projected, frame, face.corners[0])
    b = snapped(projected, frame, face.corners[1])
    c = snapped(projected, frame, face.corners[2])
    top = wp.int32(0)
    bottom = view.height - 1
    step = work.piece_rows
    small = wp.bool(False)
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0:
        box = screen_box(a, b, c, view)
        top = box.top
        bottom = box.bottom
        if box.left > box.right:
            bottom = top - 1
        small = (box.right - box.left + 1) * (box.bottom - box.top + 1) <= work.direct_pixels
    else:
        if a.w == BEHIND and b.w == BEHIND and c.w == BEHIND:
            bottom = -1
    if small:
        step = wp.max(bottom - top + 1, 1)
    for first in range(top, bottom + 1, step):
        piece = wp.vec3i(index, first, wp.min(first + step - 1, bottom))
        slot = work.pieces.shape[1]
        if not small:
            slot = wp.atomic_add(work.counters, frame * COUNTERS + CURTAIN_PIECE_COUNTER, 1)
        if slot < work.pieces.shape[1]:
            work.pieces[frame, slot] = piece
        else:
            draw_curtain(piece, frame, 0, 1, source, projected, view, winners)


@wp.func
def draw_curtain(
    piece: wp.vec3i,
    frame: int,
    member: int,
    group_size: int,
    source: Source,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of some rows of a curtain."""
    face = mesh_face(piece[0], source.rows, source.columns)
    a = snapped(projected, frame, face.corners[0])
    b = snapped(projected, frame, face.corners[1])
    c = snapped(projected, frame, face.corners[2])
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0:
        box = screen_box(a, b, c, view)
        box.top = wp.max(box.top, piece[1])
        box.bottom = wp.min(box.bottom, piece[2])
        if box.left <= box.right and box.top <= box.bottom:  # most curtains lie between the pixels' centres
            cut = cut_curtain(source, face, frame, projected, view)
            draw_snapped(piece[0] + CURTAIN, a, b, c, box, member, group_size, cut, frame, view, winners)
    else:
        draw_homogeneous(
            piece[0] + CURTAIN,
            face_corner(face.corners[0], frame, source, projected, view),
            face_corner(face.corners[1], frame, source, projected, view),
            face_corner(face.corners[2], frame, source, projected, view),
            piece[1],
            piece[2],
            member,
            group_size,
            cut_curtain(source, face, frame, projected, view),
            view,
            frame,
            winners,
        )
