"""Draws masks near the edges of masks that are known already: what holding masks steady asks of neighbouring frames.

The image is divided into tiles. Those near an edge of the known masks are drawn, with every face that may reach into
them; the others keep what is known. `drawing.py` asks `near_marked_tile` of each cell.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp import cleaning
from ex4d.raster.warp.filling import Snapped
from ex4d.raster.warp.projection import SUBPIXEL_BITS, Projected, Source, View
from ex4d.raster.warp.resolving import shown_at

wp.set_module_options({"enable_backward": False})

TILE = wp.constant(8)  # pixels; a power of two
TILE_BITS = wp.constant(3)
# Pixels from an edge that `cleaning.agree` changes, and those that votes about them read.
EDGE_REACH = wp.constant(cleaning.AGREE_REACH + cleaning.VOTES)


@wp.kernel
def mark_tiles(
    span: int, width: int, height: int, mask: wp.array2d(dtype=wp.uint8), marked: wp.array3d(dtype=wp.int32)
):
    """Set the tiles of a mask within reach of a pixel at its edges to 1.

    mask is (B, height * width), marked (B, rows of tiles, columns of tiles), 0. Threads are (frame, row, span of
    columns) of pixels.
    """
    frame, row, first = wp.tid()
    below = wp.min(row + 1, height - 1)
    top = wp.max(row - EDGE_REACH, 0) >> TILE_BITS
    bottom = wp.min(row + 1 + EDGE_REACH, height - 1) >> TILE_BITS
    for column in range(first * span, wp.min(first * span + span, width)):
        own = mask[frame, row * width + column]
        right = wp.min(column + 1, width - 1)
        if mask[frame, row * width + right] != own or mask[frame, below * width + column] != own:
            last = wp.min(column + 1 + EDGE_REACH, width - 1) >> TILE_BITS
            for y in range(top, bottom + 1):
                for x in range(wp.max(column - EDGE_REACH, 0) >> TILE_BITS, last + 1):
                    marked[frame, y, x] = 1


@wp.func
def marked_tiles(view: View, frame: int, left: int, top: int, right: int, bottom: int) -> int:
    """How many of the tiles from left to right and from top to bottom, inclusive, are marked."""
    return (
        view.tile_sums[frame, bottom + 1, right + 1]
        - view.tile_sums[frame, top, right + 1]
        - view.tile_sums[frame, bottom + 1, left]
        + view.tile_sums[frame, top, left]
    )


@wp.func
def near_marked_tile(view: View, frame: int, a: Snapped, b: Snapped, c: Snapped, d: Snapped) -> bool:
    """Whether a cell's faces may show in a marked tile; not known of corners that are not snapped, so they may."""
    near = wp.bool(True)
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0 and d.w > 0.0:
        left = wp.min(wp.min(a.x, b.x), wp.min(c.x, d.x)) >> SUBPIXEL_BITS
        right = wp.max(wp.max(a.x, b.x), wp.max(c.x, d.x)) >> SUBPIXEL_BITS
        top = wp.min(wp.min(a.y, b.y), wp.min(c.y, d.y)) >> SUBPIXEL_BITS
        bottom = wp.max(wp.max(a.y, b.y), wp.max(c.y, d.y)) >> SUBPIXEL_BITS
        near = right >= 0 and left < view.width and bottom >= 0 and top < view.height
        if near:
            first_column = wp.max(left, 0) >> TILE_BITS
            last_column = wp.min(right, view.width - 1) >> TILE_BITS
            first_row = wp.max(top, 0) >> TILE_BITS
            last_row = wp.min(bottom, view.height - 1) >> TILE_BITS
            near = marked_tiles(view, frame, first_column, first_row, last_column, last_row) > 0
    return near


@wp.kernel
def resolve_marked(
    source: Source,
    span: int,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
    mask: wp.array2d(dtype=wp.uint8),
):
    """Write the mask of the pixels in marked tiles, as `resolving.resolve_centered` does.

    Threads are (frame, row, span of columns) of pixels.
    """
    frame, row, first = wp.tid()
    tile_row = row >> TILE_BITS
    inside = wp.bool(False)
    for column in range(first * span, wp.min(first * span + span, view.width)):
        if column == first * span or (column & (TILE - 1)) == 0:
            tile = column >> TILE_BITS
            inside = marked_tiles(view, frame, tile, tile_row, tile, tile_row) > 0
        if inside:
            shown = shown_at(frame, row, column, source, projected, view, winners)
            mask[frame, row * view.width + column] = wp.where(shown.seen, wp.uint8(1), wp.uint8(0))
