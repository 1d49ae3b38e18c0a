"""Rims of surfaces in the "thickness" occlusion model: from their last source pixels to their silhouettes.

The mesh's faces join centres of source pixels, so a surface would end half a pixel before its silhouette
(`contours.py`), or before the image's edge. That is little in the source image, and much where a new camera looks
straight at what the source camera saw at a grazing angle: a table's far edge would get teeth as long as its pixels. So
in each cell of the grid that a silhouette crosses both sides go on as planes, up to the silhouette. Perspective makes
disparity (1 / z) linear along a plane's image, so a plane goes on by as much as it changed from the pixel before.
"""

from __future__ import annotations

import warp as wp

from ex4d.mesh.edge_shares_kernel import inside, is_step
from ex4d.raster.warp.contours import bilinear, cell_on_border, cell_shares, corners_on_side
from ex4d.raster.warp.projection import Face, Source, on_border

wp.set_module_options({"enable_backward": False})

# A rim's disparity differs from that of its last pixel by at most this share, or it would reach the horizon.
MOST_CHANGE = wp.constant(0.5)
# The ring's vertices lie half a pixel beyond the outermost pixels.
RING_STEP = wp.constant(0.5)


@wp.struct
class Rim:
    """One side's plane over a face of a cell that a silhouette crosses, or of one at the image's edge."""

    exists: bool
    near: bool  # the side
    face: Face
    shares: wp.vec4  # of the cell's corners, as `Contour.shares`
    depths: wp.vec3  # of the face's corners, on the plane
    inverse_z: wp.vec3  # of the face's corners, in the new camera; filled by who draws it


@wp.func
def rim_of(source: Source, face: Face, frame: int, near: bool) -> Rim:
    """The rim of a face's near or far side; it does not exist where the cell has no such side, or several."""
    rim = Rim()
    rim.exists = wp.bool(False)
    rim.near = near
    rim.face = face
    row = wp.min(face.rows)
    column = wp.min(face.columns)
    rim.shares = rim_shares(source, frame, row, column)
    own = corners_on_side(rim.shares, near)
    if wp.dot(own, own) > 0.0 and not is_divided(source, frame, row, column, own):
        rim.exists = True
        for k in range(3):
            corner = 2 * (face.rows[k] - row) + face.columns[k] - column
            rim.depths[k] = 1.0 / plane_disparity(source, frame, row, column, corner, own)
    return rim


@wp.func
def rim_shares(source: Source, frame: int, row: int, column: int) -> wp.vec4:
    """`Rim.shares`: at the image's edge all pixels are near, and the ring is on no side."""
    shares = wp.vec4(0.0, 0.0, 0.0, 0.0)
    if cell_on_border(source, row, column):
        for k in range(4):
            if not on_border(source, row + k // 2, column + k % 2):
                shares[k] = 0.5
    else:
        shares = cell_shares(source, frame, row, column)
    return shares


@wp.func
def is_divided(source: Source, frame: int, row: int, column: int, own: wp.vec4) -> bool:
    """Whether a side of a cell consists of several surfaces: a step, or a diagonal, lies between its corners."""
    y = row - source.ring
    x = column - source.ring
    divided = own[0] + own[1] + own[2] + own[3] == 2.0 and own[0] == own[3]
    if own[0] * own[1] > 0.0 and is_step(source.steps, frame, y, x, 0, 1):
        divided = True
    if own[2] * own[3] > 0.0 and is_step(source.steps, frame, y + 1, x, 0, 1):
        divided = True
    if own[0] * own[2] > 0.0 and is_step(source.steps, frame, y, x, 1, 0):
        divided = True
    if own[1] * own[3] > 0.0 and is_step(source.steps, frame, y, x + 1, 1, 0):
        divided = True
    return divided


@wp.func
def plane_disparity(source: Source, frame: int, row: int, column: int, corner: int, own: wp.vec4) -> float:
    """Disparity of a side's plane at a corner of a cell: the pixel's own, or what the pixels beside it lead to."""
    y = row - source.ring + corner // 2
    x = column - source.ring + corner % 2
    right = 2 * (corner % 2) - 1  # outwards, from the other corners to this one
    down = 2 * (corner // 2) - 1
    across = corner + 1 - 2 * (corner % 2)
    along = corner + 2 - 4 * (corner // 2)
    disparity = wp.float32(0.0)
    if own[corner] > 0.0:
        disparity = 1.0 / source.depth[frame, y, x]
    elif own[across] + own[along] > 0.0:
        if own[across] > 0.0:
            disparity = continued(source, frame, y, x - right, 0, right)
        if own[along] > 0.0:
            disparity += continued(source, frame, y - down, x, down, 0)
        disparity = disparity / (own[across] + own[along])
    else:
        disparity = continued(source, frame, y - down, x - right, down, 0)
        disparity += continued(source, frame, y - down, x - right, 0, right)
        disparity -= 1.0 / source.depth[frame, y - down, x - right]
    return disparity


@wp.func
def continued(source: Source, frame: int, y: int, x: int, down: int, right: int) -> float:
    """Disparity one pixel after a pixel, or half of one at the image's edge, if its plane goes on."""
    here = 1.0 / source.depth[frame, y, x]
    change = wp.float32(0.0)
    if inside(source.steps, y - down, x - right) and not is_step(source.steps, frame, y, x, -down, -right):
        change = here - 1.0 / source.depth[frame, y - down, x - right]
    if not inside(source.steps, y + down, x + right):
        change *= RING_STEP
    return here + wp.clamp(change, -MOST_CHANGE * here, MOST_CHANGE * here)


@wp.func
def rim_place(rim: Rim, weights: wp.vec3) -> wp.vec2:
    """The place in a rim's cell, 0 to 1 from its top left corner, at weights of the face's corners."""
    place = wp.vec2(0.0, 0.0)
    for k in range(3):
        place[0] += weights[k] * float(rim.face.columns[k] - wp.min(rim.face.columns))
        place[1] += weights[k] * float(rim.face.rows[k] - wp.min(rim.face.rows))
    return place


@wp.func
def is_within(rim: Rim, weights: wp.vec3) -> bool:
    """Whether a rim's place at weights of the face's corners lies on its side of the silhouette."""
    return (wp.dot(bilinear(rim_place(rim, weights)), rim.shares) >= 0.0) == rim.near


@wp.func
def rim_point(rim: Rim, corner: int, frame: int, source: Source) -> wp.vec3:
    """A corner of a rim's face, in the source camera's space."""
    z = rim.depths[corner]
    x = source.ray_x[frame, rim.face.columns[corner]]
    return wp.vec3(z * x, z * source.ray_y[frame, rim.face.rows[corner]], z)
