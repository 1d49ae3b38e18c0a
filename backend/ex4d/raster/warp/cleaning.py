"""Last passes of the `warp` rasterizer, on images of their final size: remove specks from masks, and hold them steady.

Silhouettes of depth that is not exact, and stretched faces seen edge-on, leave single pixels and pairs that are seen
among unseen ones, or the other way round. `vote` gives a pixel the state of nearly all its eight neighbours, `agree`
the state that the frames before and after have, and `recolor` then makes colour and depth agree with the new mask. No
pixel waits for another: the result is deterministic.
"""

from __future__ import annotations

from typing import Any

import warp as wp

wp.set_module_options({"enable_backward": False})

# Pixels of a tile's side, a power of two.
TILE_SIDE = 8
TILE_BITS = wp.constant(TILE_SIDE.bit_length() - 1)
# So many of the eight neighbours outvote a pixel. Fewer seen ones would break the thin unseen side of a pole, seen
# almost edge-on, into dashes; fewer unseen ones would tear wires.
SEEN_MAJORITY = wp.constant(7)
UNSEEN_MAJORITY = wp.constant(6)
# Neighbours whose depths differ by at most this share lie on one surface.
LIKE_DEPTH = wp.constant(0.05)
# The second vote removes the pairs and dashes that one leaves where depth is noisy.
VOTES = 2
# How many pixels away, in x and in y, a pixel that became seen looks for a colour.
COLOR_REACH = wp.constant(2)
# How far from a pixel that has it already the frames before and after may give a pixel another state. Farther would
# hold masks steadier still, and take the frame's own thin parts (docs/measured/rendering.md).
AGREE_REACH = 1
REACH = wp.constant(AGREE_REACH)


@wp.kernel
def vote(
    span: int,
    width: int,
    height: int,
    mask: wp.array2d(dtype=wp.uint8),
    marked: wp.array3d(dtype=wp.int32),
    voted: wp.array2d(dtype=wp.uint8),
):
    """Give each pixel the state of nearly all its neighbours; beyond the image its outermost pixels go on.

    mask and voted, which begins as a copy of it, are (B, height * width). Only pixels in marked tiles are looked at,
    see `near_edges.py`. Threads are (frame, row, span of columns) of pixels.
    """
    frame, row, first = wp.tid()
    tile_row = row >> TILE_BITS
    above = wp.max(row - 1, 0) * width
    here = row * width
    below = wp.min(row + 1, height - 1) * width
    column = first * span
    last = wp.min(column + span, width)
    while column < last:
        stop = wp.min(((column >> TILE_BITS) + 1) << TILE_BITS, last)
        if marked[frame, tile_row, column >> TILE_BITS] != 0:
            # Each column of three pixels is added up once, and counts for three pixels.
            left = column_of_three(mask, frame, above, here, below, wp.max(column - 1, 0))
            middle = column_of_three(mask, frame, above, here, below, column)
            for x in range(column, stop):
                right = column_of_three(mask, frame, above, here, below, wp.min(x + 1, width - 1))
                own = int(mask[frame, here + x])
                seen = left + middle + right - own
                if seen >= SEEN_MAJORITY:
                    own = 1
                if seen <= 8 - UNSEEN_MAJORITY:
                    own = 0
                voted[frame, here + x] = wp.uint8(own)
                left = middle
                middle = right
        column = stop


@wp.func
def column_of_three(
    mask: wp.array2d(dtype=wp.uint8), frame: int, above: int, here: int, below: int, column: int
) -> int:
    """How many of three pixels, one below the other, are seen; their rows by the index of their first pixels."""
    return int(mask[frame, above + column]) + int(mask[frame, here + column]) + int(mask[frame, below + column])


@wp.kernel
def agree(
    span: int,
    width: int,
    height: int,
    drawn: wp.array2d(dtype=wp.uint8),
    marked: wp.array3d(dtype=wp.int32),
    before: wp.array2d(dtype=wp.uint8),
    after: wp.array2d(dtype=wp.uint8),
    agreed: wp.array2d(dtype=wp.uint8),
):
    """Give each pixel at an edge of a mask the state that the frames of the footage before and after agree on.

    Only near a pixel that has that state already: edges hold still, but what a frame alone saw, as where the camera of
    the footage moves, stays seen. agreed begins as a copy of drawn; marked tiles have all pixels near its edges.
    Threads are (frame, row, span of columns) of pixels.
    """
    frame, row, first = wp.tid()
    column = first * span
    last = wp.min(column + span, width)
    while column < last:
        stop = wp.min(((column >> TILE_BITS) + 1) << TILE_BITS, last)
        if marked[frame, row >> TILE_BITS, column >> TILE_BITS] != 0:
            for here in range(column, stop):
                pixel = row * width + here
                own = drawn[frame, pixel]
                other = before[frame, pixel]
                if other != own and other == after[frame, pixel]:
                    for y in range(wp.max(row - REACH, 0), wp.min(row + REACH + 1, height)):
                        for x in range(wp.max(here - REACH, 0), wp.min(here + REACH + 1, width)):
                            if drawn[frame, y * width + x] == other:
                                own = other
                agreed[frame, pixel] = own
        column = stop


