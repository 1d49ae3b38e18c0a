"""Draws the rims and the solid of stretched faces whose points are not all snapped, before the near plane or far aside.

`drawing_rims.py` draws all others. Threads of a group share the rows of each triangle, as in `unsnapped.py`.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.cutting import Whole
from ex4d.raster.warp.drawing_rims import RIM_TRIANGLES, TRIANGLES, Ids, Points
from ex4d.raster.warp.edge_rules import Corner, face_corner
from ex4d.raster.warp.filling import Snapped, may_show
from ex4d.raster.warp.projection import SUBPIXELS, Projected, Source, View, ray_on_screen
from ex4d.raster.warp.rims import (
    ALONE,
    BACK_SECOND,
    BACK_THIRD,
    FAR_SECOND,
    FAR_THIRD,
    NEAR_SECOND,
    NEAR_THIRD,
    SECOND,
    THIRD,
    Split,
    split_point,
)
from ex4d.raster.warp.unsnapped import draw_homogeneous, signed_volume

wp.set_module_options({"enable_backward": False})


@wp.func
def triangle_points(split: Split, index: int) -> wp.vec3i:
    """The points of one of the `TRIANGLES` of a face: of the corner that is alone, of the two others, of the solid."""
    near = (index == 0) == split.alone_near
    second = wp.where(near, NEAR_SECOND, FAR_SECOND)
    third = wp.where(near, NEAR_THIRD, FAR_THIRD)
    found = wp.vec3i(ALONE, second, third)
    if index == 1:
        found = wp.vec3i(SECOND, THIRD, third)
    if index == 2:
        found = wp.vec3i(SECOND, third, second)
    if index == RIM_TRIANGLES:
        found = wp.vec3i(NEAR_SECOND, NEAR_THIRD, BACK_THIRD)
    if index > RIM_TRIANGLES:
        found = wp.vec3i(NEAR_SECOND, BACK_THIRD, BACK_SECOND)
    return found


@wp.func
def at(points: Points, point: int) -> Snapped:
    """One of the points by its number."""
    found = points.alone
    if point == SECOND:
        found = points.second
    if point == THIRD:
        found = points.third
    if point == NEAR_SECOND:
        found = points.near_second
    if point == NEAR_THIRD:
        found = points.near_third
    if point == FAR_SECOND:
        found = points.far_second
    if point == FAR_THIRD:
        found = points.far_third
    if point == BACK_SECOND:
        found = points.back_second
    if point == BACK_THIRD:
        found = points.back_third
    return found


@wp.func
def shows(split: Split, points: Points, index: int, view: View) -> bool:
    """Whether one of the `TRIANGLES` of a face whose points are not all snapped may reach into the image."""
    near = (index == 0) == split.alone_near
    drawn = index >= RIM_TRIANGLES or ((near or not split.at_edge) and (index == 0 or points.are_joined))
    corners = triangle_points(split, index)
    return drawn and may_show(at(points, corners[0]), at(points, corners[1]), at(points, corners[2]), view)


@wp.func
def may_show_split(split: Split, points: Points, view: View) -> bool:
    """Whether any triangle of a face whose points are not all snapped may reach into the image."""
    found = wp.bool(False)
    for k in range(TRIANGLES):
        if shows(split, points, k, view):
            found = True
    return found


@wp.func
def draw_unsnapped_split(
    split: Split,
    points: Points,
    ids: Ids,
    first_row: int,
    last_row: int,
    member: int,
    group_size: int,
    frame: int,
    source: Source,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of some rows of a face whose points are not all snapped."""
    for k in range(wp.where(view.is_hollow != 0, RIM_TRIANGLES, TRIANGLES)):
        if shows(split, points, k, view):
            corners = triangle_points(split, k)
            p = rim_corner(split, points, corners[0], frame, source, projected, view)
            q = rim_corner(split, points, corners[1], frame, source, projected, view)
            r = rim_corner(split, points, corners[2], frame, source, projected, view)
            id = ids.solid
            if k < RIM_TRIANGLES and signed_volume(p, q, r) >= wp.float64(0.0):
                id = wp.where((k == 0) == split.alone_near, ids.near, ids.far)
            draw_homogeneous(id, p, q, r, first_row, last_row, member, group_size, Whole(), view, frame, winners)


@wp.func
def rim_corner(
    split: Split, points: Points, point: int, frame: int, source: Source, projected: Projected, view: View
) -> Corner:
    """One of a split face's points for homogeneous edge functions: the same for all faces that share the point.

    Points of the silhouette are numbered by the edge that it passes, after all vertices, and snapped as other faces'.
    """
    if point <= THIRD:
        return face_corner(split.face.corners[point], frame, source, projected, view)
    end = split.face.corners[2 - point % 2]
    first = wp.min(split.face.corners[0], end)
    across = wp.max(split.face.corners[0], end) - first
    # From a vertex edges lead right, down to the left and down.
    edge = 3 * first + wp.where(across == 1, 0, wp.where(across == source.columns, 2, 1))
    found = at(points, point)
    corner = Corner()
    corner.index = source.rows * source.columns + 3 * edge + (point - NEAR_SECOND) // 2
    corner.snapped = found.w > 0.0
    corner.x = found.x
    corner.y = found.y
    corner.point = ray_on_screen(split_point(split, point, frame, source), frame, view)
    if corner.snapped:
        z = corner.point[2]
        scale = z / wp.float64(SUBPIXELS)
        corner.point = wp.vec3d(wp.float64(corner.x) * scale, wp.float64(corner.y) * scale, z)
    return corner
