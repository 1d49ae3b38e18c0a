"""Draws stretched faces in the "thickness" occlusion model: the rims of both sides, and the solid between them.

`rims.py` splits a face, and says why. Its pieces share the points where they meet, so they leave no gap. Rims are about
as large as source pixels; the solid behind a silhouette may be long, and is drawn by a group of threads.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.cutting import Whole
from ex4d.raster.warp.edge_rules import Corner, cross
from ex4d.raster.warp.filling import Box, Snapped, draw_small, draw_snapped, may_show, screen_box, snapped
from ex4d.raster.warp.projection import (
    BEHIND,
    FAR_OFF,
    FAR_RIM,
    GUARD_BAND,
    NEAR_RIM,
    STRETCHED,
    SUBPIXELS,
    Projected,
    Source,
    View,
    camera_direction,
    can_be_snapped,
    ray_on_screen,
)
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
    is_own,
    split_point,
)
from ex4d.raster.warp.unsnapped import draw_homogeneous, signed_volume

wp.set_module_options({"enable_backward": False})

# Source pixels between corners that are close: a diagonal's length and a little.
CLOSE = wp.constant(1.6)

# The triangles of a face that is split: three of rims, and two of the solid between them.
RIM_TRIANGLES, TRIANGLES = wp.constant(3), wp.constant(5)


@wp.struct
class Triangle:
    """A part of a face that is split: its points, turned as the face, and its id in the depth-and-id buffer."""

    drawn: bool
    points: wp.vec3i
    id: int
    back: int  # the id of its back, which is unseen


@wp.struct
class Points:
    """A split face's points on the screen."""

    x: wp.types.vector(length=9, dtype=wp.int32)
    y: wp.types.vector(length=9, dtype=wp.int32)
    w: wp.types.vector(length=9, dtype=wp.float32)
    are_snapped: bool
    are_joined: bool  # the second and the third: there is no gap between them


@wp.func
def triangle_of(split: Split, points: Points, index: int, face: int) -> Triangle:
    """One of the `TRIANGLES` of a face by its id: of the corner that is alone, of the two others, and of the solid."""
    triangle = Triangle()
    triangle.drawn = True
    triangle.id = face + STRETCHED
    triangle.back = face + STRETCHED
    if index < RIM_TRIANGLES:
        near = (index == 0) == split.alone_near
        second = wp.where(near, NEAR_SECOND, FAR_SECOND)
        third = wp.where(near, NEAR_THIRD, FAR_THIRD)
        triangle.points = wp.vec3i(ALONE, second, third)
        if index == 1:
            triangle.points = wp.vec3i(SECOND, THIRD, third)
        if index == 2:
            triangle.points = wp.vec3i(SECOND, third, second)
        triangle.drawn = (near or not split.at_edge) and (index == 0 or points.are_joined)
        triangle.id = face + wp.where(near, NEAR_RIM, FAR_RIM)
    elif index == RIM_TRIANGLES:
        triangle.points = wp.vec3i(NEAR_SECOND, NEAR_THIRD, BACK_THIRD)
    else:
        triangle.points = wp.vec3i(NEAR_SECOND, BACK_THIRD, BACK_SECOND)
    return triangle


@wp.func
def points_of(split: Split, frame: int, source: Source, projected: Projected, view: View) -> Points:
    """The points of a split face on the screen."""
    points = Points()
    points.are_snapped = True
    for point in range(9):
        corner = Snapped()
        if point <= THIRD:
            corner = snapped(projected, frame, split.face.corners[point])
        else:
            corner = snapped_point(split, point, frame, source, view)
        points.x[point] = corner.x
        points.y[point] = corner.y
        points.w[point] = corner.w
        if corner.w <= 0.0:
            points.are_snapped = False
    points.are_joined = not split.divided or are_close(split, points, frame, source, view)
    return points


@wp.func
def are_close(split: Split, points: Points, frame: int, source: Source, view: View) -> bool:
    """Whether a split face's second and third corner lie as close on the screen as in the source image.

    Where they are on several surfaces, a camera aside sees a gap between them.
    """
    nearest = wp.float32(0.0)
    for k in range(SECOND, THIRD + 1):
        if points.w[k] > 0.0:
            disparity = wp.where(is_own(split, k, True), split.near[k], split.far[k])
            nearest = wp.max(nearest, points.w[k] / disparity)
    pixel = wp.max(source.pixel_angles[frame, 0], source.pixel_angles[frame, 1])
    lens = float(wp.max(view.intrinsics[frame][0], view.intrinsics[frame][1]))
    room = CLOSE * nearest * pixel * lens * float(SUBPIXELS) + 1.0
    x = float(points.x[SECOND]) - float(points.x[THIRD])
    y = float(points.y[SECOND]) - float(points.y[THIRD])
    return x * x + y * y <= room * room


