"""Silhouettes in the "thickness" occlusion model: the rims of both surfaces, and the solid between them.

The mesh's faces join centres of source pixels, so a surface would end half a pixel before its silhouette, or before the
image's edge. That is little in the source image, and much where a new camera looks straight at what the source camera
saw at a grazing angle: a table's far edge would get teeth as long as its pixels. So of each stretched face both sides
go on as planes up to the silhouette, which are seen, and solid reaches from there straight away from the source camera,
to its back limit (`ex4d.mesh.thickness`) or to the far side. Perspective makes disparity (1 / z) linear along a plane's
image: a plane goes on by as much as it changed from the pixel before.

The silhouette lies where the near side's share of the pixels (`ex4d.mesh.edge_shares`), interpolated between the face's
corners, is one half: a line through two edges of the face.
"""

from __future__ import annotations

import warp as wp

from ex4d.mesh.edge_shares_kernel import inside, is_step
from ex4d.raster.warp.projection import Face, Source, View, camera_direction, on_border, source_point
from ex4d_core import thickness_rule

wp.set_module_options({"enable_backward": False})

# A plane's disparity differs from that of its last pixel by at most this share, or it would reach the horizon.
MOST_CHANGE = wp.constant(0.5)
HIDING = wp.constant(thickness_rule.HIDING)
# Times the disparity of the caps, which would hide what lies behind them.
BEFORE_CAPS = wp.constant(1.001)
# The ring's vertices lie half a pixel beyond the outermost pixels.
RING_STEP = wp.constant(0.5)

# The points that a face is split into: its corners, turned so that the first is alone on its side; where the silhouette
# passes the edges from there to the second and the third, on either plane; and where the solid ends behind it.
ALONE, SECOND, THIRD = wp.constant(0), wp.constant(1), wp.constant(2)
NEAR_SECOND, NEAR_THIRD = wp.constant(3), wp.constant(4)
FAR_SECOND, FAR_THIRD = wp.constant(5), wp.constant(6)
BACK_SECOND, BACK_THIRD = wp.constant(7), wp.constant(8)


@wp.struct
class Split:
    """A stretched face, split by the silhouette; its corners are turned as the points are."""

    exists: bool  # not where all corners are on the ring
    face: Face
    alone_near: bool  # the side of the corner that is alone
    divided: bool  # whether there are several surfaces on the side of the second and the third corner
    at_edge: bool  # of the image, where the far side is unknown
    near: wp.vec3  # disparity of the near plane at the face's corners
    far: wp.vec3
    passed: wp.vec3  # of the edges to the second and the third corner, the part between near end and silhouette
    back: float  # disparity where the solid ends, unless the far side is nearer; infinite until `back_of` says


@wp.struct
class Cell:
    """The cell of a stretched face; its corners are top left, top right, bottom left, bottom right."""

    row: int
    column: int
    at_edge: bool  # whether it has corners on the border, where the far side of a stretched face has no pixels
    shares: wp.vec4  # the near side's, less one half: positive on the near side, else not
    disparities: wp.vec4  # of the source pixels; 0 on the border


@wp.struct
class Crossing:
    """Where the silhouette passes an edge of a split face: the same for the faces on both sides of the edge."""

    x: float  # of the source camera's ray, x / z and y / z
    y: float
    near: float  # disparity of the near plane there
    far: float


@wp.func
def back_of(split: Split, source: Source, frame: int, view: View) -> float:
    """The disparity where the solid of a split face ends in a view: that of the farthest limit of its near pixels."""
    farthest = wp.float32(0.0)
    for k in range(3):
        row = split.face.rows[k]
        column = split.face.columns[k]
        if is_own(split, k, True) and not on_border(source, row, column):
            z = source.depth[frame, row - source.ring, column - source.ring]
            thickness = source.limits[frame, row - source.ring, column - source.ring] - z
            part = hiding_part(source_point(source, frame, row, column), view.cameras[frame])
            farthest = wp.max(farthest, z + part * thickness)
    return 1.0 / farthest


@wp.func
def hiding_part(point: wp.vec3, camera: wp.mat44d) -> float:
    """The part of a thickness that hides what is behind it from a new camera, by the angle between both cameras' rays.

    Of a round body's depth behind its silhouette tan(angle / 2) shows beside the silhouette, and `HIDING` times that is
    taken: other bodies are deeper than round.
    """
    source_ray = camera_direction(point, camera)
    ray = source_ray + wp.vec3d(camera[0, 3], camera[1, 3], camera[2, 3])
    lengths = wp.sqrt(wp.dot(ray, ray) * wp.dot(source_ray, source_ray))
    cosine = wp.clamp(float(wp.dot(ray, source_ray) / lengths), 0.0, 1.0)
    return wp.min(HIDING * wp.sqrt((1.0 - cosine) / (1.0 + cosine)), 1.0)


