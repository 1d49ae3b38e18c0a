"""Draws parts of masks: what holding masks steady asks of neighbouring frames, near the edges of a frame's own mask.

The image is divided into tiles. Marked ones are drawn, with every face that may reach into them. `mark_blocks` finds
the blocks of cells that may, the vertices of no others are projected, and `drawing.py` asks `near_wanted_tile` of each
of their cells.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp import cleaning
from ex4d.raster.warp.edge_rules import sample_centre
from ex4d.raster.warp.filling import Snapped, is_wanted
from ex4d.raster.warp.projection import (
    BLOCK,
    GUARD_BAND,
    SUBPIXEL_BITS,
    THICKNESS,
    Projected,
    Source,
    View,
    camera_space,
)
from ex4d.raster.warp.resolving import shown_at

wp.set_module_options({"enable_backward": False})

TILE_BITS = wp.constant(cleaning.TILE_SIDE.bit_length() - 1)
ALL_SEEN = wp.constant(wp.int64(0x0101010101010101))  # a word of 8 pixels, each of a byte
# Pixels that votes about a pixel read beyond it; and those from an edge whose state `cleaning.agree` may change.
VOTE_REACH = wp.constant(cleaning.VOTES)
EDGE_REACH = wp.constant(cleaning.VOTES + cleaning.AGREE_REACH)
# A block of cells of which a part is no farther from the new camera's plane than this share of its depth may show
# anywhere: float32 rays are too coarse to tell.
LEAST_DEPTH = wp.constant(1e-3)
FAR_AWAY = wp.constant(wp.float64(1e30))


@wp.kernel
def mark_edges(
    span: int,
    width: int,
    height: int,
    mask: wp.array2d(dtype=wp.uint8),
    words: wp.array2d(dtype=wp.int64),
    marked: wp.array3d(dtype=wp.int32),
):
    """Mark the tiles that `cleaning.agree` asks about a mask: those near its edges.

    mask is (B, height * width), marked (B, rows of tiles, columns of tiles), 0 or 1. words are those of the mask, of 8
    pixels each, or empty. Threads are (frame, row, span of columns) of pixels.
    """
    frame, row, first = wp.tid()
    below = wp.min(row + 1, height - 1)
    column = first * span
    last = wp.min(column + span, width)
    while column < last:
        stop = wp.min(((column >> TILE_BITS) + 1) << TILE_BITS, last)
        even = wp.bool(False)
        if words.shape[1] > 0:  # most rows of a tile have one state, which goes on to their right and below them
            word = words[frame, (row * width + column) >> TILE_BITS]
            right = words[frame, (row * width + wp.min(stop, width - 1)) >> TILE_BITS]
            even = word == wp.int64(0) or word == ALL_SEEN
            even = even and right == word and words[frame, (below * width + column) >> TILE_BITS] == word
        if not even:
            for x in range(column, stop):
                own = mask[frame, row * width + x]
                next = mask[frame, row * width + wp.min(x + 1, width - 1)]
                if next != own or mask[frame, below * width + x] != own:
                    mark(frame, row, x, 1, EDGE_REACH, width, height, marked)
        column = stop


@wp.kernel
def mark_differences(
    span: int,
    width: int,
    height: int,
    one: wp.array2d(dtype=wp.uint8),
    other: wp.array2d(dtype=wp.uint8),
    within: wp.array3d(dtype=wp.int32),
    marked: wp.array3d(dtype=wp.int32),
):
    """Mark the tiles near pixels, of those within some tiles, whose states differ; the rest as in `mark_edges`."""
    frame, row, first = wp.tid()
    column = first * span
    last = wp.min(column + span, width)
    while column < last:
        stop = wp.min(((column >> TILE_BITS) + 1) << TILE_BITS, last)
        if within[frame, row >> TILE_BITS, column >> TILE_BITS] != 0:
            for x in range(column, stop):
                if one[frame, row * width + x] != other[frame, row * width + x]:
                    mark(frame, row, x, 0, VOTE_REACH, width, height, marked)
        column = stop


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
        has_rims: whether the planes on both sides of a step go on beyond the cell's corners.
    """
    near = wp.bool(True)
    if a.w > 0.0 and b.w > 0.0 and c.w > 0.0 and d.w > 0.0:
        left = wp.min(wp.min(a.x, b.x), wp.min(c.x, d.x)) >> SUBPIXEL_BITS
        right = wp.max(wp.max(a.x, b.x), wp.max(c.x, d.x)) >> SUBPIXEL_BITS
        top = wp.min(wp.min(a.y, b.y), wp.min(c.y, d.y)) >> SUBPIXEL_BITS
        bottom = wp.max(wp.max(a.y, b.y), wp.max(c.y, d.y)) >> SUBPIXEL_BITS
        if has_rims:
            room = rim_room(view, wp.max(right - left, bottom - top))
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
def mark_blocks(source: Source, span: int, view: View):
    """Write `View.blocks`, in the `centered` convention: threads are (frame, row, span of columns) of blocks."""
    frame, row, first = wp.tid()
    across = view.blocks.shape[2]
    for column in range(first * span, wp.min(first * span + span, across)):
        # Caps, which are always drawn, have the corners of the grid.
        is_corner = (row == 0 or row == view.blocks.shape[1] - 1) and (column == 0 or column == across - 1)
        may_show = wp.bool(True)
        if not is_corner:
            may_show = block_may_show(frame, BLOCK * row, BLOCK * column, source, view)
        view.blocks[frame, row, column] = wp.where(may_show, wp.uint8(1), wp.uint8(0))


