"""Edge functions: exact integers between snapped vertices, homogeneous functions elsewhere.

The latter (Olano and Greer, "Triangle Scan Conversion using 2D Homogeneous Coordinates", 1997) need no clipping, so the
visible part of a face behind the camera is right by construction.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.projection import (
    HALF_PIXEL,
    SAME_PIXEL,
    SUBPIXEL_BITS,
    SUBPIXELS,
    Projected,
    Source,
    View,
    exact_point,
)

wp.set_module_options({"enable_backward": False})


@wp.struct
class Corner:
    """One vertex of a face that is drawn by homogeneous edge functions."""

    index: int
    snapped: bool
    x: int  # snapped coordinates
    y: int
    point: wp.vec3d  # (x z, y z, z) with x, y in pixels


@wp.func
def face_corner(index: int, frame: int, source: Source, projected: Projected, view: View) -> Corner:
    """A vertex of a face, at its snapped position if it has one."""
    corner = Corner()
    corner.index = index
    corner.snapped = projected.inverse_z[frame, index] > 0.0
    corner.x = projected.x[frame, index]
    corner.y = projected.y[frame, index]
    corner.point = exact_point(index, frame, source, view)
    if corner.snapped:
        z = corner.point[2]
        scale = z / wp.float64(SUBPIXELS)
        corner.point = wp.vec3d(wp.float64(corner.x) * scale, wp.float64(corner.y) * scale, z)
    return corner


@wp.func
def cross(ax: int, ay: int, bx: int, by: int) -> wp.int64:
    """Cross product of two vectors in the plane."""
    return wp.int64(ax) * wp.int64(by) - wp.int64(ay) * wp.int64(bx)


@wp.func
def meets(dx: int, dy: int) -> bool:
    """Whether an offset, in 1/256 pixel, is close enough to show a source pixel."""
    return wp.abs(dx) <= SAME_PIXEL and wp.abs(dy) <= SAME_PIXEL


@wp.func
def pixel_centre(index: int, view: View) -> int:
    """The centre of the pixel with that column or row, of `View.samples` samples, in 1/256 sample."""
    return (2 * index + 1) * view.samples * HALF_PIXEL


@wp.func
def meets_pixel(dx: int, dy: int, view: View) -> bool:
    """`meets` for an offset from a pixel's centre, in 1/256 sample."""
    near = view.samples * SAME_PIXEL
    return wp.abs(dx) <= near and wp.abs(dy) <= near


@wp.func
def slanted(index: int, view: View) -> int:
    """How far samples are moved: those of a pixel's row of this index to the right, those of its column up.

    In 1/256 sample. The grid of samples is turned a little by it, so that the n x n of a pixel have rows and columns of
    their own, all equally far apart. An edge that passes meets them one by one, and not n at a time.
    """
    return view.slant * (2 * index - view.samples + 1)


@wp.func
def sample_centre(index: int) -> int:
    """The middle of a column or row of samples, in 1/256 sample."""
    return (index << SUBPIXEL_BITS) + HALF_PIXEL


@wp.func
def edge_bias(dx: int, dy: int) -> wp.int64:
    """0 if a pixel centre exactly on the edge belongs to the face, else -1: of two faces at an edge, one owns it."""
    bias = wp.int64(-1)
    if dy < 0 or (dy == 0 and dx > 0):
        bias = wp.int64(0)
    return bias


@wp.func
def owns_edge(a: Corner, b: Corner) -> bool:
    """Whether pixel centres exactly on edge a-b belong to the face; of two faces at an edge, one owns it."""
    owns = a.index < b.index
    if a.snapped and b.snapped:
        owns = edge_bias(b.x - a.x, b.y - a.y) == wp.int64(0)
    return owns


@wp.func
def homogeneous_edge(a: Corner, b: Corner, x: int, y: int) -> wp.float64:
    """Signed edge function at (x, y), in 1/256 pixel, scaled by both depths; exactly negated when a and b are swapped.

    Between two snapped vertices its sign is the exact one with which the neighbouring face may have been drawn.
    """
    e = wp.float64(0.0)
    if a.snapped and b.snapped:
        subpixel_area = wp.float64(SUBPIXELS) * wp.float64(SUBPIXELS)
        e = wp.float64(cross(a.x - x, a.y - y, b.x - x, b.y - y)) * a.point[2] * b.point[2] / subpixel_area
    else:
        x_centre = wp.float64(x) / wp.float64(SUBPIXELS)
        y_centre = wp.float64(y) / wp.float64(SUBPIXELS)
        p = a.point
        q = b.point
        sign = wp.float64(1.0)
        if a.index > b.index:
            p = b.point
            q = a.point
            sign = wp.float64(-1.0)
        e = sign * (
            (p[0] - x_centre * p[2]) * (q[1] - y_centre * q[2]) - (p[1] - y_centre * p[2]) * (q[0] - x_centre * q[2])
        )
    return e
