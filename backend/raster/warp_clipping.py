"""Faces that leave the picture, in the `reference` convention: clipped to the view's frustum, then snapped and drawn.

nvdiffrast, which EX-4D's renders were made with, cuts every such face off at the picture's edges and the near plane,
and snaps the corners that come of it to 1/16 pixel. Snapping the far ends of a long thin curtain instead would turn it
about, and cover other pixels; hence it is done here too, in place of `warp_unsnapped.draw_unsnapped`.
"""

from __future__ import annotations

import warp as wp

from backend.raster.warp_cutting import Whole
from backend.raster.warp_filling import Snapped, draw_snapped, screen_box
from backend.raster.warp_surface import SUBPIXELS, Projected, Source, View, exact_point, mesh_face, nearness
from backend.raster.warp_unsnapped import queue_drawer

wp.set_module_options({"enable_backward": False})

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


@wp.func
def draw_clipped_face(
    index: int,
    first_row: int,
    last_row: int,
    frame: int,
    member: int,
    group_size: int,
    source: Source,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of some rows of a face, as the fan of triangles that clipping leaves of it."""
    corners = mesh_face(index, source.rows, source.columns).corners
    polygon = Polygon()
    for k in range(3):
        point = exact_point(corners[k], frame, source, view)
        polygon = with_corner(polygon, point[0], point[1], point[2])
    zero = wp.float64(0.0)
    one = wp.float64(1.0)
    polygon = cut_off(polygon, one, zero, zero, zero)
    polygon = cut_off(polygon, -one, zero, wp.float64(view.width), zero)
    polygon = cut_off(polygon, zero, one, zero, zero)
    polygon = cut_off(polygon, zero, -one, wp.float64(view.height), zero)
    polygon = cut_off(polygon, zero, zero, one, -wp.float64(view.near))
    nearer = wp.float64(nearness(index, source, view))
    if polygon.count >= 3:
        a = snapped_corner(polygon, 0, nearer, view)
        b = snapped_corner(polygon, 1, nearer, view)
        for k in range(2, polygon.count):
            c = snapped_corner(polygon, k, nearer, view)
            box = screen_box(a, b, c, view)
            box.top = wp.max(box.top, first_row)
            box.bottom = wp.min(box.bottom, last_row)
            draw_snapped(index, a, b, c, box, member, group_size, Whole(), frame, view, winners)
            b = c


@wp.func
def cut_off(polygon: Polygon, a: wp.float64, b: wp.float64, c: wp.float64, d: wp.float64) -> Polygon:
    """The part of a polygon where a x z + b y z + c z + d is not negative."""
    rest = Polygon()
    zero = wp.float64(0.0)
    for k in range(polygon.count):
        after = k + 1
        if after == polygon.count:
            after = 0
        x = polygon.x[k]
        y = polygon.y[k]
        z = polygon.z[k]
        here = a * x + b * y + c * z + d
        there = a * polygon.x[after] + b * polygon.y[after] + c * polygon.z[after] + d
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
    if polygon.count < ROOM:
        polygon.x[polygon.count] = x
        polygon.y[polygon.count] = y
        polygon.z[polygon.count] = z
        polygon.count += 1
    return polygon


@wp.func
def snapped_corner(polygon: Polygon, k: int, nearer: wp.float64, view: View) -> Snapped:
    corner = Snapped()
    steps = wp.float64(SUBPIXELS // view.snap)
    inverse_z = wp.float64(1.0) / polygon.z[k]
    corner.x = int(wp.floor(polygon.x[k] * inverse_z * steps + wp.float64(0.5))) * view.snap
    corner.y = int(wp.floor(polygon.y[k] * inverse_z * steps + wp.float64(0.5))) * view.snap
    corner.w = float(nearer * inverse_z)
    return corner


draw_clipped = queue_drawer(draw_clipped_face)
