"""Simplifies a frame's mesh, for the visible fraction on the CPU: large faces where the surface is smooth.

Blocks of up to 16 x 16 cells are drawn as one where no stretched face touches them and the surface is nearly flat; the
rest are single cells, and stretched faces. Nothing here depends on the camera, so it
is computed once for all paths that an artist tries. `counting.py` draws the result.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.projection import (
    OPEN,
    Source,
    View,
    cell_face,
    is_obstacle,
    is_stretched,
    on_border,
    source_point,
)

wp.set_module_options({"enable_backward": False})

LARGEST_LEVEL = wp.constant(4)  # blocks of 2^4 cells
# A block counts as flat if 1 / z differs nowhere by more than this share from the plane of its face: for a camera
# that moved sideways by half the distance, that is a shift of about a pixel of 512.
FLATNESS = wp.constant(0.005)

UPPER_HIDDEN = wp.constant(1)  # bits of `Simplified.hidden`
LOWER_HIDDEN = wp.constant(2)


@wp.struct
class Simplified:
    """The simplified mesh of one frame; the lists have room for all faces."""

    hidden: wp.array(dtype=wp.uint8)  # (cells,) which faces of a cell are stretched
    touched: wp.array(dtype=wp.uint8)  # (V,) 1: a corner of a stretched face, or on the border
    used: wp.array(dtype=wp.uint8)  # (V,) 1: a corner of a face in the lists
    blocks: wp.array(dtype=wp.vec2i)  # top left cell, and (side << 2) | hidden
    stretched: wp.array(dtype=int)  # faces by their place in the mesh
    counts: wp.array(dtype=int)  # (2,) blocks, stretched faces


@wp.kernel
def find_stretched(source: Source, view: View, simplified: Simplified):
    """Fill `hidden`, `touched` and `stretched`. Threads are rows of cells."""
    row = wp.tid()
    cells = (source.rows - 1) * (source.columns - 1)
    for column in range(source.columns - 1):
        cell = row * (source.columns - 1) + column
        hidden = wp.int32(0)
        for side in range(2):
            face = cell_face(row, column, side == 1, source.columns)
            stretched = is_stretched(source, view, 0, face)
            if view.occlusion == OPEN:
                stretched = not is_obstacle(source, view, 0, face)  # the border is omitted too, occluded or not
            if stretched:
                hidden += 1 + side
                slot = wp.atomic_add(simplified.counts, 1, 1)
                simplified.stretched[slot] = cell + side * cells
                for k in range(3):
                    simplified.touched[face.corners[k]] = wp.uint8(1)
                    simplified.used[face.corners[k]] = wp.uint8(1)
        simplified.hidden[cell] = wp.uint8(hidden)


@wp.kernel
def find_blocks(source: Source, simplified: Simplified):
    """Fill `blocks` and `used`. Threads are (row, column) of the largest blocks."""
    block_row, block_column = wp.tid()
    place = wp.int32(0)  # along a Z-order curve, which visits a block's cells one after the other
    while place < (1 << (2 * LARGEST_LEVEL)):
        row = (block_row << LARGEST_LEVEL) + every_other_bit(place >> 1)
        column = (block_column << LARGEST_LEVEL) + every_other_bit(place)
        level = wp.int32(LARGEST_LEVEL)
        searching = wp.bool(True)
        while searching:
            searching = level > 0
            if searching:
                if (place & ((1 << (2 * level)) - 1)) == 0:
                    searching = not is_flat(source, simplified, row, column, 1 << level)
                if searching:
                    level -= 1
        if row < source.rows - 1 and column < source.columns - 1:
            side = 1 << level
            hidden = int(simplified.hidden[row * (source.columns - 1) + column])
            if hidden != (UPPER_HIDDEN | LOWER_HIDDEN):
                slot = wp.atomic_add(simplified.counts, 0, 1)
                corner = row * source.columns + column
                simplified.blocks[slot] = wp.vec2i(corner, (side << 2) | hidden)
                simplified.used[corner] = wp.uint8(1)
                simplified.used[corner + side] = wp.uint8(1)
                simplified.used[corner + side * source.columns] = wp.uint8(1)
                simplified.used[corner + side * source.columns + side] = wp.uint8(1)
        place += 1 << (2 * level)


@wp.func
def every_other_bit(place: int) -> int:
    """Bits 0, 2, 4, 6 of a number, moved together."""
    return (place & 1) | ((place >> 1) & 2) | ((place >> 2) & 4) | ((place >> 3) & 8)


@wp.func
def is_flat(source: Source, simplified: Simplified, row: int, column: int, side: int) -> bool:
    """Whether two faces may replace a block of cells; the diagonal runs as in every cell."""
    flat = row + side < source.rows and column + side < source.columns
    if flat:
        # a block with a stretched face at its corner cannot be flat
        flat = (
            touched(source, simplified, row, column) == 0
            and touched(source, simplified, row + side, column) == 0
            and touched(source, simplified, row, column + side) == 0
            and touched(source, simplified, row + side, column + side) == 0
        )
    if flat:
        top_left = disparity(source, row, column)
        top_right = disparity(source, row, column + side)
        bottom_left = disparity(source, row + side, column)
        bottom_right = disparity(source, row + side, column + side)
        step = 1.0 / float(side)
        y = wp.int32(0)
        while flat and y <= side:
            v = float(y) * step
            x = wp.int32(0)
            while flat and x <= side:
                u = float(x) * step
                plane = top_left + u * (top_right - top_left) + v * (bottom_left - top_left)
                if x + y > side:
                    plane = bottom_right + (1.0 - u) * (bottom_left - bottom_right)
                    plane += (1.0 - v) * (top_right - bottom_right)
                here = disparity(source, row + y, column + x)
                flat = wp.abs(here - plane) <= FLATNESS * here and touched(source, simplified, row + y, column + x) == 0
                x += 1
            y += 1
    return flat


@wp.func
def touched(source: Source, simplified: Simplified, row: int, column: int) -> int:
    """1 for a corner of a stretched face or a vertex on the border, else 0."""
    value = int(simplified.touched[row * source.columns + column])
    if on_border(source, row, column):
        value = 1
    return value


@wp.func
def disparity(source: Source, row: int, column: int) -> float:
    """1 / z of a vertex."""
    return 1.0 / source_point(source, 0, row, column)[2]