@wp.func
def split_of(source: Source, face: Face, frame: int) -> Split:
    """Split a stretched face."""
    cell = cell_of(source, face, frame)
    corners = cell_corners(face)
    near_count = wp.int32(0)
    for k in range(3):
        if cell.shares[corners[k]] > 0.0:
            near_count += 1
    split = Split()
    split.exists = near_count % 3 != 0
    split.back = float(wp.inf)
    if not split.exists:
        return split
    split.alone_near = near_count == 1
    if (cell.shares[corners[1]] > 0.0) == split.alone_near:
        corners = wp.vec3i(corners[1], corners[2], corners[0])
    elif (cell.shares[corners[2]] > 0.0) == split.alone_near:
        corners = wp.vec3i(corners[2], corners[0], corners[1])
    for k in range(3):
        split.face.rows[k] = cell.row + corners[k] // 2
        split.face.columns[k] = cell.column + corners[k] % 2
    split.face.corners = split.face.rows * source.columns + split.face.columns
    alone = cell.shares[corners[0]]
    for k in range(1, 3):
        other = cell.shares[corners[k]]
        split.passed[k] = wp.max(alone, other) / wp.abs(alone - other)
    split.at_edge = cell.at_edge
    if not (split.alone_near and split.at_edge):
        split.divided = is_divided(source, frame, cell, not split.alone_near)
    most = BEFORE_CAPS / source.border[frame]
    for k in range(3):
        is_near = (k == 0) == split.alone_near
        own = cell.disparities[corners[k]]
        if split.at_edge:
            split.far[k] = 1.0 / source.border[frame]
            if not is_near:
                own = plane_disparity(source, frame, cell, corners[k], True)
            split.near[k] = wp.max(own, most)
        else:
            other = wp.max(plane_disparity(source, frame, cell, corners[k], not is_near), most)
            own = wp.max(own, most)
            split.near[k] = wp.where(is_near, own, other)
            split.far[k] = wp.where(is_near, other, own)
    return split


@wp.func
def cell_corners(face: Face) -> wp.vec3i:
    """Which of its cell's corners the corners of a face of the grid are."""
    return wp.where(face.rows[0] == face.rows[2], wp.vec3i(2, 1, 3), wp.vec3i(2, 0, 1))


@wp.func
def is_at_edge(source: Source, face: Face) -> bool:
    """Whether a face's cell has corners on the border: the far side of a stretched face has no pixels there."""
    # In both faces of a cell the row of corner 1 and the column of corner 0 are those of its first corner.
    row = face.rows[1]
    column = face.columns[0]
    return on_border(source, row, column) or on_border(source, row + 1, column + 1)