@wp.func
def snapped_point(split: Split, point: int, frame: int, source: Source, view: View) -> Snapped:
    """One of a split face's points on the screen, as `project_vertex` computes a vertex."""
    found = Snapped()
    found.w = BEHIND
    ray = split_point(split, point, frame, source)
    camera = view.cameras[frame]
    disparity = wp.float64(ray[2])
    # The point in the new camera's space, times its disparity in the source camera's.
    p = camera_direction(wp.vec3(ray[0], ray[1], 1.0), camera)
    p += wp.vec3d(camera[0, 3], camera[1, 3], camera[2, 3]) * disparity
    if p[2] >= wp.float64(view.near) * disparity:
        intrinsics = view.intrinsics[frame]
        inverse = wp.float64(1.0) / p[2]
        inverse_z = disparity * inverse
        x = intrinsics[0] * p[0] * inverse + intrinsics[2]
        y = intrinsics[1] * p[1] * inverse + intrinsics[3]
        guard = wp.float64(GUARD_BAND)
        scale = wp.float64(SUBPIXELS)
        found.x = int(wp.floor(wp.clamp(x, -guard, guard) * scale + wp.float64(0.5)))
        found.y = int(wp.floor(wp.clamp(y, -guard, guard) * scale + wp.float64(0.5)))
        found.w = FAR_OFF
        if can_be_snapped(x, y, False, view):
            found.w = float(inverse_z)
    return found


@wp.func
def at(points: Points, point: int) -> Snapped:
    """One of the points."""
    found = Snapped()
    found.x = points.x[point]
    found.y = points.y[point]
    found.w = points.w[point]
    return found


@wp.func
def draw_triangle(
    triangle: Triangle,
    points: Points,
    first_row: int,
    last_row: int,
    member: int,
    group_size: int,
    frame: int,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of some rows of a triangle whose points are snapped."""
    a = at(points, triangle.points[0])
    b = at(points, triangle.points[1])
    c = at(points, triangle.points[2])
    box = screen_box(a, b, c, view)
    box.top = wp.max(box.top, first_row)
    box.bottom = wp.min(box.bottom, last_row)
    if triangle.drawn and box.left <= box.right and box.top <= box.bottom:
        id = triangle.id
        if cross(b.x - a.x, b.y - a.y, c.x - a.x, c.y - a.y) < wp.int64(0):
            id = triangle.back
        if box.is_small and group_size == 1:
            draw_small(id, a, b, c, box, Whole(), frame, view, winners)
        else:
            draw_snapped(id, a, b, c, box, member, group_size, Whole(), frame, view, winners)


@wp.func
def shows(triangle: Triangle, points: Points, view: View) -> bool:
    """Whether a triangle of a face whose points are not all snapped may reach into the image."""
    a = at(points, triangle.points[0])
    b = at(points, triangle.points[1])
    c = at(points, triangle.points[2])
    return triangle.drawn and may_show(a, b, c, view)


@wp.func
def draw_unsnapped_triangle(
    triangle: Triangle,
    split: Split,
    points: Points,
    first_row: int,
    last_row: int,
    member: int,
    group_size: int,
    frame: int,
    source: Source,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of some rows of a triangle of a face whose points are not all snapped."""
    if shows(triangle, points, view):
        p = unsnapped_corner(split, triangle.points[0], frame, source, view)
        q = unsnapped_corner(split, triangle.points[1], frame, source, view)
        r = unsnapped_corner(split, triangle.points[2], frame, source, view)
        draw_homogeneous(
            wp.where(signed_volume(p, q, r) < wp.float64(0.0), triangle.back, triangle.id),
            p,
            q,
            r,
            first_row,
            last_row,
            member,
            group_size,
            Whole(),
            view,
            frame,
            winners,
        )


@wp.func
def may_show_split(split: Split, points: Points, face: int, view: View) -> bool:
    """Whether any triangle of a face whose points are not all snapped may reach into the image."""
    found = wp.bool(False)
    for k in range(TRIANGLES):
        if shows(triangle_of(split, points, k, face), points, view):
            found = True
    return found


@wp.func
def unsnapped_corner(split: Split, point: int, frame: int, source: Source, view: View) -> Corner:
    """One of a split face's points for homogeneous edge functions."""
    corner = Corner()
    corner.index = point
    corner.snapped = False
    corner.point = ray_on_screen(split_point(split, point, frame, source), frame, view)
    return corner


@wp.func
def solid_box(points: Points, view: View) -> Box:
    """The box of the solid between a face's rims, whose points are snapped, clipped to the image."""
    first = screen_box(at(points, NEAR_SECOND), at(points, NEAR_THIRD), at(points, BACK_THIRD), view)
    second = screen_box(at(points, NEAR_SECOND), at(points, BACK_THIRD), at(points, BACK_SECOND), view)
    box = Box()
    box.left = wp.min(first.left, second.left)
    box.right = wp.max(first.right, second.right)
    box.top = wp.min(first.top, second.top)
    box.bottom = wp.max(first.bottom, second.bottom)
    return box


@wp.func
def draw_solid(
    split: Split,
    points: Points,
    face: int,
    first_row: int,
    last_row: int,
    member: int,
    group_size: int,
    frame: int,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of some rows of the solid between a face's rims, whose points are snapped."""
    for k in range(RIM_TRIANGLES, TRIANGLES):
        draw_triangle(
            triangle_of(split, points, k, face), points, first_row, last_row, member, group_size, frame, view, winners
        )
