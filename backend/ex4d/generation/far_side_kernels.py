"""Kernels of `far_sides.py`: they walk along lines through the image of the source camera's centre."""

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.func
def along(row: int, column: int, epipole: wp.vec3) -> wp.vec2:
    """The direction of the line through the epipole and a cell's middle, of one cell a step; 0 at the epipole."""
    x = (float(column) + 0.5) * epipole[2] - epipole[0]
    y = (float(row) + 0.5) * epipole[2] - epipole[1]
    largest = wp.max(wp.abs(x), wp.abs(y))
    step = wp.vec2(0.0, 0.0)
    if largest > 0.0:
        step = wp.vec2(x / largest, y / largest)
    return step


@wp.kernel
def find_far_rims(depth: wp.array2d(dtype=float), epipole: wp.vec3, far: wp.array2d(dtype=float)):
    """The greater depth of the two rims of a hole on a cell's line; 0 where the cell is seen.

    depth: (h, w), 0 in holes. Threads are (row, column).
    """
    row, column = wp.tid()
    most = wp.float32(0.0)
    step = along(row, column, epipole)
    if depth[row, column] == 0.0 and wp.length_sq(step) > 0.0:
        for side in range(2):
            direction = step * (1.0 - 2.0 * float(side))
            x = float(column) + 0.5 + direction[0]
            y = float(row) + 0.5 + direction[1]
            rim = wp.float32(0.0)
            while rim == 0.0 and x >= 0.0 and y >= 0.0 and x < float(depth.shape[1]) and y < float(depth.shape[0]):
                rim = depth[int(y), int(x)]
                x += direction[0]
                y += direction[1]
            most = wp.max(most, rim)
    far[row, column] = most


@wp.kernel
def spread_along(far: wp.array2d(dtype=float), epipole: wp.vec3, reach: int, spread: wp.array2d(dtype=float)):
    """The greatest value within ``reach`` cells on a cell's line. Threads are (row, column)."""
    row, column = wp.tid()
    most = far[row, column]
    step = along(row, column, epipole)
    for k in range(-reach, reach + 1):
        x = wp.floor(float(column) + 0.5 + step[0] * float(k))
        y = wp.floor(float(row) + 0.5 + step[1] * float(k))
        if x >= 0.0 and y >= 0.0 and x < float(far.shape[1]) and y < float(far.shape[0]):
            most = wp.max(most, far[int(y), int(x)])
    spread[row, column] = most
