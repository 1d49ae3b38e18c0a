"""Silhouettes between source pixels, in the occlusion models "open" and "watertight".

A stretched face begins at source pixels of a near surface and ends at those of a far one. The image shows both as far
as their silhouette, midway between the pixels of a cell of the grid: as a slanted line where it would be a stair of
source pixels. The "thickness" model has silhouettes of its own (`rims.py`).
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.projection import Face, Source, View, on_border

wp.set_module_options({"enable_backward": False})

# How far beyond a cell, in source pixels, its corners' pixels still reach: half of one, as the square that it covers.
REACH_BEYOND = wp.constant(0.1)


@wp.struct
class Contour:
    """The silhouette within one cell of the grid, whose corners are top left, top right, bottom left, bottom right."""

    known: bool  # false at the border, whose outer vertices are no source pixels
    shares: wp.vec4  # the near side's, less one half: positive at near corners, negative at far ones
    across: wp.vec2  # directions of the source image's rows and columns on the screen
    down: wp.vec2


@wp.func
def contour_of(source: Source, face: Face, frame: int, view: View) -> Contour:
    """The contour of a face's cell: of its corners, those in the nearer half of their depths are near."""
    contour = Contour()
    # Squares are shown as if they faced the camera, turned as the axis that is foreshortened less.
    contour.down = source_axis(view.cameras[frame], 1)
    contour.across = wp.vec2(contour.down[1], -contour.down[0])
    if foreshortening(view.cameras[frame], 0) > foreshortening(view.cameras[frame], 1):
        contour.across = source_axis(view.cameras[frame], 0)
        contour.down = wp.vec2(-contour.across[1], contour.across[0])
    row = wp.min(face.rows)
    column = wp.min(face.columns)
    contour.known = not on_border(source, row, column) and not on_border(source, row + 1, column + 1)
    if contour.known:
        y = row - source.ring
        x = column - source.ring
        depths = wp.vec4(
            source.depth[frame, y, x],
            source.depth[frame, y, x + 1],
            source.depth[frame, y + 1, x],
            source.depth[frame, y + 1, x + 1],
        )
        middle = 0.5 * (wp.min(depths) + wp.max(depths))
        for k in range(4):
            contour.shares[k] = wp.where(depths[k] <= middle, 0.5, -0.5)
    return contour


@wp.func
def source_axis(camera: wp.mat44d, axis: int) -> wp.vec2:
    """The direction on the screen, of length 1, of the source image's rows (axis 0) or columns (1)."""
    direction = wp.vec2(float(camera[0, axis]), float(camera[1, axis]))
    length = wp.length(direction)
    if length > 0.0:
        direction = direction / length
    return direction


@wp.func
def foreshortening(camera: wp.mat44d, axis: int) -> wp.float64:
    """The squared length on the screen of a step along the source image's rows (axis 0) or columns (1)."""
    return camera[0, axis] * camera[0, axis] + camera[1, axis] * camera[1, axis]


@wp.func
def turned_back(contour: Contour, dx: float, dy: float) -> wp.vec2:
    """A place (dx, dy), in halves of the box around a source pixel's rolled square, in halves of the square's sides."""
    box = wp.abs(contour.across[0]) + wp.abs(contour.down[0])
    place = wp.vec2(dx, dy) * box
    return wp.vec2(wp.dot(place, contour.across), wp.dot(place, contour.down))


@wp.func
def cell_weights(face: Face, corner: int, dx: float, dy: float) -> wp.vec4:
    """Bilinear weights of a cell's corners at (dx, dy) source pixels from one of its face's corners.

    All 0 where that is out of the reach of the cell's pixels.
    """
    x = float(face.columns[corner] - wp.min(face.columns)) + dx
    y = float(face.rows[corner] - wp.min(face.rows)) + dy
    weights = wp.vec4(0.0, 0.0, 0.0, 0.0)
    if wp.max(wp.abs(x - 0.5), wp.abs(y - 0.5)) <= 0.5 + REACH_BEYOND:
        x = wp.clamp(x, 0.0, 1.0)
        y = wp.clamp(y, 0.0, 1.0)
        weights = wp.vec4((1.0 - x) * (1.0 - y), x * (1.0 - y), (1.0 - x) * y, x * y)
    return weights


@wp.func
def cell_corner(face: Face, corner: int) -> int:
    """Which of its cell's corners a face's corner is."""
    return 2 * (face.rows[corner] - wp.min(face.rows)) + face.columns[corner] - wp.min(face.columns)


@wp.func
def same_side(contour: Contour, corner: int, weights: wp.vec4) -> bool:
    """Whether a place in the cell is on the side of the silhouette that one of the cell's corners is on."""
    shares = wp.dot(weights, contour.shares)
    on_near = contour.shares[corner] > 0.0
    return wp.length_sq(weights) > 0.0 and ((shares >= 0.0) == on_near)


@wp.func
def is_shown(contour: Contour, face: Face, corner: int, weights: wp.vec4, within_square: bool) -> bool:
    """Whether one of a face's corners shows at a place of its cell; see `cutting.reaches`."""
    shown = same_side(contour, cell_corner(face, corner), weights)
    if within_square and not shown and wp.length_sq(weights) > 0.0:
        # Of a face's own corners none may be on the side that the cell's fourth one wins.
        alone = wp.bool(True)
        for k in range(3):
            if same_side(contour, cell_corner(face, k), weights):
                alone = False
        shown = alone
    return shown
