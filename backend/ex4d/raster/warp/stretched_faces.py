"""Draws stretched faces in the occlusion models "thickness" and "open".

A part of the second pass of the `warp` rasterizer. `drawing.py` and `unsnapped.py` have drawn all other faces, and the
caps; here stretched faces are drawn into the same buffer: in the "thickness" model split at their silhouettes
(`drawing_rims.py`), in the "open" model as the source pixels at their ends (`cutting.py`).
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.cutting import cut_stretched
from ex4d.raster.warp.drawing import (
    COUNTERS,
    STRETCHED_COUNTER,
    STRETCHED_PIECE_COUNTER,
    Work,
)
from ex4d.raster.warp.drawing_rims import (
    draw_rims,
    draw_solid,
    ids_of,
    points_of,
    rims_box,
    solid_box,
    solid_hull,
    with_back,
)
from ex4d.raster.warp.filling import Box, draw_small, draw_snapped, is_wanted, may_show, screen_box, snapped
from ex4d.raster.warp.projection import (
    STRETCHED,
    THICKNESS,
    Face,
    Projected,
    Source,
    View,
    is_needed_face,
    is_stretched,
    mesh_face,
)
from ex4d.raster.warp.rims import back_of, split_of
from ex4d.raster.warp.unsnapped_rims import draw_unsnapped_split, may_show_split

# A face has five triangles and nine points. With their code repeated for each, a GPU waits for instructions.
_OPTIONS = {"enable_backward": False, "max_unroll": 1}
wp.set_module_options(_OPTIONS)

# Added to the face of a piece in the "thickness" model: what of the face it is, in order.
SOLID_PIECE = wp.constant(0)
RIM_PIECE = wp.constant(1 << 28)
UNSNAPPED_PIECE = wp.constant(2 << 28)
WHOLE_PIECE = wp.constant(3 << 28)


@wp.kernel
def draw_stretched(source: Source, projected: Projected, view: View, work: Work, winners: wp.array2d(dtype=wp.uint64)):
    """Draw, or queue, the stretched faces that `drawing.py` has queued: threads are (frame, thread of the frame).

    If their queue overflowed, they are searched for again.
    """
    frame, thread = wp.tid()
    threads = work.stretched_threads
    count = work.counters[frame * COUNTERS + STRETCHED_COUNTER]
    fits = count <= work.stretched.shape[1]
    # With a second call the compiler would put the function into neither, and copy its arguments at each.
    for slot in range(thread, wp.where(fits, count, 2 * (source.rows - 1) * (source.columns - 1)), threads):
        index = slot
        found = wp.bool(True)
        if fits:
            index = work.stretched[frame, slot]
        else:
            face = mesh_face(slot, source.rows, source.columns)
            found = is_needed_face(view, frame, face) and is_stretched(source, view, frame, face)
        if found:
            draw_or_queue_stretched(index, frame, source, projected, view, work, winners)


def piece_drawer(draw: wp.Function, name: str) -> wp.Kernel:
    """A kernel that draws the queued pieces of stretched faces: threads are (frame, member of a group).

    Args:
        draw: draws a thread's part of a piece: piece, frame, member, group size, source, projected, view, winners.
        name: of the part of this file that is compiled for it. Together the kernels of this file would take far longer
            than those of any other; in three modules they are compiled at the same time.
    """
    module = wp.get_module(f"{__name__}.{name}")
    wp.set_module_options(_OPTIONS, module)

    @wp.kernel(module=module)
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
                face = mesh_face(index, source.rows, source.columns)
                if is_needed_face(view, frame, face) and is_stretched(source, view, frame, face):
                    whole = wp.vec3i(index + WHOLE_PIECE, 0, view.height - 1)
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
    if view.occlusion == THICKNESS:
        draw_or_queue_split(index, face, frame, source, projected, view, work, winners)
        return
    a = snapped(projected, frame, face.corners[0])
    b = snapped(projected, frame, face.corners[1])
    c = snapped(projected, frame, face.corners[2])
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0:
        box = screen_box(a, b, c, view)
        # Most stretched faces lie between pixel centres.
        if is_wanted(box.left, box.top, box.right, box.bottom, frame, view):
            if is_direct(box, work):
                cut = cut_stretched(source, face, frame, projected, view)
                if box.is_small:
                    draw_small(index + STRETCHED, a, b, c, box, cut, frame, view, winners)
                else:
                    draw_snapped(index + STRETCHED, a, b, c, box, 0, 1, cut, frame, view, winners)
            else:
                queue_rows(index, box, frame, work)
    else:
        if may_show(a, b, c, view):
            queue_piece(wp.vec3i(index, 0, view.height - 1), frame, work)


@wp.func
def draw_or_queue_split(
    index: int,
    face: Face,
    frame: int,
    source: Source,
    projected: Projected,
    view: View,
    work: Work,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a stretched face's rims and the solid between them; queue what is large, and all that is not snapped."""
    split = split_of(source, face, frame)
    if not split.exists:
        return
    points = points_of(split, frame, source, projected, view)
    if not points.are_snapped:
        split.back = back_of(split, source, frame, view)
        points = with_back(points, split, frame, source, view)
        if may_show_split(split, points, view):
            queue_piece(wp.vec3i(index + UNSNAPPED_PIECE, 0, view.height - 1), frame, work)
        return
    box = rims_box(points, view)
    if not is_wanted(box.left, box.top, box.right, box.bottom, frame, view):
        return
    if is_direct(box, work):
        draw_rims(split, points, ids_of(index), 0, view.height - 1, 0, 1, frame, view, winners)
    else:
        queue_rows(index + RIM_PIECE, box, frame, work)
    if view.is_hollow != 0:
        return
    # Of most faces neither the rims nor the solid meet a pixel: where the solid ends is found only for the others.
    box = solid_hull(points, view)
    if is_wanted(box.left, box.top, box.right, box.bottom, frame, view):
        split.back = back_of(split, source, frame, view)
        points = with_back(points, split, frame, source, view)
        box = solid_box(points, view)
        if is_wanted(box.left, box.top, box.right, box.bottom, frame, view):
            if is_direct(box, work):
                draw_solid(points, ids_of(index), box.top, box.bottom, 0, 1, frame, view, winners)
            else:
                queue_rows(index, box, frame, work)


