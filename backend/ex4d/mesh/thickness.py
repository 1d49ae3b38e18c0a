"""How deep the unseen space behind an outline counts as solid: the back limits of the "thickness" occlusion model.

The `warp` rasterizer uses the limits to cut curtains off. In the watertight mesh a curtain hangs from
the outline of a near surface to whatever lies behind it, however far, as if every object's shadow were solid to the
horizon. Here a curtain ends at a plausible depth, and a ray that passes beyond it goes on to what lies behind.

One kernel for CPU and CUDA, one thread per source pixel, no pixel waits for another: deterministic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import warp as wp

from ex4d.mesh.occlusion import MIN_INNER_ANGLE_DEGREES

wp.set_module_options({"enable_backward": False})

# A round body is as deep behind its outline as its radius, half its width. A camera that turns by an angle a around it
# comes to see tan(a / 2) of that depth, all of it at 90 degrees only: below that this errs towards solid.
THICKNESS_RATIO = 0.5
# A surface ends where depth steps back by more than this many pixel widths (a slope of 72 degrees) ...
STEP_WIDTHS = wp.constant(3.0)
# ... by more than this share of the depth: smaller steps are within what depth estimates and 8-bit disparity err by ...
STEP_SHARE = wp.constant(0.01)
# ... and by more than this many times the steps before and after it, which go on where a surface is merely slanted.
STEP_PROMINENCE = wp.constant(3.0)
# A step this steep ends a surface in any case, as in EX-4D's rule: edges smeared over a few pixels are outlines too.
STEEP_WIDTHS = wp.constant(1.0 / math.tan(math.radians(MIN_INNER_ANGLE_DEGREES)))
# Wider than this share of the picture's longer side nothing is measured: a wall or the ground has no thickness to find.
WIDEST_SHARE = 0.25

STEP_TO_RIGHT, STEP_TO_BELOW = 1, 2  # bits of `BackLimits.steps`


@dataclass(frozen=True)
class BackLimits:
    """What `back_limits` finds.

    Attributes:
        limits: (T, H, W) float32, depth along the source camera's z up to which the space behind a pixel counts as
            solid: depth + thickness at outlines (on their near side), the pixel's own depth elsewhere.
        steps: (T, H, W) uint8, `STEP_TO_RIGHT` is set where the surface ends between a pixel and its right neighbour,
            `STEP_TO_BELOW` between it and the one below.
    """

    limits: torch.Tensor
    steps: torch.Tensor


def back_limits(depth: torch.Tensor, intrinsics: torch.Tensor, *, ratio: float = THICKNESS_RATIO) -> BackLimits:
    """Measure how wide the object at each outline pixel is, and take a share of that for its thickness.

    With p a pixel, q its neighbour in one of the four directions, p' the pixel before p and q' the one after q on the
    same line, and w = z_p / f the width of a pixel at p:

    - Step: p is an outline pixel in that direction if g = z_q - z_p is more than 3 w and more than 1 % of z_p, and also
      either more than 3 max(z_p - z_p', z_q' - z_q), which keeps slanted surfaces whole, for there the steps before or
      after are like this one; or more than 22.9 w, where EX-4D's angle rule takes any surface for a curtain. The
      picture's edge counts as a step too, for the border walls (but sets no bit in `steps`).
    - Width: walk from p away from q, n = 1, 2, ... pixels, while the depth there is at most z_p + 3 n w. So the walk
      goes across the object and whatever stands before it, and ends at its other outline. Where the surface recedes
      steeply from its near edge it ends at once. It ends after a quarter of the picture's longer side at the latest.
    - Limit: z_p + ratio n w, with the least n of p's outline directions, so that a thin slanted pole is thin.

    Widths are across the line of sight at the outline itself, so they scale with the scene and with the resolution;
    nothing depends on the unit of depth.

    Args:
        depth: (T, H, W) float32, along z, scene units, finite and positive.
        intrinsics: (T, 3, 3), pixels of the source picture.
        ratio: thickness over width; 0 makes curtains end where they begin.

    Returns:
        Limits and steps on depth's device.

    Raises:
        ValueError: shapes that do not belong together, or a ratio that is negative or not finite.
    """
    if depth.ndim != 3 or depth.dtype != torch.float32:
        raise ValueError(f"depth must be (T, H, W) float32, got {tuple(depth.shape)} {depth.dtype}")
    if tuple(intrinsics.shape) != (len(depth), 3, 3):
        raise ValueError(f"intrinsics must be {(len(depth), 3, 3)} to match depth, got {tuple(intrinsics.shape)}")
    if not 0.0 <= ratio < float("inf"):
        raise ValueError(f"the ratio of thickness to width must be finite and at least 0, got {ratio}")
    return measure(depth.contiguous(), pixel_angles(intrinsics).to(depth.device), ratio)


def pixel_angles(intrinsics: torch.Tensor) -> torch.Tensor:
    """(T, 2) float32, 1/fx and 1/fy: a pixel's width and height at depth 1."""
    return (1.0 / intrinsics[:, [0, 1], [0, 1]].double()).float().contiguous()


def measure(depth: torch.Tensor, angles: torch.Tensor, ratio: float = THICKNESS_RATIO) -> BackLimits:
    """`back_limits` of checked, contiguous depth and its `pixel_angles`, both on one device, where it runs."""
    widest = max(1, round(WIDEST_SHARE * max(depth.shape[1:])))
    limits, steps = torch.empty_like(depth), torch.empty(depth.shape, dtype=torch.uint8, device=depth.device)

    wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
    wp.init()
    device = wp.device_from_torch(depth.device)
    arrays = [wp.from_torch(depth), wp.from_torch(angles)]
    results = [wp.from_torch(limits), wp.from_torch(steps)]
    span = 1 if device.is_cuda else depth.shape[2]
    stream = wp.stream_from_torch(torch.cuda.current_stream(depth.device)) if device.is_cuda else None
    wp.launch(
        measure_outlines,
        dim=(*depth.shape[:2], -(-depth.shape[2] // span)),
        inputs=[span, *arrays, widest, ratio, *results],
        device=device,
        stream=stream,
    )
    return BackLimits(limits, steps)


@wp.kernel
def measure_outlines(
    span: int,
    depth: wp.array3d(dtype=float),
    pixel_angles: wp.array2d(dtype=float),
    widest: int,
    ratio: float,
    limits: wp.array3d(dtype=float),
    steps: wp.array3d(dtype=wp.uint8),
):
    """Threads are (frame, row, span of columns) of source pixels; pixel_angles holds 1/fx and 1/fy of each frame."""
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
    z = depth[frame, row, column]
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
def surface_ends(
    depth: wp.array3d(dtype=float), frame: int, row: int, column: int, rows: int, columns: int, pixel_angle: float
) -> float:
    """1 if the surface ends between a pixel and its neighbour and the pixel is nearer, -1 if it is farther, else 0.

    (rows, columns) is the direction to the neighbour. Beyond the picture's edge counts as far.
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
            if wp.abs(gap) > STEP_PROMINENCE * slant or wp.abs(gap) > nearer * pixel_angle * STEEP_WIDTHS:
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
    """Pixels from an outline, in the direction (rows, columns), to where the object that has it ends.

    pixel is a pixel's width at the outline, in scene units.
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
