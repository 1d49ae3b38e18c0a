"""Fills the pixels of one snapped face in the depth-and-id buffer.

`drawing.py` and `stretched_faces.py` choose the faces and the threads that draw them.
"""

from __future__ import annotations

from typing import Any

import warp as wp

from ex4d.raster.warp.cutting import Whole, survives
from ex4d.raster.warp.edge_rules import cross, edge_bias, sample_centre, slanted
from ex4d.raster.warp.projection import (
    BEHIND,
    HALF_PIXEL,
    SUBPIXEL_BITS,
    SUBPIXELS,
    Projected,
    View,
)

wp.set_module_options({"enable_backward": False})

# Edge functions of faces less wide and less high than 2^14, in 1/256 pixel, fit in 32 bits; faces wider than 32 pixels
# are faster span by span.
SMALL_WIDTH = wp.constant(1 << 13)
SMALL_HEIGHT = wp.constant(1 << 14)


@wp.struct
class Snapped:
    """A snapped vertex on the screen: 1/256 pixels, and 1/z; see `Projected`."""

    x: int
    y: int
    w: float


@wp.struct
class Box:
    """The pixels whose centres a snapped face may cover; left > right, or top > bottom, if it covers no centre."""

    left: int
    top: int
    right: int
    bottom: int
    is_small: bool  # of the face, whether or not all of it is on the screen


@wp.func
def snapped(projected: Projected, frame: int, vertex: int) -> Snapped:
    """A vertex's snapped projection."""
    corner = Snapped()
    corner.x = projected.x[frame, vertex]
    corner.y = projected.y[frame, vertex]
    corner.w = projected.inverse_z[frame, vertex]
    return corner


@wp.func
def screen_box(a: Snapped, b: Snapped, c: Snapped, view: View) -> Box:
    """The box of a snapped face, clipped to the image."""
    return clipped_box(
        wp.min(a.x, wp.min(b.x, c.x)),
        wp.min(a.y, wp.min(b.y, c.y)),
        wp.max(a.x, wp.max(b.x, c.x)),
        wp.max(a.y, wp.max(b.y, c.y)),
        view,
    )


@wp.func
def clipped_box(left: int, top: int, right: int, bottom: int, view: View) -> Box:
    """The box of what reaches from left to right and from top to bottom, in 1/256 pixel, clipped to the image."""
    box = Box()
    box.is_small = right - left < SMALL_WIDTH and bottom - top < SMALL_HEIGHT
    reach = -slanted(0, view)
    box.left = wp.max((left + (HALF_PIXEL - 1) - reach) >> SUBPIXEL_BITS, 0)
    box.right = wp.min((right - HALF_PIXEL + reach) >> SUBPIXEL_BITS, view.width - 1)
    box.top = wp.max((top + (HALF_PIXEL - 1) - reach) >> SUBPIXEL_BITS, 0)
    box.bottom = wp.min((bottom - HALF_PIXEL + reach) >> SUBPIXEL_BITS, view.height - 1)
    return box


@wp.func
def is_wanted(left: int, top: int, right: int, bottom: int, frame: int, view: View) -> bool:
    """Whether a box of pixels, which lies on the screen, touches a tile that is wanted."""
    wanted = left <= right and top <= bottom
    if wanted and view.wanted.shape[1] > 0:
        x0 = left // view.tile
        y0 = top // view.tile
        x1 = right // view.tile + 1
        y1 = bottom // view.tile + 1
        before = view.wanted[frame, y0, x1] + view.wanted[frame, y1, x0] - view.wanted[frame, y0, x0]
        wanted = view.wanted[frame, y1, x1] > before
    return wanted


@wp.func
def may_show(a: Snapped, b: Snapped, c: Snapped, view: View) -> bool:
    """Whether a face that is not snapped may reach into the image."""
    may = a.w != BEHIND or b.w != BEHIND or c.w != BEHIND
    if a.w != BEHIND and b.w != BEHIND and c.w != BEHIND:
        may = (
            wp.max(a.x, wp.max(b.x, c.x)) >= 0
            and wp.min(a.x, wp.min(b.x, c.x)) <= view.width << SUBPIXEL_BITS
            and wp.max(a.y, wp.max(b.y, c.y)) >= 0
            and wp.min(a.y, wp.min(b.y, c.y)) <= view.height << SUBPIXEL_BITS
        )
    return may


