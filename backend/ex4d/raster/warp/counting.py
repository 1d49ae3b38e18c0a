"""Counts the seen pixels of a frame's simplified mesh: the visible fraction on the CPU, without a render.

One thread draws and counts a whole frame, with the functions of `filling.py` and `unsnapped.py`. No image is produced:
the depth-and-id buffer says whether a pixel counts, and only on stretched faces more is computed (`resolving.py` does
the same for every pixel).
"""

from __future__ import annotations

from typing import Any

import warp as wp

from ex4d.raster.warp.cutting import Whole, cut_stretched, shown_source_pixel
from ex4d.raster.warp.drawing_rims import (
    Ids,
    draw_rims,
    draw_solid,
    points_of,
    with_back,
)
from ex4d.raster.warp.edge_rules import cross, face_corner, sample_centre
from ex4d.raster.warp.filling import (
    Box,
    Snapped,
    draw_small,
    draw_snapped,
    may_show,
    screen_box,
    snapped,
)
from ex4d.raster.warp.projection import (
    EMPTY,
    OPEN,
    STRETCHED,
    THICKNESS,
    WATERTIGHT,
    Face,
    Projected,
    Source,
    View,
    cap_face,
    face_occluded,
    mesh_face,
    on_border,
    project_vertex,
)
from ex4d.raster.warp.resolving import clamped, weights_by_ray
from ex4d.raster.warp.resolving_reference import SEEN_ALPHA
from ex4d.raster.warp.rims import back_of, split_of
from ex4d.raster.warp.simplifying import LOWER_HIDDEN, UPPER_HIDDEN
from ex4d.raster.warp.unsnapped import draw_homogeneous, signed_volume
from ex4d.raster.warp.unsnapped_rims import draw_unsnapped_split

wp.set_module_options({"enable_backward": False})

# Ids in the depth-and-id buffer, besides twice a block's number, or a stretched face's number plus STRETCHED:
SEEN = wp.constant(0)  # a rim: the same as the first block, which is seen too
UNSEEN = wp.constant((1 << 30) | (1 << 29))  # the back of a face, or the solid between rims
CAP = wp.constant(((1 << 30) | (1 << 29)) + 1)  # plus its number


@wp.struct
class Mesh:
    """The simplified mesh of one frame; see `simplifying.Simplified`."""

    vertices: wp.array(dtype=int)
    blocks: wp.array(dtype=wp.vec2i)
    stretched: wp.array(dtype=int)


@wp.kernel
def count_seen(
    source: Source,
    mesh: Mesh,
    view: View,
    projected: Projected,
    winners: wp.array2d(dtype=wp.uint64),
    alpha: wp.array(dtype=wp.uint8),
    counts: wp.array(dtype=int),
):
    """Count the seen pixels of the one frame of source and view.

    alpha is (V,) in the "reference" convention, else empty.
    """
    for pixel in range(view.width * view.height):
        winners[0, pixel] = EMPTY
    for k in range(mesh.vertices.shape[0]):
        vertex = mesh.vertices[k]
        row = vertex // source.columns
        project_vertex(0, row, vertex - row * source.columns, source, view, projected)
    draw_blocks(source, mesh, view, projected, winners)
    draw_hidden(source, mesh, view, projected, winners)
    if alpha.shape[0] > 0:
        counts[wp.tid()] = count_by_alpha(source, mesh, view, projected, winners, alpha)
    else:
        counts[wp.tid()] = count_fronts(source, mesh, view, projected, winners)


@wp.func
def block_face(block: wp.vec2i, lower: bool, columns: int) -> Face:
    """One of the two faces of a block of cells."""
    side = block[1] >> 2
    row = block[0] // columns
    column = block[0] - row * columns
    face = Face()
    face.rows = wp.vec3i(row + side, row, row)
    face.columns = wp.vec3i(column, column, column + side)
    if lower:
        face.rows = wp.vec3i(row + side, row, row + side)
        face.columns = wp.vec3i(column, column + side, column + side)
    face.corners = face.rows * columns + face.columns
    return face


@wp.func
def draw_blocks(source: Source, mesh: Mesh, view: View, projected: Projected, winners: wp.array2d(dtype=wp.uint64)):
    """Draw the faces of all blocks that are not hidden."""
    for k in range(mesh.blocks.shape[0]):
        block = mesh.blocks[k]
        if (block[1] & UPPER_HIDDEN) == 0:
            draw_face(2 * k, block_face(block, False, source.columns), Whole(), source, view, projected, winners)
        if (block[1] & LOWER_HIDDEN) == 0:
            draw_face(2 * k + 1, block_face(block, True, source.columns), Whole(), source, view, projected, winners)


@wp.func
def draw_hidden(source: Source, mesh: Mesh, view: View, projected: Projected, winners: wp.array2d(dtype=wp.uint64)):
    """Draw stretched faces and caps, as far as they hide anything, and the source pixels that are seen on them."""
    for k in range(mesh.stretched.shape[0]):
        face = mesh_face(mesh.stretched[k], source.rows, source.columns)
        if view.occlusion == WATERTIGHT:
            draw_face(STRETCHED + k, face, Whole(), source, view, projected, winners)
        elif view.occlusion == THICKNESS:
            draw_split(face, source, view, projected, winners)
        elif source.ring > 0:
            cut = cut_stretched(source, face, 0, projected, view)
            draw_face(STRETCHED + k, face, cut, source, view, projected, winners)
    if view.occlusion != OPEN:
        for cap in range(2):
            draw_face(CAP + cap, cap_face(cap, source.rows, source.columns), Whole(), source, view, projected, winners)


