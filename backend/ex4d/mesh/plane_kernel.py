"""Warp function: whether a step in depth continues a plane, such as ground at a grazing angle, and so ends no surface.

Perspective makes disparity (1 / z) linear along a plane's image, however steep the plane is. `thickness_kernel.py` and
the `warp` rasterizer ask this of steps that would otherwise count as discontinuities.
"""

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False})

# The plane must go on for so many pixels towards the camera: an edge that a depth model smears over fewer is no plane.
PLANE_PIXELS = wp.constant(8)
# And disparity may leave the line by so large a share of its rise: smeared edges that are wider curve more.
PLANE_TOLERANCE = wp.constant(0.15)


@wp.func
def continues_plane(depth: wp.array3d(dtype=float), frame: int, row: int, column: int, rows: int, columns: int) -> bool:
    """Whether the step from a pixel to its neighbour in the direction (rows, columns) continues a plane.

    The nearer of the two pixels is where the walk along the plane begins, away from the farther one.
    """
    nearest = 1.0 / depth[frame, row, column]
    farther = 1.0 / depth[frame, row + rows, column + columns]
    here_row = row
    here_column = column
    row_step = -rows
    column_step = -columns
    if farther > nearest:
        swapped = farther
        farther = nearest
        nearest = swapped
        here_row = row + rows
        here_column = column + columns
        row_step = rows
        column_step = columns
    rise = nearest - farther
    last_row = here_row + PLANE_PIXELS * row_step
    last_column = here_column + PLANE_PIXELS * column_step
    plane = last_row >= 0 and last_row < depth.shape[1] and last_column >= 0 and last_column < depth.shape[2]
    plane = plane and rise > 0.0
    count = wp.int32(1)
    while plane and count <= PLANE_PIXELS:
        expected = float(count) * rise
        found = 1.0 / depth[frame, here_row + count * row_step, here_column + count * column_step] - nearest
        plane = wp.abs(found - expected) <= PLANE_TOLERANCE * expected
        count += 1
    return plane
