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
    RIM_TRIANGLES,
    TRIANGLES,
    draw_solid,
    draw_triangle,
    draw_unsnapped_triangle,
    may_show_split,
    points_of,
    solid_box,
    triangle_of,
)
from ex4d.raster.warp.filling import draw_small, draw_snapped, is_wanted, may_show, screen_box, snapped
from ex4d.raster.warp.projection import (
    STRETCHED,
    THICKNESS,
    Face,
    Projected,
    Source,
    View,
    is_stretched,
    mesh_face,
)
from ex4d.raster.warp.rims import split_and_back

# A face has five triangles and nine points. With their code repeated for each, a GPU waits for instructions.
wp.set_module_options({"enable_backward": False, "max_unroll": 1})


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
            pixels = (box.right - box.left + 1) * (box.bottom - box.top + 1)
            if pixels <= work.direct_pixels:
                cut = cut_stretched(source, face, frame, projected, view)
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
    """Draw a stretched face's rims and the solid between them; queue a large solid, and all that is not snapped."""
    split = split_and_back(source, face, frame, view)
    if split.exists:
        points = points_of(split, frame, source, projected, view)
        if points.are_snapped:
            for k in range(RIM_TRIANGLES):
                draw_triangle(
                    triangle_of(split, points, k, index), points, 0, view.height - 1, 0, 1, frame, view, winners
                )
            box = solid_box(points, view)
            if view.is_hollow == 0 and is_wanted(box.left, box.top, box.right, box.bottom, frame, view):
                if (box.right - box.left + 1) * (box.bottom - box.top + 1) <= work.direct_pixels:
                    draw_solid(split, points, index, box.top, box.bottom, 0, 1, frame, view, winners)
                else:
                    for top in range(box.top, box.bottom + 1, work.piece_rows):
                        queue_piece(wp.vec3i(index, top, wp.min(top + work.piece_rows - 1, box.bottom)), frame, work)
        elif may_show_split(split, points, index, view):
            queue_piece(wp.vec3i(index, 0, view.height - 1), frame, work)


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
    if view.occlusion == THICKNESS:
        if view.is_hollow == 0:
            split = split_and_back(source, face, frame, view)
            if split.exists:
                points = points_of(split, frame, source, projected, view)
                if points.are_snapped:
                    draw_solid(split, points, piece[0], piece[1], piece[2], member, group_size, frame, view, winners)
        return
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
    """Draw a thread's part of some rows of a stretched face, unless its points are all snapped.

    In the "open" model nothing: such a face shows no source pixel.
    """
    face = mesh_face(piece[0], source.rows, source.columns)
    if view.occlusion == THICKNESS:
        split = split_and_back(source, face, frame, view)
        points = points_of(split, frame, source, projected, view)
        if split.exists and not points.are_snapped:
            for k in range(wp.where(view.is_hollow != 0, RIM_TRIANGLES, TRIANGLES)):
                draw_unsnapped_triangle(
                    triangle_of(split, points, k, piece[0]),
                    split,
                    points,
                    piece[1],
                    piece[2],
                    member,
                    group_size,
                    frame,
                    source,
                    view,
                    winners,
                )


draw_stretched_pieces = piece_drawer(draw_snapped_part)
draw_unsnapped_stretched = piece_drawer(draw_unsnapped_part)  # a kernel of its own, as in `unsnapped.py`