@wp.func
def draw_small(
    face: int,
    a: Snapped,
    b0: Snapped,
    c0: Snapped,
    box: Box,
    cut: Any,
    frame: int,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Do what `draw_snapped` does in 32 bits, with the same integers, and so with the same pixels and depths."""
    b = b0
    c = c0
    front = wp.bool(True)
    area = (b0.x - a.x) * (c0.y - a.y) - (b0.y - a.y) * (c0.x - a.x)
    if area == 0:
        return
    if area < 0:
        area = -area
        b = c0
        c = b0
        front = False
    a_bias = int(edge_bias(c.x - b.x, c.y - b.y))
    b_bias = int(edge_bias(a.x - c.x, a.y - c.y))
    c_bias = int(edge_bias(b.x - a.x, b.y - a.y))
    # Samples of a column lie a step above those of the column before, but those of a pixel's first drop back.
    rise = 2 * view.slant
    drop = rise * view.samples
    first_column = box.left % view.samples
    row_of_pixel = box.top % view.samples
    x = sample_centre(box.left)
    y = sample_centre(box.top) - slanted(first_column, view)
    a_row = (b.x - x) * (c.y - y) - (b.y - y) * (c.x - x)
    b_row = (c.x - x) * (a.y - y) - (c.y - y) * (a.x - x)
    c_row = (a.x - x) * (b.y - y) - (a.y - y) * (b.x - x)
    scale = 1.0 / float(area)
    aw = a.w * scale
    bw = b.w * scale
    cw = c.w * scale
    nearest = 1.0 / view.near
    farthest = 1.0 / view.far
    for row in range(box.top, box.bottom + 1):
        right = slanted(row_of_pixel, view)
        column_of_pixel = wp.int32(first_column)
        e_a = a_row + right * (b.y - c.y)
        e_b = b_row + right * (c.y - a.y)
        e_c = c_row + right * (a.y - b.y)
        for column in range(box.left, box.right + 1):
            if ((e_a + a_bias) | (e_b + b_bias) | (e_c + c_bias)) >= 0:
                w = float(e_a) * aw + float(e_b) * bw + float(e_c) * cw
                if w >= farthest and w <= nearest:
                    x_here = sample_centre(column) + right
                    y_here = sample_centre(row) - slanted(column_of_pixel, view)
                    if survives(cut, x_here, y_here, front):
                        keep_nearest(winners, frame, row * view.width + column, 1.0 / w, face)
            e_a += (b.y - c.y) * SUBPIXELS - rise * (c.x - b.x)
            e_b += (c.y - a.y) * SUBPIXELS - rise * (a.x - c.x)
            e_c += (a.y - b.y) * SUBPIXELS - rise * (b.x - a.x)
            column_of_pixel += 1
            if column_of_pixel == view.samples:
                column_of_pixel = 0
                e_a += drop * (c.x - b.x)
                e_b += drop * (a.x - c.x)
                e_c += drop * (b.x - a.x)
        a_row += (c.x - b.x) * SUBPIXELS
        b_row += (a.x - c.x) * SUBPIXELS
        c_row += (b.x - a.x) * SUBPIXELS
        row_of_pixel += 1
        if row_of_pixel == view.samples:
            row_of_pixel = 0


@wp.func
def draw_alone(
    face: int,
    a: Snapped,
    b: Snapped,
    c: Snapped,
    box: Box,
    frame: int,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw all of a snapped face within a box, which is not empty, with one thread."""
    if box.is_small:
        draw_small(face, a, b, c, box, Whole(), frame, view, winners)
    else:
        draw_snapped(face, a, b, c, box, 0, 1, Whole(), frame, view, winners)


@wp.func
def draw_snapped(
    face: int,
    a: Snapped,
    b0: Snapped,
    c0: Snapped,
    box: Box,
    member: int,
    group_size: int,
    cut: Any,
    frame: int,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
):
    """Draw a thread's part of a snapped face within a box: the group shares pixels and rows.

    cut is a `Whole`, or a `Cut` for a stretched face in the "open" model.
    """
    if box.left > box.right or box.top > box.bottom:
        return
    b = b0
    c = c0
    front = wp.bool(True)
    area = cross(b0.x - a.x, b0.y - a.y, c0.x - a.x, c0.y - a.y)
    if area == wp.int64(0):
        return
    if area < wp.int64(0):
        area = -area
        b = c0
        c = b0
        front = False
    # edge k lies opposite vertex k; its function is positive inside and grows by step_k per pixel to the right
    a_bias = edge_bias(c.x - b.x, c.y - b.y)
    b_bias = edge_bias(a.x - c.x, a.y - c.y)
    c_bias = edge_bias(b.x - a.x, b.y - a.y)
    a_step = wp.int64(b.y - c.y) * wp.int64(SUBPIXELS)
    b_step = wp.int64(c.y - a.y) * wp.int64(SUBPIXELS)
    c_step = wp.int64(a.y - b.y) * wp.int64(SUBPIXELS)
    scale = 1.0 / float(area)
    aw = a.w * scale
    bw = b.w * scale
    cw = c.w * scale
    nearest = 1.0 / view.near
    farthest = 1.0 / view.far
    # A group draws about as many pixels of a row in parallel as the face has there; its other threads draw more rows.
    abreast = wp.int32(1)
    if group_size > 1:
        extent = wp.max(a.y, wp.max(b.y, c.y)) - wp.min(a.y, wp.min(b.y, c.y))
        pixels_of_row = 0.5 * float(area) / (float(SUBPIXELS) * wp.max(float(extent), 1.0))
        while abreast < group_size and float(abreast) < pixels_of_row:
            abreast *= 2
    further = abreast % view.samples
    first_row = member // abreast
    first_column = member - first_row * abreast
    reach = wp.int64(-slanted(0, view))
    for row in range(box.top + first_row, box.bottom + 1, group_size // abreast):
        x0 = sample_centre(box.left) + slanted(row % view.samples, view)
        y = sample_centre(row)
        a_edge = cross(b.x - x0, b.y - y, c.x - x0, c.y - y)
        b_edge = cross(c.x - x0, c.y - y, a.x - x0, a.y - y)
        c_edge = cross(a.x - x0, a.y - y, b.x - x0, b.y - y)
        span = wp.vec2i(0, box.right - box.left)
        if box.right - box.left > 3:
            # wide faces: find the row's span, so that a long thin face costs its length and not its box
            span = row_span(a_edge + reach * wp.int64(wp.abs(c.x - b.x)), a_step, span)
            span = row_span(b_edge + reach * wp.int64(wp.abs(a.x - c.x)), b_step, span)
            span = row_span(c_edge + reach * wp.int64(wp.abs(b.x - a.x)), c_step, span)
        column_of_pixel = (box.left + span[0] + first_column) % view.samples
        for offset in range(span[0] + first_column, span[1] + 1, abreast):
            up = slanted(column_of_pixel, view)
            column_of_pixel += further
            if column_of_pixel >= view.samples:
                column_of_pixel -= view.samples
            e_a = a_edge + wp.int64(offset) * a_step - wp.int64(up) * wp.int64(c.x - b.x)
            e_b = b_edge + wp.int64(offset) * b_step - wp.int64(up) * wp.int64(a.x - c.x)
            e_c = c_edge + wp.int64(offset) * c_step - wp.int64(up) * wp.int64(b.x - a.x)
            if ((e_a + a_bias) | (e_b + b_bias) | (e_c + c_bias)) >= wp.int64(0):
                w = float(e_a) * aw + float(e_b) * bw + float(e_c) * cw
                if w >= farthest and w <= nearest:
                    x = x0 + (offset << SUBPIXEL_BITS)
                    if survives(cut, x, y - up, front):
                        keep_nearest(winners, frame, row * view.width + box.left + offset, 1.0 / w, face)


@wp.func
def row_span(edge: wp.int64, step: wp.int64, span: wp.vec2i) -> wp.vec2i:
    """The part of a span where edge + offset * step >= 0, or up to a pixel more on either side.

    Float32 is wrong by less than 1e-6 of an offset, and offsets beyond the span do not count: a pixel is enough.
    """
    low = span[0]
    high = span[1]
    if step == wp.int64(0):
        if edge < wp.int64(0):
            high = low - 1
    else:
        zero = wp.clamp(-float(edge) / float(step), float(low) - 2.0, float(high) + 2.0)
        if step > wp.int64(0):
            low = wp.max(low, int(wp.floor(zero)))
        else:
            high = wp.min(high, int(wp.ceil(zero)))
    return wp.vec2i(low, high)


@wp.func
def keep_nearest(winners: wp.array2d(dtype=wp.uint64), frame: int, pixel: int, z: float, face: int):
    """Keep the nearest face, of equals the lower id, in any drawing order: positive floats order as their bits do."""
    key = (wp.uint64(wp.cast(z, wp.uint32)) << wp.uint64(32)) | wp.uint64(face)
    wp.atomic_min(winners, frame, pixel, key)
