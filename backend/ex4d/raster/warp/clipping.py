"""Faces that leave the image, in the `reference` convention: clipped to the view's frustum, then snapped and drawn.

nvdiffrast, with which EX-4D's renders were made, clips every such face at the image's edges and the near plane, and
snaps the resulting corners to 1/16 pixel. Snapping the far ends of a long thin stretched face instead would rotate it,
and cover other pixels; so clipping replaces `unsnapped.draw_unsnapped` here.

A thread clips a face, and draws the remaining triangles if they are small, as most are. Large triangles go to a queue
in pieces of some rows, which groups of threads drain, as in `drawing.py`. When every thread of a group clipped for
itself, an H200 took ten times as long for the whole render.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.cutting import Whole
from ex4d.raster.warp.drawing import COUNTERS, UNSNAPPED_COUNTER, Work
from ex4d.raster.warp.filling import Box, Snapped, draw_alone, draw_snapped, screen_box
from ex4d.raster.warp.projection import (
    OPEN,
    SUBPIXELS,
    Projected,
    Source,
    View,
    exact_point,
    is_obstacle,
    mesh_face,
    nearness,
)
from ex4d.raster.warp.unsnapped import is_unsnapped

wp.set_module_options({"enable_backward": False})

CLIPPED_COUNTER = wp.constant(4)
# Part of a triangle: its face, first and last row of the screen, and of each corner x, y and the bits of 1 / z.
Piece = wp.types.vector(length=12, dtype=wp.int32)
PIECE_BYTES = 48

# Each of five planes adds a corner to a triangle, or by rounding, where corners lie on the plane, a few more.
ROOM = wp.constant(12)
coordinates = wp.types.vector(length=12, dtype=wp.float64)


@wp.struct
class Polygon:
    """Corners as (x z, y z, z) with x, y in pixels."""

    count: int
    x: coordinates
    y: coordinates
    z: coordinates


@wp.kernel
def clip_faces(
    source: Source,
    projected: Projected,
    view: View,
    work: Work,
    pieces: wp.array2d(dtype=Piece),
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw, or queue, faces and caps that are not snapped: threads are (frame, thread)."""
    frame, thread = wp.tid()
    threads = work.groups * work.group_size
    cells = (source.rows - 1) * (source.columns - 1)
    if view.occlusion != OPEN:
        for cap in range(2 * cells + thread, 2 * cells + 2, threads):
            if is_unsnapped(mesh_face(cap, source.rows, source.columns), frame, projected):
                clip_face(cap, frame, source, view, work, pieces, winners)
    count = work.counters[frame * COUNTERS + UNSNAPPED_COUNTER]
    if count <= work.unsnapped.shape[1]:
        for slot in range(thread, count, threads):
            clip_face(work.unsnapped[frame, slot], frame, source, view, work, pieces, winners)
    else:
        for index in range(thread, 2 * cells, threads):
            found = mesh_face(index, source.rows, source.columns)
            if is_unsnapped(found, frame, projected) and is_obstacle(source, view, frame, found):
                clip_face(index, frame, source, view, work, pieces, winners)


@wp.kernel
def draw_clipped(view: View, work: Work, pieces: wp.array2d(dtype=Piece), winners: wp.array2d(dtype=wp.uint64)):
    """Draw the pieces that `clip_faces` queued: threads are (frame, member of a group)."""
    frame, thread = wp.tid()
    group = thread // work.group_size
    member = thread - group * work.group_size
    count = wp.min(work.counters[frame * COUNTERS + CLIPPED_COUNTER], pieces.shape[1])
    for slot in range(group, count, work.groups):
        piece = pieces[frame, slot]
        a = piece_corner(piece, 3)
        b = piece_corner(piece, 6)
        c = piece_corner(piece, 9)
        box = screen_box(a, b, c, view)
        box.top = wp.max(box.top, piece[1])
        box.bottom = wp.min(box.bottom, piece[2])
        draw_snapped(piece[0], a, b, c, box, member, work.group_size, Whole(), frame, view, winners)


@wp.func
def piece_corner(piece: Piece, start: int) -> Snapped:
    """The corner that starts at an index of a piece."""
    corner = Snapped()
    corner.x = piece[start]
    corner.y = piece[start + 1]
    corner.w = wp.cast(piece[start + 2], wp.float32)
    return corner


