"""Warp kernel of `thickness.py`: measures silhouettes, one thread per source pixel.

One source for CPU and CUDA. No pixel waits for another, so the result is deterministic.
"""

from __future__ import annotations

import warp as wp

from ex4d.mesh.plane_kernel import continues_plane
from ex4d_core import thickness_rule

wp.set_module_options({"enable_backward": False})

STEP_WIDTHS = wp.constant(thickness_rule.STEP_WIDTHS)
STEP_SHARE = wp.constant(thickness_rule.STEP_SHARE)
STEP_PROMINENCE = wp.constant(thickness_rule.STEP_PROMINENCE)
STEEP_WIDTHS = wp.constant(thickness_rule.STEEP_WIDTHS)

STEP_TO_RIGHT, STEP_TO_BELOW = 1, 2  # bits of `BackLimits.steps`


@wp.kernel
def measure_silhouettes(
    span: int,
    depth: wp.array3d(dtype=float),
    pixel_angles: wp.array2d(dtype=float),
    widest: int,
    ratio: float,
    limits: wp.array3d(dtype=float),
    steps: wp.array3d(dtype=wp.uint8),
):
    """Find `BackLimits`; pixel_angles holds 1/fx and 1/fy of each frame.

    Threads are (frame, row, span of columns) of source pixels.
    """
    frame, row, first = wp.tid()
    for column in range(first * span, wp.min(first * span + span, depth.shape[2])):
        measure_pixel(frame, row, column, depth, pixel_angles, widest, ratio, limits, steps)


@wp.func
def measure_pixel(
    frame: int,
    row: int,
    column: int,
    depth: wp.array3d(dtype=float),
    pixel_angles: wp.array2d(dtype=float),
    widest: int,
    ratio: float,
    limits: wp.array3d(dtype=float),
    steps: wp.array3d(dtype=wp.uint8),
):
    """Write the limit and the steps of one pixel."""
    z = depth[frame, row, column]
    if is_level(depth, frame, row, column, pixel_angles):
        limits[frame, row, column] = z
        steps[frame, row, column] = wp.uint8(0)
        return
    across = z * pixel_angles[frame, 0]
    down = z * pixel_angles[frame, 1]
    thinnest = wp.float32(wp.inf)
    step = wp.int32(0)
    right = surface_ends(depth, frame, row, column, 0, 1, pixel_angles[frame, 0])
    below = surface_ends(depth, frame, row, column, 1, 0, pixel_angles[frame, 1])
    if right > 0.0:
        thinnest = wp.min(thinnest, across * width_in_pixels(depth, frame, row, column, 0, -1, across, widest))
    if below > 0.0:
        thinnest = wp.min(thinnest, down * width_in_pixels(depth, frame, row, column, -1, 0, down, widest))
    if surface_ends(depth, frame, row, column, 0, -1, pixel_angles[frame, 0]) > 0.0:
        thinnest = wp.min(thinnest, across * width_in_pixels(depth, frame, row, column, 0, 1, across, widest))
    if surface_ends(depth, frame, row, column, -1, 0, pixel_angles[frame, 1]) > 0.0:
        thinnest = wp.min(thinnest, down * width_in_pixels(depth, frame, row, column, 1, 0, down, widest))
    if right != 0.0 and column + 1 < depth.shape[2]:
        step = step + 1
    if below != 0.0 and row + 1 < depth.shape[1]:
        step = step + 2
    if thinnest < wp.inf:
        z = z + ratio * thinnest
    limits[frame, row, column] = z
    steps[frame, row, column] = wp.uint8(step)


@wp.func
def is_level(
    depth: wp.array3d(dtype=float), frame: int, row: int, column: int, pixel_angles: wp.array2d(dtype=float)
) -> bool:
    """Whether no step leads from a pixel to any of its four neighbours, told at a glance: of most pixels."""
    level = row > 0 and column > 0 and row + 1 < depth.shape[1] and column + 1 < depth.shape[2]
    if level:
        z = depth[frame, row, column]
        left = depth[frame, row, column - 1]
        right = depth[frame, row, column + 1]
        above = depth[frame, row - 1, column]
        below = depth[frame, row + 1, column]
        nearest = wp.min(wp.min(wp.min(left, right), wp.min(above, below)), z)
        farthest = wp.max(wp.max(wp.max(left, right), wp.max(above, below)), z)
        narrow = wp.min(pixel_angles[frame, 0], pixel_angles[frame, 1])
        # As in `surface_ends`: no gap is larger than this one, and no limit smaller.
        level = farthest - nearest <= nearest * wp.max(STEP_WIDTHS * narrow, STEP_SHARE)
    return level


@wp.func
def surface_ends(
    depth: wp.array3d(dtype=float), frame: int, row: int, column: int, rows: int, columns: int, pixel_angle: float
) -> float:
    """1 if the surface ends between a pixel and its neighbour and the pixel is nearer, -1 if it is farther, else 0.

    (rows, columns) is the direction to the neighbour. Beyond the image's edge counts as far.
    """
    height = depth.shape[1]
    width = depth.shape[2]
    side = wp.float32(0.0)
    z = depth[frame, row, column]
    next_row = row + rows
    next_column = column + columns
    if next_row < 0 or next_row >= height or next_column < 0 or next_column >= width:
        side = wp.float32(1.0)
    else:
        next_z = depth[frame, next_row, next_column]
        gap = next_z - z
        nearer = wp.min(z, next_z)
        if wp.abs(gap) > nearer * wp.max(STEP_WIDTHS * pixel_angle, STEP_SHARE):
            sign = wp.sign(gap)
            slant = wp.float32(0.0)
            before_row = row - rows
            before_column = column - columns
            after_row = next_row + rows
            after_column = next_column + columns
            if before_row >= 0 and before_row < height and before_column >= 0 and before_column < width:
                slant = wp.max(slant, sign * (z - depth[frame, before_row, before_column]))
            if after_row >= 0 and after_row < height and after_column >= 0 and after_column < width:
                slant = wp.max(slant, sign * (depth[frame, after_row, after_column] - next_z))
            ends = wp.abs(gap) > STEP_PROMINENCE * slant
            if not ends and wp.abs(gap) > nearer * pixel_angle * STEEP_WIDTHS:
                ends = not continues_plane(depth, frame, row, column, rows, columns)
            if ends:
                side = sign
    return side


@wp.func
def width_in_pixels(
    depth: wp.array3d(dtype=float),
    frame: int,
    row: int,
    column: int,
    rows: int,
    columns: int,
    pixel: float,
    widest: int,
) -> float:
    """Pixels from a silhouette, in the direction (rows, columns), to the opposite edge of the object.

    pixel is a pixel's width at the silhouette, in scene units.
    """
    height = depth.shape[1]
    width = depth.shape[2]
    farthest = depth[frame, row, column]
    count = wp.int32(0)
    inside = wp.bool(True)
    while inside:
        count += 1
        row += rows
        column += columns
        farthest += STEP_WIDTHS * pixel
        inside = count < widest and row >= 0 and row < height and column >= 0 and column < width
        if inside:
            inside = depth[frame, row, column] <= farthest
    return float(count)
