"""Warp kernel of `edge_shares.py`: measures the shares of pixels beside steps, one thread per source pixel.

One source for CPU and CUDA. No pixel waits for another, so the result is deterministic.
"""

from __future__ import annotations

import warp as wp

from ex4d.mesh import thickness_kernel

wp.set_module_options({"enable_backward": False})

STEP_TO_RIGHT = wp.constant(thickness_kernel.STEP_TO_RIGHT)
STEP_TO_BELOW = wp.constant(thickness_kernel.STEP_TO_BELOW)

# Colours of the two sides that are closer than this, as a square of 8-bit sRGB values, do not tell them apart.
LEAST_CONTRAST = wp.constant(3.0 * 20.0**2)
# A mixture lies on the line between the colours of the two sides, up to this share of their difference (its square),
# and up to what compression makes of it. Other colours are texture.
MIXTURE_ERROR = wp.constant(0.1)
CODING_ERROR = wp.constant(3.0 * 8.0**2)
UNKNOWN = wp.constant(-1.0)

# Shares are kept in 8 bits, `NEAR_ALL` of a pixel that the near side covers; a pixel belongs to the side that depth
# says, by at least a tenth.
NEAR_ALL, NEAR_LEAST, FAR_MOST = wp.constant(255.0), wp.constant(140.0), wp.constant(115.0)


@wp.kernel
def measure_shares(
    span: int,
    depth: wp.array3d(dtype=float),
    color: wp.array4d(dtype=wp.uint8),
    steps: wp.array3d(dtype=wp.uint8),
    shares: wp.array4d(dtype=wp.uint8),
):
    """Write the shares of each pixel; threads are (frame, row, span of columns) of source pixels."""
    frame, row, first = wp.tid()
    for column in range(first * span, wp.min(first * span + span, depth.shape[2])):
        measure_pixel(frame, row, column, depth, color, steps, shares)


@wp.func
def measure_pixel(
    frame: int,
    row: int,
    column: int,
    depth: wp.array3d(dtype=float),
    color: wp.array4d(dtype=wp.uint8),
    steps: wp.array3d(dtype=wp.uint8),
    shares: wp.array4d(dtype=wp.uint8),
):
    """Write the shares of one pixel."""
    # Most pixels are beside no step: one look at the four edges tells.
    if row > 0 and column > 0:
        after = int(steps[frame, row, column])
        left = int(steps[frame, row, column - 1]) & STEP_TO_RIGHT
        above = int(steps[frame, row - 1, column]) & STEP_TO_BELOW
        if (after | left | above) == 0:
            shares[frame, row, column, 0] = wp.uint8(NEAR_ALL)
            shares[frame, row, column, 1] = wp.uint8(0)
            return
    near_sum = wp.float32(0.0)
    near_count = wp.float32(0.0)
    far_sum = wp.float32(0.0)
    far_count = wp.float32(0.0)
    for direction in range(4):
        down = wp.int32(0)
        right = wp.int32(0)
        if direction == 0:
            right = 1
        if direction == 1:
            down = 1
        if direction == 2:
            right = -1
        if direction == 3:
            down = -1
        if is_step(steps, frame, row, column, down, right):
            across = color_beyond(color, steps, frame, row + down, column + right, down, right)
            if inside(steps, row - down, column - right) and not is_step(steps, frame, row, column, -down, -right):
                own = color_at(color, frame, row - down, column - right)
                here = color_at(color, frame, row, column)
                if depth[frame, row + down, column + right] > depth[frame, row, column]:
                    share = mixture(here, own, across)
                    if share != UNKNOWN:
                        near_sum += share
                        near_count += 1.0
                else:
                    share = mixture(here, across, own)
                    if share != UNKNOWN:
                        far_sum += share
                        far_count += 1.0
    near = wp.float32(NEAR_ALL)
    far = wp.float32(0.0)
    if near_count > 0.0:
        near = wp.max(NEAR_LEAST, NEAR_ALL * near_sum / near_count)
    if far_count > 0.0:
        far = wp.min(FAR_MOST, NEAR_ALL * far_sum / far_count)
    shares[frame, row, column, 0] = wp.uint8(int(near + 0.5))
    shares[frame, row, column, 1] = wp.uint8(int(far + 0.5))


@wp.func
def mixture(mixed: wp.vec3, near: wp.vec3, far: wp.vec3) -> float:
    """The share of one colour in a mixture with another, 0 to 1; `UNKNOWN` where they do not tell."""
    difference = near - far
    contrast = wp.dot(difference, difference)
    share = wp.float32(UNKNOWN)
    if contrast >= LEAST_CONTRAST:
        along = wp.clamp(wp.dot(mixed - far, difference) / contrast, 0.0, 1.0)
        rest = mixed - far - along * difference
        if wp.dot(rest, rest) <= MIXTURE_ERROR * contrast + CODING_ERROR:
            share = along
    return share


@wp.func
def color_beyond(
    color: wp.array4d(dtype=wp.uint8),
    steps: wp.array3d(dtype=wp.uint8),
    frame: int,
    row: int,
    column: int,
    down: int,
    right: int,
) -> wp.vec3:
    """The colour of the pixel after this one, which may be mixed itself; of this one where its surface ends there."""
    found = color_at(color, frame, row, column)
    if inside(steps, row + down, column + right) and not is_step(steps, frame, row, column, down, right):
        found = color_at(color, frame, row + down, column + right)
    return found


@wp.func
def is_step(steps: wp.array3d(dtype=wp.uint8), frame: int, row: int, column: int, down: int, right: int) -> bool:
    """Whether the surface ends between a pixel and its neighbour, one pixel down or right (or -1: up or left)."""
    found = wp.bool(False)
    y = row + wp.min(down, 0)
    x = column + wp.min(right, 0)
    if inside(steps, y, x):
        bit = wp.int32(STEP_TO_RIGHT)
        if down != 0:
            bit = wp.int32(STEP_TO_BELOW)
        found = (int(steps[frame, y, x]) & bit) != 0
    return found


@wp.func
def inside(steps: wp.array3d(dtype=wp.uint8), row: int, column: int) -> bool:
    """Whether the image has such a pixel."""
    return row >= 0 and row < steps.shape[1] and column >= 0 and column < steps.shape[2]


@wp.func
def color_at(color: wp.array4d(dtype=wp.uint8), frame: int, row: int, column: int) -> wp.vec3:
    """A pixel's colour, 0 to 255."""
    return wp.vec3(
        float(color[frame, row, column, 0]), float(color[frame, row, column, 1]), float(color[frame, row, column, 2])
    )
