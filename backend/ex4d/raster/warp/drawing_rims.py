"""Draws stretched faces in the "thickness" occlusion model: the rims of both sides, and the solid between them.

`rims.py` splits a face, and says why. Its pieces share the points where they meet, so they leave no gap. Rims are about
as large as source pixels; the solid behind a silhouette may be long, and is drawn by a group of threads. Faces whose
points are not all snapped are drawn by `unsnapped_rims.py`.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.cutting import Whole
from ex4d.raster.warp.edge_rules import cross
from ex4d.raster.warp.filling import (
    Box,
    Snapped,
    clipped_box,
    draw_small,
    draw_snapped,
    screen_box,
    snapped,
)
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
)
from ex4d.raster.warp.rims import (
    Crossing,
    Split,
    crossing_of,
    is_own,
    solid_end,
)

wp.set_module_options({"enable_backward": False})

# Source pixels between corners that are close: a diagonal's length and a little.
CLOSE = wp.constant(1.6)

# The triangles of a face that is split: three of rims, and two of the solid between them.
RIM_TRIANGLES, TRIANGLES = wp.constant(3), wp.constant(5)


@wp.struct
class Ids:
    """The ids of a split face's parts in the depth-and-id buffer."""

    near: int
    far: int
    solid: int  # and the backs of all parts, which are unseen too


@wp.struct
class Points:
    """A split face's points on the screen; see `rims.py`."""

    alone: Snapped
    second: Snapped
    third: Snapped
    near_second: Snapped
    near_third: Snapped
    far_second: Snapped
    far_third: Snapped
    back_second: Snapped  # as `with_back` sets them
    back_third: Snapped
    are_snapped: bool  # the solid's ends lie between two others, and are snapped where those are
    are_joined: bool  # the second and the third: there is no gap between them


@wp.func
def ids_of(face: int) -> Ids:
    """The ids of the parts of a face."""
    ids = Ids()
    ids.near = face + NEAR_RIM
    ids.far = face + FAR_RIM
    ids.solid = face + STRETCHED
    return ids


@wp.func
def points_of(split: Split, frame: int, source: Source, projected: Projected, view: View) -> Points:
    """The points of a split face on the screen, without the ends of its solid."""
    points = Points()
    points.alone = snapped(projected, frame, split.face.corners[0])
    points.second = snapped(projected, frame, split.face.corners[1])
    points.third = snapped(projected, frame, split.face.corners[2])
    crossing = crossing_of(split, 1, frame, source)
    direction = direction_of(crossing, frame, view)
    points.near_second = snapped_point(direction, crossing.near, frame, view)
    points.far_second = snapped_point(direction, crossing.far, frame, view)
    crossing = crossing_of(split, 2, frame, source)
    direction = direction_of(crossing, frame, view)
    points.near_third = snapped_point(direction, crossing.near, frame, view)
    points.far_third = snapped_point(direction, crossing.far, frame, view)
    of_corners = wp.min(points.alone.w, wp.min(points.second.w, points.third.w))
    of_near = wp.min(points.near_second.w, points.near_third.w)
    of_far = wp.min(points.far_second.w, points.far_third.w)
    points.are_snapped = wp.min(of_corners, wp.min(of_near, of_far)) > 0.0
    points.are_joined = True
    if split.divided:
        points.are_joined = are_close(split, points, frame, source, view)
    return points


@wp.func
def with_back(points: Points, split: Split, frame: int, source: Source, view: View) -> Points:
    """The points with the ends of the solid, which `rims.back_of` has told the split."""
    crossing = crossing_of(split, 1, frame, source)
    direction = direction_of(crossing, frame, view)
    points.back_second = snapped_point(direction, solid_end(split, crossing), frame, view)
    crossing = crossing_of(split, 2, frame, source)
    direction = direction_of(crossing, frame, view)
    points.back_third = snapped_point(direction, solid_end(split, crossing), frame, view)
    return points


@wp.func
def are_close(split: Split, points: Points, frame: int, source: Source, view: View) -> bool:
    """Whether a split face's second and third corner lie as close on the screen as in the source image.

    Where they are on several surfaces, a camera aside sees a gap between them.
    """
    nearest = wp.float32(0.0)
    for k in range(1, 3):
        w = wp.where(k == 1, points.second.w, points.third.w)
        if w > 0.0:
            disparity = wp.where(is_own(split, k, True), split.near[k], split.far[k])
            nearest = wp.max(nearest, w / disparity)
    pixel = wp.max(source.pixel_angles[frame, 0], source.pixel_angles[frame, 1])
    lens = float(wp.max(view.intrinsics[frame][0], view.intrinsics[frame][1]))
    room = CLOSE * nearest * pixel * lens * float(SUBPIXELS) + 1.0
    x = float(points.second.x) - float(points.third.x)
    y = float(points.second.y) - float(points.third.y)
    return x * x + y * y <= room * room


@wp.func
def direction_of(crossing: Crossing, frame: int, view: View) -> wp.vec3d:
    """The direction of a source camera's ray in the new camera's space: all points of a crossing share it."""
    return camera_direction(wp.vec3(crossing.x, crossing.y, 1.0), view.cameras[frame])