@wp.func
def clip_face(
    index: int,
    frame: int,
    source: Source,
    view: View,
    work: Work,
    pieces: wp.array2d(dtype=Piece),
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw, or queue, a face as the fan of triangles that remains of it after clipping."""
    corners = mesh_face(index, source.rows, source.columns).corners
    polygon = Polygon()
    some_outside = int(0)
    all_outside = int(31)
    for k in range(3):
        point = exact_point(corners[k], frame, source, view)
        polygon = with_corner(polygon, point[0], point[1], point[2])
        outside = int(0)
        for plane in range(5):
            if distance(plane, point[0], point[1], point[2], view) < wp.float64(0.0):
                outside += 1 << plane
        some_outside = some_outside | outside
        all_outside = all_outside & outside
    if all_outside != 0:
        return
    for plane in range(5):
        if some_outside & (1 << plane) != 0:
            polygon = cut_off(polygon, plane, view)
    if polygon.count < 3:
        return
    nearer = wp.float64(nearness(index, source, view))
    a = snapped_corner(polygon, 0, nearer, view)
    b = snapped_corner(polygon, 1, nearer, view)
    for k in range(2, polygon.count):
        c = snapped_corner(polygon, k, nearer, view)
        box = screen_box(a, b, c, view)
        if box.left <= box.right and box.top <= box.bottom:
            if (box.right - box.left + 1) * (box.bottom - box.top + 1) <= work.direct_pixels:
                draw_alone(index, a, b, c, box, frame, view, winners)
            else:
                queue_triangle(index, a, b, c, box, frame, view, work, pieces, winners)
        b = c


@wp.func
def queue_triangle(
    face: int,
    a: Snapped,
    b: Snapped,
    c: Snapped,
    box: Box,
    frame: int,
    view: View,
    work: Work,
    pieces: wp.array2d(dtype=Piece),
    winners: wp.array2d(dtype=wp.uint64),
):
    """Queue a triangle for groups; pieces for which the queue has no room are drawn at once."""
    first = box.top
    last = box.bottom
    for top in range(first, last + 1, work.piece_rows):
        bottom = wp.min(top + work.piece_rows - 1, last)
        slot = wp.atomic_add(work.counters, frame * COUNTERS + CLIPPED_COUNTER, 1)
        if slot < pieces.shape[1]:
            piece = Piece()
            piece[0] = face
            piece[1] = top
            piece[2] = bottom
            piece[3] = a.x
            piece[4] = a.y
            piece[5] = wp.cast(a.w, wp.int32)
            piece[6] = b.x
            piece[7] = b.y
            piece[8] = wp.cast(b.w, wp.int32)
            piece[9] = c.x
            piece[10] = c.y
            piece[11] = wp.cast(c.w, wp.int32)
            pieces[frame, slot] = piece
        else:
            box.top = top
            box.bottom = bottom
            draw_alone(face, a, b, c, box, frame, view, winners)


@wp.func
def distance(plane: int, x: wp.float64, y: wp.float64, z: wp.float64, view: View) -> wp.float64:
    """Of (x z, y z, z) from the image's left, right, upper and lower edge and the near plane; negative if outside."""
    far_side = wp.float64(view.width) * z - x
    if plane == 0:
        far_side = x
    if plane == 2:
        far_side = y
    if plane == 3:
        far_side = wp.float64(view.height) * z - y
    if plane == 4:
        far_side = z - wp.float64(view.near)
    return far_side


@wp.func
def cut_off(polygon: Polygon, plane: int, view: View) -> Polygon:
    """The part of a polygon that lies inside a plane."""
    rest = Polygon()
    zero = wp.float64(0.0)
    for k in range(polygon.count):
        after = k + 1
        if after == polygon.count:
            after = 0
        x = polygon.x[k]
        y = polygon.y[k]
        z = polygon.z[k]
        here = distance(plane, x, y, z, view)
        there = distance(plane, polygon.x[after], polygon.y[after], polygon.z[after], view)
        if here >= zero:
            rest = with_corner(rest, x, y, z)
        if (here >= zero) != (there >= zero):
            t = here / (here - there)
            rest = with_corner(
                rest,
                x + t * (polygon.x[after] - x),
                y + t * (polygon.y[after] - y),
                z + t * (polygon.z[after] - z),
            )
    return rest


@wp.func
def with_corner(polygon: Polygon, x: wp.float64, y: wp.float64, z: wp.float64) -> Polygon:
    """The polygon with one more corner, if there is room."""
    if polygon.count < ROOM:
        polygon.x[polygon.count] = x
        polygon.y[polygon.count] = y
        polygon.z[polygon.count] = z
        polygon.count += 1
    return polygon


@wp.func
def snapped_corner(polygon: Polygon, k: int, nearer: wp.float64, view: View) -> Snapped:
    """Corner k of a polygon, snapped; 1 / z is multiplied by `nearer`."""
    corner = Snapped()
    steps = wp.float64(SUBPIXELS // view.snap)
    inverse_z = wp.float64(1.0) / polygon.z[k]
    corner.x = int(wp.floor(polygon.x[k] * inverse_z * steps + wp.float64(0.5))) * view.snap
    corner.y = int(wp.floor(polygon.y[k] * inverse_z * steps + wp.float64(0.5))) * view.snap
    corner.w = float(nearer * inverse_z)
    return corner
