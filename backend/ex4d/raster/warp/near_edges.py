"""Draws parts of masks: what holding masks steady asks of neighbouring frames, near the edges of a frame's own mask.

The image is divided into tiles. Marked ones are drawn, with every face that may reach into them. `drawing.py` asks
`near_wanted_tile` of each cell.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp import cleaning
from ex4d.raster.warp.edge_rules import sample_centre
from ex4d.raster.warp.filling import Snapped, is_wanted
from ex4d.raster.warp.projection import SUBPIXEL_BITS, Projected, Source, View
from ex4d.raster.warp.resolving import shown_at

wp.set_module_options({"enable_backward": False})

TILE_BITS = wp.constant(cleaning.TILE_SIDE.bit_length() - 1)
# Pixels that votes about a pixel read beyond it; and those from an edge whose state `cleaning.agree` may change.
VOTE_REACH = wp.constant(cleaning.VOTES)
EDGE_REACH = wp.constant(cleaning.VOTES + cleaning.AGREE_REACH)


@wp.kernel
def mark_edges(
    span: int, width: int, height: int, mask: wp.array2d(dtype=wp.uint8), marked: wp.array3d(dtype=wp.int32)
):
    """Mark the tiles that `cleaning.agree` asks about a mask: those near its edges.

    mask is (B, height * width), marked (B, rows of tiles, columns of tiles), 0 or 1. Threads are (frame, row, span of
    columns) of pixels.
    """
    frame, row, first = wp.tid()
    below = wp.min(row + 1, height - 1)
    for column in range(first * span, wp.min(first * span + span, width)):
        own = mask[frame, row * width + column]
        right = wp.min(column + 1, width - 1)
        if mask[frame, row * width + right] != own or mask[frame, below * width + column] != own:
            mark(frame, row, column, 1, EDGE_REACH, width, height, marked)


@wp.kernel
def mark_differences(
    span: int,
    width: int,
    height: int,
    one: wp.array2d(dtype=wp.uint8),
    other: wp.array2d(dtype=wp.uint8),
    marked: wp.array3d(dtype=wp.int32),
):
    """Mark the tiles near pixels whose states differ; arrays and threads as of `mark_edges`."""
    frame, row, first = wp.tid()
    for column in range(first * span, wp.min(first * span + span, width)):
        if one[frame, row * width + column] != other[frame, row * width + column]:
            mark(frame, row, column, 0, VOTE_REACH, width, height, marked)


@wp.func
def mark(
    frame: int,
    row: int,
    column: int,
    side: int,
    reach: int,
    width: int,
    height: int,
    marked: wp.array3d(dtype=wp.int32),
):
    """Mark the tiles within reach of a pixel, and of the ones that many sides below and to the right of it."""
    last_row = wp.min(row + side + reach, height - 1) >> TILE_BITS
    last_column = wp.min(column + side + reach, width - 1) >> TILE_BITS
    for y in range(wp.max(row - reach, 0) >> TILE_BITS, last_row + 1):
        for x in range(wp.max(column - reach, 0) >> TILE_BITS, last_column + 1):
            marked[frame, y, x] = 1


@wp.func
def near_wanted_tile(view: View, frame: int, a: Snapped, b: Snapped, c: Snapped, d: Snapped, has_rims: bool) -> bool:
    """Whether a cell's faces may show in a tile that is wanted; not known of corners that are not snapped, so they may.

    Args:
        has_rims: whether the planes on both sides of a step go on beyond the cell's corners (`rims.py`). They have half
            the cell's size and a tile for that, which all but surfaces that run into the camera keep to.
    """
    near = wp.bool(True)
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0 and d.w > 0.0:
        left = wp.min(wp.min(a.x, b.x), wp.min(c.x, d.x)) >> SUBPIXEL_BITS
        right = wp.max(wp.max(a.x, b.x), wp.max(c.x, d.x)) >> SUBPIXEL_BITS
        top = wp.min(wp.min(a.y, b.y), wp.min(c.y, d.y)) >> SUBPIXEL_BITS
        bottom = wp.max(wp.max(a.y, b.y), wp.max(c.y, d.y)) >> SUBPIXEL_BITS
        if has_rims:
            room = view.tile + wp.max(right - left, bottom - top) // 2
            left -= room
            right += room
            top -= room
            bottom += room
        near = is_wanted(
            wp.max(left, 0),
            wp.max(top, 0),
            wp.min(right, view.width - 1),
            wp.min(bottom, view.height - 1),
            frame,
            view,
        )
    return near


@wp.kernel
def resolve_wanted(
    source: Source,
    span: int,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
    mask: wp.array2d(dtype=wp.uint8),
):
    """Write the mask of the pixels in the tiles that are wanted, as `resolving.resolve_centered` does.

    Threads are (frame, row, span of columns) of pixels.
    """
    frame, row, first = wp.tid()
    inside = wp.bool(False)
    for column in range(first * span, wp.min(first * span + span, view.width)):
        if column == first * span or column % view.tile == 0:
            inside = is_wanted(column, row, column, row, frame, view)
        if inside:
            pixel = row * view.width + column
            x, y = sample_centre(column), sample_centre(row)
            shown = shown_at(winners[frame, pixel], frame, x, y, source, projected, view)
            mask[frame, pixel] = wp.where(shown.seen, wp.uint8(1), wp.uint8(0))