@wp.func
def is_direct(box: Box, work: Work) -> bool:
    """Whether a single thread draws what has this box on the screen."""
    return (box.right - box.left + 1) * (box.bottom - box.top + 1) <= work.direct_stretched


@wp.func
def queue_rows(face: int, box: Box, frame: int, work: Work):
    """Queue all rows of a box on the screen for groups."""
    for top in range(box.top, box.bottom + 1, work.piece_rows):
        queue_piece(wp.vec3i(face, top, wp.min(top + work.piece_rows - 1, box.bottom)), frame, work)


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
    index = piece[0] % STRETCHED
    part = piece[0] - index
    face = mesh_face(index, source.rows, source.columns)
    if view.occlusion == THICKNESS:
        if part != UNSNAPPED_PIECE:
            split = split_of(source, face, frame)
            if split.exists:
                points = points_of(split, frame, source, projected, view)
                if points.are_snapped:
                    top = piece[1]
                    bottom = piece[2]
                    ids = ids_of(index)
                    if part != SOLID_PIECE:
                        draw_rims(split, points, ids, top, bottom, member, group_size, frame, view, winners)
                    if part != RIM_PIECE and view.is_hollow == 0:
                        split.back = back_of(split, source, frame, view)
                        points = with_back(points, split, frame, source, view)
                        draw_solid(points, ids, top, bottom, member, group_size, frame, view, winners)
        return
    a = snapped(projected, frame, face.corners[0])
    b = snapped(projected, frame, face.corners[1])
    c = snapped(projected, frame, face.corners[2])
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0:
        box = screen_box(a, b, c, view)
        box.top = wp.max(box.top, piece[1])
        box.bottom = wp.min(box.bottom, piece[2])
        cut = cut_stretched(source, face, frame, projected, view)
        draw_snapped(index + STRETCHED, a, b, c, box, member, group_size, cut, frame, view, winners)


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
    """Draw a thread's part of some rows of a stretched face, unless its points are all snapped.

    In the "open" model nothing: such a face shows no source pixel.
    """
    index = piece[0] % STRETCHED
    part = piece[0] - index
    if view.occlusion == THICKNESS and part >= UNSNAPPED_PIECE:
        split = split_of(source, mesh_face(index, source.rows, source.columns), frame)
        if split.exists:
            points = points_of(split, frame, source, projected, view)
            if not points.are_snapped:
                split.back = back_of(split, source, frame, view)
                draw_unsnapped_split(
                    split,
                    with_back(points, split, frame, source, view),
                    ids_of(index),
                    piece[1],
                    piece[2],
                    member,
                    group_size,
                    frame,
                    source,
                    projected,
                    view,
                    winners,
                )


draw_stretched_pieces = piece_drawer(draw_snapped_part, "pieces")
draw_unsnapped_stretched = piece_drawer(draw_unsnapped_part, "unsnapped")  # a kernel of its own, as in `unsnapped.py`