@wp.func
def block_may_show(frame: int, top: int, left: int, source: Source, view: View) -> bool:
    """Whether the cells of a block may show in a tile that is wanted, by the box of space that holds their vertices.

    Less exact than `near_wanted_tile`, which it never contradicts, and asked once for all of them.
    """
    bottom = wp.min(top + BLOCK, source.rows - 1)
    right = wp.min(left + BLOCK, source.columns - 1)
    has_border = top == 0 or left == 0 or bottom == source.rows - 1 or right == source.columns - 1
    nearest = float(wp.inf)
    farthest = wp.float32(0.0)
    if has_border:
        nearest = source.border[frame]
        farthest = source.border[frame]
    for row in range(wp.max(top, 1), wp.min(bottom, source.rows - 2) + 1):
        for column in range(wp.max(left, 1), wp.min(right, source.columns - 2) + 1):
            z = source.depth[frame, row - source.ring, column - source.ring]
            nearest = wp.min(nearest, z)
            farthest = wp.max(farthest, z)
    low = wp.vec2d(FAR_AWAY, FAR_AWAY)
    high = wp.vec2d(-FAR_AWAY, -FAR_AWAY)
    camera = view.cameras[frame]
    intrinsics = view.intrinsics[frame]
    before_camera = wp.bool(True)
    for k in range(8):
        z = wp.where(k // 4 == 0, nearest, farthest)
        x = z * source.ray_x[frame, wp.where(k % 2 == 0, left, right)]
        y = z * source.ray_y[frame, wp.where(k // 2 % 2 == 0, top, bottom)]
        p = camera_space(wp.vec3(x, y, z), camera)
        before_camera = before_camera and p[2] >= wp.float64(LEAST_DEPTH * z) and p[2] >= wp.float64(view.near)
        place = wp.vec2d(intrinsics[0] * p[0] / p[2] + intrinsics[2], intrinsics[1] * p[1] / p[2] + intrinsics[3])
        low = wp.min(low, place)
        high = wp.max(high, place)
    if not (before_camera and wp.max(-wp.min(low), wp.max(high)) < wp.float64(GUARD_BAND)):
        return True
    room = wp.int32(1)  # pixel, for rounding
    pixel = wp.min(source.pixel_angles[frame, 0], source.pixel_angles[frame, 1])
    is_flat = not has_border and farthest - nearest < source.level_widths * pixel * nearest
    if view.occlusion == THICKNESS and not is_flat:
        room += rim_room(view, int(wp.max(high - low)) + 1)
    return is_wanted(
        wp.max(int(wp.floor(low[0])) - room, 0),
        wp.max(int(wp.floor(low[1])) - room, 0),
        wp.min(int(wp.floor(high[0])) + room, view.width - 1),
        wp.min(int(wp.floor(high[1])) + room, view.height - 1),
        frame,
        view,
    )


@wp.func
def rim_room(view: View, extent: int) -> int:
    """How far the planes on both sides of a step may go on beyond a cell (`rims.py`), or a block, that is so large.

    In pixels. They have half the cell's size and a tile for that, which all but surfaces that run into the camera keep
    to.
    """
    return view.tile + extent // 2


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
