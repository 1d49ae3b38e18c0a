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
from ex4d.raster.warp.contours import cell_corner
from ex4d.raster.warp.projection import Face, Source, View, camera_direction, camera_space, on_border, source_point

wp.set_module_options({"enable_backward": False})

# A plane's disparity differs from that of its last pixel by at most this share, or it would reach the horizon.
MOST_CHANGE = wp.constant(0.5)
# Times what shows of a round body. 1 and 1.5 gave masks a little closer to the truth on most scenes, but more of what
# was never seen was called seen (docs/measured/rendering.md).
HIDING = wp.constant(2.0)
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
    back: float  # disparity where the solid ends, unless the far side is nearer; infinite until `split_and_back` says


@wp.func
def split_and_back(source: Source, face: Face, frame: int, view: View) -> Split:
    """Split a stretched face, and find where its solid ends in a view."""
    split = split_of(source, face, frame)
    if split.exists:
        split.back = 1.0 / back_limit(split, source, frame, view)
    return split


@wp.func
def back_limit(split: Split, source: Source, frame: int, view: View) -> float:
    """The depth where the solid of a split face ends: the farthest by its near pixels."""
    farthest = wp.float32(0.0)
    for k in range(3):
        row = split.face.rows[k]
        column = split.face.columns[k]
        if is_own(split, k, True) and not on_border(source, row, column):
            z = source.depth[frame, row - source.ring, column - source.ring]
            thickness = source.limits[frame, row - source.ring, column - source.ring] - z
            part = hiding_part(source_point(source, frame, row, column), view.cameras[frame])
            farthest = wp.max(farthest, z + part * thickness)
    return farthest


@wp.func
def hiding_part(point: wp.vec3, camera: wp.mat44d) -> float:
    """The part of a thickness that hides what is behind it from a new camera, by the angle between both cameras' rays.

    Of a round body's depth behind its silhouette tan(angle / 2) shows beside the silhouette, and `HIDING` times that is
    taken: other bodies are deeper than round.
    """
    ray = camera_space(point, camera)
    source_ray = camera_direction(point, camera)
    lengths = wp.sqrt(wp.dot(ray, ray) * wp.dot(source_ray, source_ray))
    cosine = wp.clamp(float(wp.dot(ray, source_ray) / lengths), 0.0, 1.0)
    return wp.min(HIDING * wp.sqrt((1.0 - cosine) / (1.0 + cosine)), 1.0)


@wp.func
def split_of(source: Source, face: Face, frame: int) -> Split:
    """Split a stretched face."""
    row = wp.min(face.rows)
    column = wp.min(face.columns)
    shares = cell_shares(source, face, frame)
    first = first_alone(shares, face)
    split = Split()
    split.exists = first >= 0
    split.back = float(wp.inf)
    if not split.exists:
        return split
    for k in range(3):
        turned = (first + k) % 3
        split.face.corners[k] = face.corners[turned]
        split.face.rows[k] = face.rows[turned]
        split.face.columns[k] = face.columns[turned]
    alone = shares[cell_corner(split.face, 0)]
    split.alone_near = alone > 0.0
    for k in range(1, 3):
        other = shares[cell_corner(split.face, k)]
        split.passed[k] = wp.max(alone, other) / wp.abs(alone - other)
    on_near = on_side(shares, True)
    on_far = wp.vec4(1.0, 1.0, 1.0, 1.0) - on_near
    split.at_edge = cell_on_border(source, row, column)
    if split.alone_near:
        split.divided = not split.at_edge and is_divided(source, frame, row, column, on_far)
    else:
        split.divided = is_divided(source, frame, row, column, on_near)
    if split.at_edge:
        for k in range(3):
            split.near[k] = plane_disparity(source, frame, row, column, cell_corner(split.face, k), on_near)
            split.far[k] = 1.0 / source.border[frame]
    else:
        for k in range(3):
            corner = cell_corner(split.face, k)
            split.near[k] = plane_disparity(source, frame, row, column, corner, on_near)
            split.far[k] = plane_disparity(source, frame, row, column, corner, on_far)
    return split


@wp.func
def cell_on_border(source: Source, row: int, column: int) -> bool:
    """Whether a cell of the grid has corners on the border."""
    return on_border(source, row, column) or on_border(source, row + 1, column + 1)


@wp.func
def is_at_edge(source: Source, face: Face) -> bool:
    """Whether a face's cell has corners on the border: the far side of a stretched face has no pixels there."""
    return cell_on_border(source, wp.min(face.rows), wp.min(face.columns))


