"""Colours of source pixels: as the camera coded them, and as the surface has them beside a much nearer one.

A camera mixes both sides of a silhouette in the pixels that it crosses, and footage is coded with less colour than
light. What was mixed belongs where the silhouette was in the source image. In a new view the near side has moved away,
and its colour would stand as a thin line on the far side, around the hole.
"""

from __future__ import annotations

import warp as wp

from ex4d.mesh.edge_shares_kernel import color_at, inside, is_step
from ex4d.raster.warp.projection import Source

wp.set_module_options({"enable_backward": False})

# Of a far pixel whose colour is a mixture, the least share of the near side (of 255) that is not noise.
LEAST_MIXED = wp.constant(13)
# The far side is so many times as far. Nearer surfaces throw shadows on each other, which look like mixtures too.
APART = wp.constant(2.0)
# The mixed pixel differs from its neighbour by so many times what that differs from the next: else it is texture.
STANDS_OUT = wp.constant(2.0)


@wp.func
def source_color(source: Source, frame: int, row: int, column: int) -> wp.vec3:
    """Colour of a vertex; the ring repeats the outermost pixels."""
    y = wp.clamp(row - source.ring, 0, source.color.shape[1] - 1)
    x = wp.clamp(column - source.ring, 0, source.color.shape[2] - 1)
    return color_at(source.color, frame, y, x)


@wp.func
def surface_color(source: Source, frame: int, row: int, column: int) -> wp.vec3:
    """Colour of a vertex's surface: that of the pixels after it where its own is mixed with a much nearer one's."""
    color = source_color(source, frame, row, column)
    if source.shares.shape[1] > 0:
        y = wp.clamp(row - source.ring, 0, source.color.shape[1] - 1)
        x = wp.clamp(column - source.ring, 0, source.color.shape[2] - 1)
        if int(source.shares[frame, y, x, 1]) >= LEAST_MIXED:
            color = without_near_side(source, frame, y, x, color)
    return color


@wp.func
def without_near_side(source: Source, frame: int, y: int, x: int, color: wp.vec3) -> wp.vec3:
    """The mean of a source pixel's neighbours away from the steps at it, or its own colour; see `surface_color`."""
    sum = wp.vec3(0.0, 0.0, 0.0)
    count = wp.float32(0.0)
    for direction in range(4):
        down = wp.int32(0)
        right = wp.int32(0)
        if direction < 2:
            right = 1 - 2 * direction
        else:
            down = 5 - 2 * direction
        if is_step(source.steps, frame, y, x, down, right) and inside(source.steps, y - 2 * down, x - 2 * right):
            goes_on = not is_step(source.steps, frame, y, x, -down, -right)
            goes_on = goes_on and not is_step(source.steps, frame, y - down, x - right, -down, -right)
            if goes_on and source.depth[frame, y, x] > APART * source.depth[frame, y + down, x + right]:
                next = color_at(source.color, frame, y - down, x - right)
                change = next - color_at(source.color, frame, y - 2 * down, x - 2 * right)
                if wp.length_sq(color - next) > STANDS_OUT * STANDS_OUT * wp.length_sq(change):
                    sum += next
                    count += 1.0
    return wp.where(count > 0.0, sum / wp.max(count, 1.0), color)