@wp.kernel
def recolor(
    span: int,
    width: int,
    height: int,
    drawn: wp.array2d(dtype=wp.uint8),
    marked: wp.array3d(dtype=wp.int32),
    mask: wp.array2d(dtype=wp.uint8),
    image: wp.array3d(dtype=wp.uint8),
    depth: wp.array2d(dtype=float),
    deep_image: wp.array3d(dtype=wp.float16),
):
    """Blacken pixels that became unseen, and give those that became seen the colour and depth of neighbours.

    Of the nearest pixels that were drawn as seen and still are, the one whose depth is closest to the pixel's own tells
    which surface the pixel shows; all of them that lie on it are averaged. drawn is the mask before the votes, which
    changed it in marked tiles; deep_image, where it is not empty, gets the same. Threads are (frame, row, span of
    columns) of pixels.
    """
    frame, row, first = wp.tid()
    start = first * span
    last = wp.min(start + span, width)
    while start < last:
        stop = wp.min(((start >> TILE_BITS) + 1) << TILE_BITS, last)
        if marked[frame, row >> TILE_BITS, start >> TILE_BITS] != 0:
            for column in range(start, stop):
                if mask[frame, row * width + column] != drawn[frame, row * width + column]:
                    recolor_pixel(frame, row, column, width, height, drawn, mask, image, depth, deep_image)
        start = stop


@wp.func
def recolor_pixel(
    frame: int,
    row: int,
    column: int,
    width: int,
    height: int,
    drawn: wp.array2d(dtype=wp.uint8),
    mask: wp.array2d(dtype=wp.uint8),
    image: wp.array3d(dtype=wp.uint8),
    depth: wp.array2d(dtype=float),
    deep_image: wp.array3d(dtype=wp.float16),
):
    """Write the colour and depth of a pixel whose state changed; see `recolor`."""
    pixel = row * width + column
    color = wp.vec3(0.0, 0.0, 0.0)
    deep_color = wp.vec3(0.0, 0.0, 0.0)
    if mask[frame, pixel] != wp.uint8(0):
        found = wp.vec4(0.0, 0.0, 0.0, -1.0)
        reach = wp.int32(1)
        while found[3] < 0.0 and reach <= COLOR_REACH:
            surface = nearest_surface(frame, row, column, reach, width, height, drawn, mask, depth)
            if surface >= 0.0:
                found = mean_on_surface(surface, frame, row, column, reach, width, height, drawn, mask, image, depth)
                if deep_image.shape[1] > 0:
                    deep = mean_on_surface(
                        surface, frame, row, column, reach, width, height, drawn, mask, deep_image, depth
                    )
                    deep_color = wp.vec3(deep[0], deep[1], deep[2])
            reach += 1
        color = wp.vec3(found[0], found[1], found[2])
        if found[3] < 0.0:
            mask[frame, pixel] = wp.uint8(0)
        else:
            depth[frame, pixel] = found[3]
    for channel in range(3):
        image[frame, pixel, channel] = wp.uint8(int(color[channel] + 0.5))
    if deep_image.shape[1] > 0:
        for channel in range(3):
            deep_image[frame, pixel, channel] = wp.float16(deep_color[channel])


@wp.func
def nearest_surface(
    frame: int,
    row: int,
    column: int,
    reach: int,
    width: int,
    height: int,
    drawn: wp.array2d(dtype=wp.uint8),
    mask: wp.array2d(dtype=wp.uint8),
    depth: wp.array2d(dtype=float),
) -> float:
    """Depth of the seen pixel within reach that is closest to the pixel's own in depth; -1 without such pixels."""
    own = depth[frame, row * width + column]
    surface = wp.float32(-1.0)
    for y in range(wp.max(row - reach, 0), wp.min(row + reach, height - 1) + 1):
        for x in range(wp.max(column - reach, 0), wp.min(column + reach, width - 1) + 1):
            pixel = y * width + x
            if drawn[frame, pixel] != wp.uint8(0) and mask[frame, pixel] != wp.uint8(0):
                z = depth[frame, pixel]
                # with nothing drawn in the pixel, the farthest
                closer = z > surface
                if own < wp.inf:
                    closer = surface < 0.0 or wp.abs(z - own) < wp.abs(surface - own)
                if closer:
                    surface = z
    return surface


@wp.func
def mean_on_surface(
    surface: float,
    frame: int,
    row: int,
    column: int,
    reach: int,
    width: int,
    height: int,
    drawn: wp.array2d(dtype=wp.uint8),
    mask: wp.array2d(dtype=wp.uint8),
    image: wp.array3d(dtype=Any),
    depth: wp.array2d(dtype=float),
) -> wp.vec4:
    """Mean colour and depth of the seen pixels within reach that lie on a surface, of which there is one at least.

    Colours are those of image, of 8 bits or half floats.
    """
    total = wp.vec4(0.0, 0.0, 0.0, 0.0)
    count = wp.float32(0.0)
    for y in range(wp.max(row - reach, 0), wp.min(row + reach, height - 1) + 1):
        for x in range(wp.max(column - reach, 0), wp.min(column + reach, width - 1) + 1):
            pixel = y * width + x
            if drawn[frame, pixel] != wp.uint8(0) and mask[frame, pixel] != wp.uint8(0):
                z = depth[frame, pixel]
                if wp.abs(z - surface) <= LIKE_DEPTH * surface:
                    count += 1.0
                    total += wp.vec4(
                        float(image[frame, pixel, 0]),
                        float(image[frame, pixel, 1]),
                        float(image[frame, pixel, 2]),
                        z,
                    )
    return total / count