@wp.func
def cell_of(source: Source, face: Face, frame: int) -> Cell:
    """The cell of a stretched face. Near are its pixels in the nearer half of the face's depths.

    At the image's edge all pixels are; the silhouette passes through the ring.
    """
    cell = Cell()
    cell.row = face.rows[1]
    cell.column = face.columns[0]
    cell.at_edge = is_at_edge(source, face)
    y = cell.row - source.ring
    x = cell.column - source.ring
    if cell.at_edge:
        for k in range(4):
            if not on_border(source, cell.row + k // 2, cell.column + k % 2):
                cell.shares[k] = 0.5
                cell.disparities[k] = 1.0 / source.depth[frame, y + k // 2, x + k % 2]
    else:
        depths = wp.vec4(
            source.depth[frame, y, x],
            source.depth[frame, y, x + 1],
            source.depth[frame, y + 1, x],
            source.depth[frame, y + 1, x + 1],
        )
        third = wp.where(face.rows[0] == face.rows[2], depths[3], depths[0])
        nearest = wp.min(wp.min(depths[1], depths[2]), third)
        farthest = wp.max(wp.max(depths[1], depths[2]), third)
        middle = 0.5 * (nearest + farthest)
        for k in range(4):
            cell.disparities[k] = 1.0 / depths[k]
            side = wp.where(depths[k] <= middle, 0, 1)
            cell.shares[k] = 0.5 - float(side)
            if source.shares.shape[1] > 0:
                cell.shares[k] = float(source.shares[frame, y + k // 2, x + k % 2, side]) / 255.0 - 0.5
    return cell


@wp.func
def is_near(source: Source, face: Face, frame: int, corner: int) -> bool:
    """Whether a stretched face's corner is on the near side, as `cell_of` says it."""
    near = wp.bool(False)
    if not on_border(source, face.rows[corner], face.columns[corner]):
        near = True
        if not is_at_edge(source, face):
            nearest = float(wp.inf)
            farthest = wp.float32(0.0)
            for k in range(3):
                z = source.depth[frame, face.rows[k] - source.ring, face.columns[k] - source.ring]
                nearest = wp.min(nearest, z)
                farthest = wp.max(farthest, z)
            own = source.depth[frame, face.rows[corner] - source.ring, face.columns[corner] - source.ring]
            near = own <= 0.5 * (nearest + farthest)
    return near


@wp.func
def is_divided(source: Source, frame: int, cell: Cell, near: bool) -> bool:
    """Whether a side of a cell consists of several surfaces: a step lies between its corners."""
    y = cell.row - source.ring
    x = cell.column - source.ring
    top_left = has_corner(cell, 0, near)
    top_right = has_corner(cell, 1, near)
    bottom_left = has_corner(cell, 2, near)
    bottom_right = has_corner(cell, 3, near)
    divided = wp.bool(False)
    # One test after the other: Warp evaluates all of an `or`.
    if top_left and top_right:
        divided = is_step(source.steps, frame, y, x, 0, 1)
    if top_left and bottom_left and not divided:
        divided = is_step(source.steps, frame, y, x, 1, 0)
    if bottom_left and bottom_right and not divided:
        divided = is_step(source.steps, frame, y + 1, x, 0, 1)
    if top_right and bottom_right and not divided:
        divided = is_step(source.steps, frame, y, x + 1, 1, 0)
    return divided


@wp.func
def has_corner(cell: Cell, corner: int, near: bool) -> bool:
    """Whether a corner of a cell is on a side."""
    return (cell.shares[corner] > 0.0) == near


@wp.func
def plane_disparity(source: Source, frame: int, cell: Cell, corner: int, near: bool) -> float:
    """Disparity of a side's plane at a corner of a cell that is on the other side: what the pixels beside it lead to.

    On the near side of a cell at the image's edge only the pixels within it are.
    """
    right = 2 * (corner % 2) - 1  # outwards, from the other corners to this one
    down = 2 * (corner // 2) - 1
    across = corner + 1 - 2 * (corner % 2)
    along = corner + 2 - 4 * (corner // 2)
    disparity = wp.float32(0.0)
    by_row = has_corner(cell, across, near)
    by_column = has_corner(cell, along, near)
    if by_row or by_column:
        if by_row:
            disparity = continued(source, frame, cell, across, 0, right)
        if by_column:
            disparity += continued(source, frame, cell, along, down, 0)
        if by_row and by_column:
            disparity *= 0.5
    else:
        opposite = 3 - corner
        disparity = continued(source, frame, cell, opposite, down, 0)
        disparity += continued(source, frame, cell, opposite, 0, right)
        disparity -= cell.disparities[opposite]
    return disparity


@wp.func
def continued(source: Source, frame: int, cell: Cell, corner: int, down: int, right: int) -> float:
    """Disparity one pixel after a cell's corner, or half of one at the image's edge, if its plane goes on."""
    y = cell.row - source.ring + corner // 2
    x = cell.column - source.ring + corner % 2
    here = cell.disparities[corner]
    change = wp.float32(0.0)
    if inside(source.steps, y - down, x - right) and not is_step(source.steps, frame, y, x, -down, -right):
        change = here - 1.0 / source.depth[frame, y - down, x - right]
    if not inside(source.steps, y + down, x + right):
        change *= RING_STEP
    # of two changes at a cell's far corner, together less than all of it
    most = 0.5 * MOST_CHANGE * here
    return here + wp.clamp(change, -most, most)


@wp.func
def crossing_of(split: Split, end: int, frame: int, source: Source) -> Crossing:
    """Where the silhouette passes the edge from the corner that is alone to the second (end 1) or the third (2)."""
    # Faces on both sides of an edge must find the same point on it, so all begin at its near end.
    near = wp.where(split.alone_near, 0, end)
    far = wp.where(split.alone_near, end, 0)
    part = split.passed[end]
    crossing = Crossing()
    crossing.x = mixed(
        source.ray_x[frame, split.face.columns[near]], source.ray_x[frame, split.face.columns[far]], part
    )
    crossing.y = mixed(source.ray_y[frame, split.face.rows[near]], source.ray_y[frame, split.face.rows[far]], part)
    crossing.near = mixed(split.near[near], split.near[far], part)
    crossing.far = mixed(split.far[near], split.far[far], part)
    return crossing


@wp.func
def solid_end(split: Split, crossing: Crossing) -> float:
    """The disparity where the solid behind a silhouette ends, as `back_of` told the split, or the far side does."""
    return wp.min(crossing.near, wp.max(crossing.far, split.back))


@wp.func
def split_point(split: Split, point: int, frame: int, source: Source) -> wp.vec3:
    """(x / z, y / z, 1 / z) of a point where a face is split by the silhouette, in the source camera's space."""
    crossing = crossing_of(split, 2 - point % 2, frame, source)
    kind = (point - NEAR_SECOND) // 2
    disparity = crossing.near
    if kind == 1:
        disparity = crossing.far
    if kind == 2:
        disparity = solid_end(split, crossing)
    return wp.vec3(crossing.x, crossing.y, disparity)


@wp.func
def mixed(first: float, second: float, part: float) -> float:
    """A value between two."""
    return first + part * (second - first)


@wp.func
def is_own(split: Split, corner: int, near: bool) -> bool:
    """Whether a corner of a split face is on a side."""
    return ((corner == 0) == split.alone_near) == near