@wp.func
def cell_shares(source: Source, face: Face, frame: int) -> wp.vec4:
    """The near side's share of a face's cell's corners, less one half: positive on the near side, else not.

    Near are those in the nearer half of the face's depths. At the image's edge all pixels are; the silhouette passes
    through the ring.
    """
    row = wp.min(face.rows)
    column = wp.min(face.columns)
    shares = wp.vec4(0.0, 0.0, 0.0, 0.0)
    if cell_on_border(source, row, column):
        for k in range(4):
            if not on_border(source, row + k // 2, column + k % 2):
                shares[k] = 0.5
    else:
        y = row - source.ring
        x = column - source.ring
        nearest = float(wp.inf)
        farthest = wp.float32(0.0)
        for k in range(3):
            z = source.depth[frame, face.rows[k] - source.ring, face.columns[k] - source.ring]
            nearest = wp.min(nearest, z)
            farthest = wp.max(farthest, z)
        middle = 0.5 * (nearest + farthest)
        for k in range(4):
            side = wp.where(source.depth[frame, y + k // 2, x + k % 2] <= middle, 0, 1)
            shares[k] = 0.5 - float(side)
            if source.shares.shape[1] > 0:
                shares[k] = float(source.shares[frame, y + k // 2, x + k % 2, side]) / 255.0 - 0.5
    return shares


@wp.func
def is_near(source: Source, face: Face, frame: int, corner: int) -> bool:
    """Whether a stretched face's corner is on the near side, as `cell_shares` says it."""
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
def on_side(shares: wp.vec4, near: bool) -> wp.vec4:
    """1 for the corners of a cell that are on a side, 0 for the others."""
    own = wp.vec4(0.0, 0.0, 0.0, 0.0)
    for k in range(4):
        if (shares[k] > 0.0) == near:
            own[k] = 1.0
    return own


@wp.func
def first_alone(shares: wp.vec4, face: Face) -> int:
    """The corner of a face that is alone on its side; -1 if none is."""
    near = wp.int32(0)
    for k in range(3):
        if shares[cell_corner(face, k)] > 0.0:
            near += 1
    first = wp.int32(-1)
    for k in range(3):
        if near % 3 != 0 and (shares[cell_corner(face, k)] > 0.0) == (near == 1):
            first = k
    return first


@wp.func
def is_divided(source: Source, frame: int, row: int, column: int, own: wp.vec4) -> bool:
    """Whether a side of a cell consists of several surfaces: a step lies between its corners."""
    y = row - source.ring
    x = column - source.ring
    return (
        (own[0] * own[1] > 0.0 and is_step(source.steps, frame, y, x, 0, 1))
        or (own[2] * own[3] > 0.0 and is_step(source.steps, frame, y + 1, x, 0, 1))
        or (own[0] * own[2] > 0.0 and is_step(source.steps, frame, y, x, 1, 0))
        or (own[1] * own[3] > 0.0 and is_step(source.steps, frame, y, x + 1, 1, 0))
    )


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
    return wp.max(disparity, BEFORE_CAPS / source.border[frame])


@wp.func
def continued(source: Source, frame: int, y: int, x: int, down: int, right: int) -> float:
    """Disparity one pixel after a pixel, or half of one at the image's edge, if its plane goes on."""
    here = 1.0 / source.depth[frame, y, x]
    change = wp.float32(0.0)
    if inside(source.steps, y - down, x - right) and not is_step(source.steps, frame, y, x, -down, -right):
        change = here - 1.0 / source.depth[frame, y - down, x - right]
    if not inside(source.steps, y + down, x + right):
        change *= RING_STEP
    # of two changes at a cell's far corner, together less than all of it
    most = 0.5 * MOST_CHANGE * here
    return here + wp.clamp(change, -most, most)


@wp.func
def split_point(split: Split, point: int, frame: int, source: Source) -> wp.vec3:
    """(x / z, y / z, 1 / z) of one of the points that a face is split into, in the source camera's space."""
    if point <= THIRD:
        return plane_point(split, is_own(split, point, True), point, frame, source)
    # Faces on both sides of an edge must find the same point on it, so all begin at its near end.
    near = 2 - point % 2
    far = wp.int32(0)
    if split.alone_near:
        far = near
        near = 0
    kind = (point - NEAR_SECOND) // 2
    part = split.passed[wp.max(near, far)]
    disparity = mixed(split.near[near], split.near[far], part)
    behind = mixed(split.far[near], split.far[far], part)
    if kind == 1:
        disparity = behind
    if kind == 2:
        disparity = wp.min(disparity, wp.max(behind, split.back))
    return wp.vec3(
        mixed(source.ray_x[frame, split.face.columns[near]], source.ray_x[frame, split.face.columns[far]], part),
        mixed(source.ray_y[frame, split.face.rows[near]], source.ray_y[frame, split.face.rows[far]], part),
        disparity,
    )


@wp.func
def mixed(first: float, second: float, part: float) -> float:
    """A value between two."""
    return first + part * (second - first)


@wp.func
def plane_point(split: Split, near: bool, corner: int, frame: int, source: Source) -> wp.vec3:
    """A corner of a split face on the plane of one of its sides, as `split_point` returns points."""
    disparity = wp.where(near, split.near[corner], split.far[corner])
    x = source.ray_x[frame, split.face.columns[corner]]
    return wp.vec3(x, source.ray_y[frame, split.face.rows[corner]], disparity)


@wp.func
def is_own(split: Split, corner: int, near: bool) -> bool:
    """Whether a corner of a split face is on a side."""
    return ((corner == 0) == split.alone_near) == near