@wp.func
def snapped_point(direction: wp.vec3d, depth_inverse: float, frame: int, view: View) -> Snapped:
    """A point of a source camera's ray, by its disparity, on the screen, as `project_vertex` computes a vertex."""
    found = Snapped()
    found.w = BEHIND
    camera = view.cameras[frame]
    disparity = wp.float64(depth_inverse)
    # The point in the new camera's space, times its disparity in the source camera's.
    p = direction + wp.vec3d(camera[0, 3], camera[1, 3], camera[2, 3]) * disparity
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
def solid_hull(points: Points, view: View) -> Box:
    """A box around the solid of a face whose points are snapped, before its ends are known: they lie on the way."""
    a = points.near_second
    b = points.near_third
    c = points.far_second
    d = points.far_third
    return clipped_box(
        wp.min(wp.min(a.x, b.x), wp.min(c.x, d.x)) - 1,
        wp.min(wp.min(a.y, b.y), wp.min(c.y, d.y)) - 1,
        wp.max(wp.max(a.x, b.x), wp.max(c.x, d.x)) + 1,
        wp.max(wp.max(a.y, b.y), wp.max(c.y, d.y)) + 1,
        view,
    )


@wp.func
def solid_box(points: Points, view: View) -> Box:
    """The box of the solid between a face's rims, whose points are snapped, clipped to the image."""
    a = points.near_second
    b = points.near_third
    c = points.back_second
    d = points.back_third
    return clipped_box(
        wp.min(wp.min(a.x, b.x), wp.min(c.x, d.x)),
        wp.min(wp.min(a.y, b.y), wp.min(c.y, d.y)),
        wp.max(wp.max(a.x, b.x), wp.max(c.x, d.x)),
        wp.max(wp.max(a.y, b.y), wp.max(c.y, d.y)),
        view,
    )


@wp.func
def rims_box(points: Points, view: View) -> Box:
    """A box around a face's rims, whose points are snapped, clipped to the image; the solid's hull lies in it, too."""
    hull = solid_hull(points, view)
    corners = screen_box(points.alone, points.second, points.third, view)
    box = Box()
    box.left = wp.min(hull.left, corners.left)
    box.right = wp.max(hull.right, corners.right)
    box.top = wp.min(hull.top, corners.top)
    box.bottom = wp.max(hull.bottom, corners.bottom)
    return box


@wp.func
def draw_rims(
    split: Split,
    points: Points,
    ids: Ids,
    first_row: int,
    last_row: int,
    member: int,
    group_size: int,
    frame: int,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of some rows of a face's rims, whose points are snapped."""
    own_second = points.near_second
    own_third = points.near_third
    other_second = points.far_second
    other_third = points.far_third
    own = ids.near
    other = ids.far
    if not split.alone_near:
        own_second = points.far_second
        own_third = points.far_third
        other_second = points.near_second
        other_third = points.near_third
        own = ids.far
        other = ids.near
    # Of a far side at the image's edge nothing is known.
    if split.alone_near or not split.at_edge:
        draw_triangle(
            own,
            ids.solid,
            points.alone,
            own_second,
            own_third,
            first_row,
            last_row,
            member,
            group_size,
            frame,
            view,
            winners,
        )
    if points.are_joined and not (split.alone_near and split.at_edge):
        draw_triangle(
            other,
            ids.solid,
            points.second,
            points.third,
            other_third,
            first_row,
            last_row,
            member,
            group_size,
            frame,
            view,
            winners,
        )
        draw_triangle(
            other,
            ids.solid,
            points.second,
            other_third,
            other_second,
            first_row,
            last_row,
            member,
            group_size,
            frame,
            view,
            winners,
        )


@wp.func
def draw_solid(
    points: Points,
    ids: Ids,
    first_row: int,
    last_row: int,
    member: int,
    group_size: int,
    frame: int,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of some rows of the solid between a face's rims, whose points are snapped."""
    draw_triangle(
        ids.solid,
        ids.solid,
        points.near_second,
        points.near_third,
        points.back_third,
        first_row,
        last_row,
        member,
        group_size,
        frame,
        view,
        winners,
    )
    draw_triangle(
        ids.solid,
        ids.solid,
        points.near_second,
        points.back_third,
        points.back_second,
        first_row,
        last_row,
        member,
        group_size,
        frame,
        view,
        winners,
    )


@wp.func
def draw_triangle(
    front: int,
    back: int,
    a: Snapped,
    b: Snapped,
    c: Snapped,
    first_row: int,
    last_row: int,
    member: int,
    group_size: int,
    frame: int,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of some rows of a triangle whose points are snapped, with an id for each of its sides."""
    box = screen_box(a, b, c, view)
    box.top = wp.max(box.top, first_row)
    box.bottom = wp.min(box.bottom, last_row)
    if box.left <= box.right and box.top <= box.bottom:
        id = front
        if cross(b.x - a.x, b.y - a.y, c.x - a.x, c.y - a.y) < wp.int64(0):
            id = back
        if box.is_small and group_size == 1:
            draw_small(id, a, b, c, box, Whole(), frame, view, winners)
        else:
            draw_snapped(id, a, b, c, box, member, group_size, Whole(), frame, view, winners)
