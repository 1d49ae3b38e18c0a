"""Warp kernel of `surface_colors.py`: one thread per source pixel, which waits for no other."""

from __future__ import annotations

import warp as wp

from ex4d.mesh.edge_shares_kernel import color_at, is_step

wp.set_module_options({"enable_backward": False})

# Of a far pixel whose colour is a mixture, the least share of the near side (of 255) that is not noise.
LEAST_MIXED = wp.constant(13)
# The far side is so many times as far. Nearer surfaces throw shadows on each other, which look like mixtures too.
APART = wp.constant(2.0)
# So many pixels around, those count whose depth differs by no more than this share, and that no step touches.
AROUND = wp.constant(3)
LIKE_DEPTH = wp.constant(0.05)
# A mixed pixel differs from their mean by so many standard deviations of their colours: else it is texture.
STANDS_OUT = wp.constant(1.0)


@wp.kernel
def unmix_colors(
    span: int,
    depth: wp.array3d(dtype=float),
    color: wp.array4d(dtype=wp.uint8),
    steps: wp.array3d(dtype=wp.uint8),
    shares: wp.array4d(dtype=wp.uint8),
    unmixed: wp.array4d(dtype=wp.uint8),
):
    """Write the colours of mixed pixels; threads are (frame, row, span of columns) of source pixels."""
    frame, y, first = wp.tid()
    for x in range(first * span, wp.min(first * span + span, depth.shape[2])):
        mixed = int(shares[frame, y, x, 1]) >= LEAST_MIXED
        if mixed:  # Warp evaluates all of an `and`
            mixed = has_much_nearer(frame, y, x, depth, steps)
        if mixed:
            found = color_around(frame, y, x, depth, color, steps)
            for channel in range(3):
                unmixed[frame, y, x, channel] = wp.uint8(int(wp.clamp(found[channel], 0.0, 255.0) + 0.5))


@wp.func
def has_much_nearer(
    frame: int, y: int, x: int, depth: wp.array3d(dtype=float), steps: wp.array3d(dtype=wp.uint8)
) -> bool:
    """Whether a step leads from a source pixel to a much nearer one."""
    found = wp.bool(False)
    for direction in range(4):
        right = step_right(direction)
        down = step_down(direction)
        if is_step(steps, frame, y, x, down, right):
            found = found or depth[frame, y, x] > APART * depth[frame, y + down, x + right]
    return found


@wp.func
def color_around(
    frame: int,
    y: int,
    x: int,
    depth: wp.array3d(dtype=float),
    color: wp.array4d(dtype=wp.uint8),
    steps: wp.array3d(dtype=wp.uint8),
) -> wp.vec3:
    """The mean colour of a source pixel's surface around it, or its own where that may be texture."""
    own = color_at(color, frame, y, x)
    z = depth[frame, y, x]
    sum = wp.vec3(0.0, 0.0, 0.0)
    squares = wp.float32(0.0)
    count = wp.float32(0.0)
    for row in range(wp.max(y - AROUND, 0), wp.min(y + AROUND + 1, depth.shape[1])):
        for column in range(wp.max(x - AROUND, 0), wp.min(x + AROUND + 1, depth.shape[2])):
            if wp.abs(depth[frame, row, column] - z) < LIKE_DEPTH * z:
                touched = wp.bool(False)
                for direction in range(4):
                    step = is_step(steps, frame, row, column, step_down(direction), step_right(direction))
                    touched = touched or step
                if not touched:
                    # Relative to the pixel's own colour: squares of small numbers are exact.
                    away = color_at(color, frame, row, column) - own
                    sum += away
                    squares += wp.length_sq(away)
                    count += 1.0
    found = own
    if count >= 2.0:
        mean = sum / count
        variance = wp.max(squares / count - wp.length_sq(mean), 0.0)
        if wp.length_sq(mean) > STANDS_OUT * STANDS_OUT * variance:
            found = own + mean
    return found


@wp.func
def step_right(direction: int) -> int:
    """Columns to the neighbour in one of four directions."""
    return wp.where(direction < 2, 1 - 2 * direction, 0)


@wp.func
def step_down(direction: int) -> int:
    """Rows to the neighbour in one of four directions."""
    return wp.where(direction < 2, 0, 5 - 2 * direction)
