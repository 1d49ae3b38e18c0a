"""Third pass of the `warp` rasterizer in the `reference` convention: colour, mask and depth as EX-4D has them.

Vertices of occluded faces fade, faces are interpolated with them, and what is left of alpha decides what is seen.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.rasterizer import REFERENCE_SEEN_ALPHA
from ex4d.raster.warp.projection import (
    EMPTY,
    Face,
    Projected,
    Source,
    View,
    cap_face,
    cell_face,
    face_occluded,
    mesh_face,
    occluded_by_rule,
    source_point,
)
from ex4d.raster.warp.resolving import blend, exact_weights, hit_depth

wp.set_module_options({"enable_backward": False})

SEEN_ALPHA = wp.constant(REFERENCE_SEEN_ALPHA)


@wp.kernel
def fade_vertices(source: Source, span: int, alpha: wp.array2d(dtype=wp.uint8)):
    """Set EX-4D's alpha, which is 255, to 0 for every vertex of an occluded face.

    Threads are (frame, row, span of columns) of cells.
    """
    frame, row, first = wp.tid()
    for column in range(first * span, wp.min(first * span + span, source.columns - 1)):
        fade_cell(frame, row, column, source, alpha)
    if row + first == 0:
        for cap in range(2):
            face = cap_face(cap, source.rows, source.columns)
            if face_occluded(source, frame, face):
                fade(face, frame, alpha)


@wp.func
def fade_cell(frame: int, row: int, column: int, source: Source, alpha: wp.array2d(dtype=wp.uint8)):
    """Set the alpha of the corners of a cell's occluded faces to 0."""
    bottom_left = source_point(source, frame, row + 1, column)
    top_left = source_point(source, frame, row, column)
    top_right = source_point(source, frame, row, column + 1)
    bottom_right = source_point(source, frame, row + 1, column + 1)
    if occluded_by_rule(source, bottom_left, top_left, top_right):
        fade(cell_face(row, column, False, source.columns), frame, alpha)
    if occluded_by_rule(source, bottom_left, top_right, bottom_right):
        fade(cell_face(row, column, True, source.columns), frame, alpha)


@wp.func
def fade(face: Face, frame: int, alpha: wp.array2d(dtype=wp.uint8)):
    """Set the alpha of a face's corners to 0."""
    for k in range(3):
        alpha[frame, face.corners[k]] = wp.uint8(0)


@wp.kernel
def resolve_reference(
    source: Source,
    span: int,
    alpha: wp.array2d(dtype=wp.uint8),
    shares: wp.array3d(dtype=float),
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
    image: wp.array3d(dtype=wp.uint8),
    mask: wp.array2d(dtype=wp.uint8),
    depth: wp.array2d(dtype=float),
):
    """Resolve as EX-4D does: interpolate the vertices' RGBA on both sides of any face, antialias it, and test alpha.

    Colour is rounded down, as there. shares: see `antialiasing.find_silhouettes`. Threads are (frame, row, span of
    columns) of pixels.
    """
    frame, row, first = wp.tid()
    for column in range(first * span, wp.min(first * span + span, view.width)):
        resolve_reference_pixel(frame, row, column, source, alpha, shares, projected, view, winners, image, mask, depth)


@wp.func
def resolve_reference_pixel(
    frame: int,
    row: int,
    column: int,
    source: Source,
    alpha: wp.array2d(dtype=wp.uint8),
    shares: wp.array3d(dtype=float),
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
    image: wp.array3d(dtype=wp.uint8),
    mask: wp.array2d(dtype=wp.uint8),
    depth: wp.array2d(dtype=float),
):
    """Write one pixel; see `resolve_reference`."""
    pixel = row * view.width + column
    own = faded_rgba(frame, column, row, source, alpha, projected, view, winners)
    rgba = own
    for neighbour in range(4):
        next_column = column
        next_row = row
        share = wp.float32(0.0)
        if neighbour == 0:
            next_column = column + 1
            share = shares[frame, pixel, 0]
        if neighbour == 1:
            next_row = row + 1
            share = shares[frame, pixel, 1]
        if neighbour == 2 and column > 0:
            next_column = column - 1
            share = -shares[frame, pixel - 1, 0]
        if neighbour == 3 and row > 0:
            next_row = row - 1
            share = -shares[frame, pixel - view.width, 1]
        if share > 0.0:
            rgba += share * (faded_rgba(frame, next_column, next_row, source, alpha, projected, view, winners) - own)
    seen = rgba[3] > SEEN_ALPHA
    mask[frame, pixel] = wp.where(seen, wp.uint8(1), wp.uint8(0))
    for channel in range(3):
        image[frame, pixel, channel] = wp.where(seen, wp.uint8(int(rgba[channel])), wp.uint8(0))
    if depth.shape[1] > 0:
        z = float(wp.inf)
        if winners[frame, pixel] != EMPTY:
            z = hit_depth(winners[frame, pixel])
        depth[frame, pixel] = z


@wp.func
def faded_rgba(
    frame: int,
    column: int,
    row: int,
    source: Source,
    alpha: wp.array2d(dtype=wp.uint8),
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
) -> wp.vec4:
    """RGBA of a pixel's face, 0 to 255; vertices of occluded faces, and pixels without a face, are (0, 0, 0, 0)."""
    rgba = wp.vec4(0.0, 0.0, 0.0, 0.0)
    key = winners[frame, row * view.width + column]
    if key != EMPTY:
        face = mesh_face(int(key & wp.uint64(0xFFFFFFFF)), source.rows, source.columns)
        weights = exact_weights(face.corners, frame, column, row, source, projected, view)
        for k in range(3):
            if alpha[frame, face.corners[k]] == wp.uint8(0):
                weights[k] = 0.0
        color = blend(source, frame, face, weights)
        rgba = wp.vec4(color[0], color[1], color[2], 255.0 * (weights[0] + weights[1] + weights[2]))
    return rgba