@wp.func
def draw_split(face: Face, source: Source, view: View, projected: Projected, winners: wp.array2d(dtype=wp.uint64)):
    """Draw a stretched face's rims, which are seen, and the solid between them."""
    split = split_of(source, face, 0)
    if split.exists:
        split.back = back_of(split, source, 0, view)
        points = with_back(points_of(split, 0, source, projected, view), split, 0, source, view)
        ids = Ids()
        ids.near = SEEN
        ids.far = SEEN
        ids.solid = UNSEEN
        last = view.height - 1
        if points.are_snapped:
            draw_rims(split, points, ids, 0, last, 0, 1, 0, view, winners)
            draw_solid(points, ids, 0, last, 0, 1, 0, view, winners)
        else:
            draw_unsnapped_split(split, points, ids, 0, last, 0, 1, 0, source, projected, view, winners)


@wp.func
def draw_face(
    id: int,
    face: Face,
    cut: Any,
    source: Source,
    view: View,
    projected: Projected,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a face; in the "centered" convention its back is unseen."""
    a = snapped(projected, 0, face.corners[0])
    b = snapped(projected, 0, face.corners[1])
    c = snapped(projected, 0, face.corners[2])
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0:
        box = screen_box(a, b, c, view)
        if box.left <= box.right and box.top <= box.bottom:
            if source.ring > 0 and cross(b.x - a.x, b.y - a.y, c.x - a.x, c.y - a.y) < wp.int64(0):
                id = UNSEEN
            draw_in_box(id, a, b, c, box, cut, view, winners)
    else:
        if may_show(a, b, c, view):
            p = face_corner(face.corners[0], 0, source, projected, view)
            q = face_corner(face.corners[1], 0, source, projected, view)
            r = face_corner(face.corners[2], 0, source, projected, view)
            if source.ring > 0 and signed_volume(p, q, r) < wp.float64(0.0):
                id = UNSEEN
            draw_homogeneous(id, p, q, r, 0, view.height - 1, 0, 1, cut, view, 0, winners)


@wp.func
def draw_in_box(
    id: int, a: Snapped, b: Snapped, c: Snapped, box: Box, cut: Any, view: View, winners: wp.array2d(dtype=wp.uint64)
):
    """Draw a snapped face within its box, with one thread."""
    if box.is_small:
        draw_small(id, a, b, c, box, cut, 0, view, winners)
    else:
        draw_snapped(id, a, b, c, box, 0, 1, cut, 0, view, winners)


@wp.func
def count_fronts(
    source: Source, mesh: Mesh, view: View, projected: Projected, winners: wp.array2d(dtype=wp.uint64)
) -> int:
    """Count seen pixels: fronts, and on stretched faces the source pixels, as far as they reach."""
    count = wp.int32(0)
    for row in range(view.height):
        for column in range(view.width):
            key = winners[0, row * view.width + column]
            id = int(key & wp.uint64(0xFFFFFFFF))
            if key != EMPTY:
                if id < STRETCHED:
                    count += 1
                elif id < UNSEEN:
                    face = mesh_face(mesh.stretched[id - STRETCHED], source.rows, source.columns)
                    own = shown_source_pixel(
                        source, face, 0, sample_centre(column), sample_centre(row), projected, view
                    )
                    if own >= 0 and not on_border(source, face.rows[own], face.columns[own]):
                        count += 1
    return count


@wp.func
def count_by_alpha(
    source: Source,
    mesh: Mesh,
    view: View,
    projected: Projected,
    winners: wp.array2d(dtype=wp.uint64),
    alpha: wp.array(dtype=wp.uint8),
) -> int:
    """Count seen pixels as EX-4D does, by interpolated alpha, which is 0 at the corners of stretched faces."""
    for k in range(mesh.vertices.shape[0]):
        alpha[mesh.vertices[k]] = wp.uint8(255)
    if view.occlusion == WATERTIGHT:
        for k in range(mesh.stretched.shape[0]):
            corners = mesh_face(mesh.stretched[k], source.rows, source.columns).corners
            for corner in range(3):
                alpha[corners[corner]] = wp.uint8(0)
        for cap in range(2):
            corners = cap_face(cap, source.rows, source.columns).corners
            if face_occluded(source, 0, cap_face(cap, source.rows, source.columns)):
                for corner in range(3):
                    alpha[corners[corner]] = wp.uint8(0)
    count = wp.int32(0)
    for row in range(view.height):
        for column in range(view.width):
            key = winners[0, row * view.width + column]
            id = int(key & wp.uint64(0xFFFFFFFF))
            if key != EMPTY and (id < STRETCHED or id >= CAP):
                face = cap_face(id - CAP, source.rows, source.columns)
                if id < STRETCHED:
                    face = block_face(mesh.blocks[id // 2], id - 2 * (id // 2) == 1, source.columns)
                opaque = wp.int32(0)
                for corner in range(3):
                    if alpha[face.corners[corner]] != wp.uint8(0):
                        opaque += 1
                if opaque == 3:
                    count += 1
                elif opaque > 0:
                    weights = clamped(weights_by_ray(face.corners, 0, column, row, source, view))
                    weight = wp.float32(0.0)
                    for corner in range(3):
                        if alpha[face.corners[corner]] != wp.uint8(0):
                            weight += weights[corner]
                    if 255.0 * weight > SEEN_ALPHA:
                        count += 1
    return count
