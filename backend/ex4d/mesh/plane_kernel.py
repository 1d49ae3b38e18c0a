"""Warp: whether a step in depth continues a plane, such as ground at a grazing angle, and so ends no surface.

Perspective makes disparity (1 / z) linear along a plane's image, however steep the plane is. `thickness_kernel.py` and
the `warp` rasterizer ask this of steps that would otherwise count as discontinuities; `uncover_planes` tells all others
that use a `DWMesh`: exports and the `nvdiffrast` rasterizer.
"""

from __future__ import annotations

import warp as wp

from ex4d.mesh.occlusion import BOUNDARY_RATIO
from ex4d_core import thickness_rule
from ex4d_core.render_settings import OcclusionRule

wp.set_module_options({"enable_backward": False})

PLANE_PIXELS = wp.constant(thickness_rule.PLANE_PIXELS)
PLANE_TOLERANCE = wp.constant(thickness_rule.PLANE_TOLERANCE)


def flat_widths_of(rule: OcclusionRule) -> float:
    """Pixel widths that depth may differ by along an edge that no rule calls a step: none that the rule itself does."""
    return BOUNDARY_RATIO if rule == "boundary" else thickness_rule.STEP_WIDTHS


@wp.kernel
def uncover_planes(
    span: int,
    depth: wp.array3d(dtype=float),
    pixel_angles: wp.array2d(dtype=float),
    flat_widths: float,
    sides: wp.array4d(dtype=wp.uint8),
):
    """Clear the flags of occluded faces that continue a plane, in the `centered` convention.

    Threads are (frame, row, span of columns) of source pixels. sides (T, 2, H + 1, W + 1) holds the flags of the upper
    and the lower face of each cell of the grid; those on the ring stay as they are. pixel_angles holds 1/fx and 1/fy of
    each frame; for flat_widths see `flat_widths_of`.
    """
    frame, row, first = wp.tid()
    for column in range(first * span, wp.min(first * span + span, depth.shape[2])):
        if row + 1 < depth.shape[1] and column + 1 < depth.shape[2]:
            for side in range(2):
                hides = sides[frame, side, row + 1, column + 1] != wp.uint8(0)
                if hides:
                    hides = not cell_continues_plane(depth, frame, row, column, side == 1, pixel_angles, flat_widths)
                sides[frame, side, row + 1, column + 1] = wp.uint8(int(hides))


@wp.func
def cell_continues_plane(
    depth: wp.array3d(dtype=float),
    frame: int,
    row: int,
    column: int,
    lower: bool,
    pixel_angles: wp.array2d(dtype=float),
    flat_widths: float,
) -> bool:
    """Whether one of the two faces between four pixels has no step along its horizontal and its vertical edge.

    row and column are those of the upper left pixel, flat_widths are the pixel widths that depth may differ by along an
    edge that is no step.
    """
    shift = wp.int32(0)
    if lower:
        shift = 1
    flat = is_flat_edge(depth, frame, row + shift, column, 0, 1, flat_widths * pixel_angles[frame, 0])
    if flat:
        flat = is_flat_edge(depth, frame, row, column + shift, 1, 0, flat_widths * pixel_angles[frame, 1])
    return flat


@wp.func
def is_flat_edge(
    depth: wp.array3d(dtype=float), frame: int, row: int, column: int, rows: int, columns: int, slope: float
) -> bool:
    """Whether depth changes by at most a slope in the direction (rows, columns), or continues a plane."""
    z = depth[frame, row, column]
    next_z = depth[frame, row + rows, column + columns]
    flat = wp.abs(next_z - z) <= slope * wp.min(z, next_z)
    if not flat:
        flat = continues_plane(depth, frame, row, column, rows, columns)
    return flat


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
