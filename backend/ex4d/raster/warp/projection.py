"""First pass of the `warp` rasterizer, which projects vertices; and the structs and functions that all passes share.

No mesh is built: vertices, faces and their occlusion follow from depth, rays and position in the grid, and are computed
where they are needed. Only projected vertices are stored, 12 bytes each: six faces and their pixels read them.

Projected vertices are snapped to 1/256 pixel (in the `reference` convention to 1/16, as nvdiffrast does), so that edge
functions are exact integers: faces that share an edge leave no crack and share no pixel, on every device. Faces that
reach in front of the near plane, or far off the screen, use homogeneous edge functions instead (`edge_rules.py`). In
the `reference` convention they are clipped, as in nvdiffrast.
"""

from __future__ import annotations

import warp as wp

from ex4d.mesh import occlusion, thickness_kernel
from ex4d.mesh.plane_kernel import cell_continues_plane

wp.set_module_options({"enable_backward": False})

SUBPIXEL_BITS = wp.constant(8)
SUBPIXELS = wp.constant(256)
HALF_PIXEL = wp.constant(128)
# Snapped coordinates stay below 2^28, their edge functions below 2^59: no integer overflows.
GUARD_BAND = wp.constant(float(2**20))
EMPTY = wp.constant(wp.uint64(0xFFFFFFFFFFFFFFFF))
# Cells of a block's side; see `View.blocks`.
BLOCK_SIDE = 8
BLOCK = wp.constant(BLOCK_SIDE)
STEP_TO_RIGHT = wp.constant(thickness_kernel.STEP_TO_RIGHT)
STEP_TO_BELOW = wp.constant(thickness_kernel.STEP_TO_BELOW)
BOUNDARY_RATIO = wp.constant(occlusion.BOUNDARY_RATIO)

# A pixel whose centre is within 1/256 pixel (in x and in y) of a source pixel's vertex shows that source pixel. Float32
# vertices projected back into their own camera are off by less, and an error this small is invisible elsewhere.
SAME_PIXEL = wp.constant(1)

# Occlusion models (`View.occlusion`): see `DepthSurface.occlusion`.
WATERTIGHT = wp.constant(0)
OPEN = wp.constant(1)
THICKNESS = wp.constant(2)

# Added to the id of a face in the depth-and-id buffer that is drawn as a stretched one, or the rim of its near or far
# side (`rims.py`): the face's own id is the rest by `STRETCHED`.
STRETCHED = wp.constant(1 << 28)
NEAR_RIM = wp.constant(2 << 28)
FAR_RIM = wp.constant(3 << 28)

# Used instead of 1/z for vertices without snapped coordinates.
BEHIND = wp.constant(-1.0)  # before the near plane
FAR_OFF = wp.constant(0.0)  # beyond the guard band; in the `reference` convention outside the image


@wp.struct
class Source:
    """A frame batch of the footage's surface: B frames, H x W pixels, a grid of R x C vertices.

    Colours of either kind are in one array: with another one, copies of this struct slowed all renders down by 4 %.
    limits and steps (see `BackLimits`) and shares (see `edge_shares`) are empty except in the "thickness" model.
    """

    depth: wp.array3d(dtype=float)  # (B, H, W)
    color: wp.array4d(dtype=wp.uint8)  # (B, H, W, 3), or the bytes of half floats, (B, H, W, 6)
    surface_color: wp.array4d(dtype=wp.uint8)  # like color, see `surface_colors`; color itself outside "thickness"
    ray_x: wp.array2d(dtype=float)  # (B, C), x / z of each column of vertices
    ray_y: wp.array2d(dtype=float)  # (B, R), y / z of each row
    border: wp.array(dtype=float)  # (B,), depth of the outermost vertices
    limits: wp.array3d(dtype=float)  # (B, H, W)
    steps: wp.array3d(dtype=wp.uint8)  # (B, H, W)
    shares: wp.array4d(dtype=wp.uint8)  # (B, H, W, 2)
    pixel_angles: wp.array2d(dtype=float)  # (B, 2)
    rows: int
    columns: int
    ring: int  # how many vertices lie beyond the image on each side, 0 or 1
    boundary_rule: int  # 1: occluded by EX-4D's "boundary" rule, 0: by its "angle" rule
    thin: float  # the "angle" rule's limit, 4 cos^2 of the angle
    level_widths: float  # see `drawing.is_flat_cell`
    flat_widths: float  # see `flat_widths_of`


@wp.struct
class Projected:
    """A frame batch's projected vertices, (B, V) each; inverse_z is above 0 where x and y are snapped coordinates.

    Of vertices that are FAR_OFF, x and y tell on which side of the image they are. exact_x and exact_y, in pixels,
    are empty where colours are interpolated between snapped corners.
    """

    x: wp.array2d(dtype=wp.int32)
    y: wp.array2d(dtype=wp.int32)
    inverse_z: wp.array2d(dtype=float)
    exact_x: wp.array2d(dtype=float)
    exact_y: wp.array2d(dtype=float)


@wp.struct
class View:
    """The new cameras of a frame batch.

    cameras transform the source camera's space to the new camera's; intrinsics holds (fx, fy, cx, cy) of each frame.
    With several samples of a pixel these are the pixels of all passes but the last one (`sampling.py`).
    """

    cameras: wp.array(dtype=wp.mat44d)
    intrinsics: wp.array(dtype=wp.vec4d)
    width: int  # of the image, in samples
    height: int
    samples: int  # of a pixel, per axis
    slant: int  # of their grid, in 1/256 sample; see `edge_rules.slanted`
    near: float
    far: float
    occlusion: int
    snap: int  # vertices are snapped to so many 1/256 pixels
    cap_nearer: float  # see `nearness`
    wanted: wp.array3d(dtype=int)  # (B, h + 1, w + 1), how many tiles above and left of each are wanted; empty: all
    tile: int  # pixels of a tile's side
    blocks: wp.array3d(dtype=wp.uint8)  # (B, h, w), 1: cells of that block of the grid may show there; empty: all
    is_hollow: int  # 1: of stretched faces only the rims are drawn, so that they hide nothing


@wp.struct
class Face:
    """A face of the DW-Mesh: its corners' vertex indices, and where they lie in the grid of vertices."""

    corners: wp.vec3i
    rows: wp.vec3i
    columns: wp.vec3i


@wp.func
def nearness(face: int, source: Source, view: View) -> float:
    """The factor of 1 / z of a face: caps, which come after the grid's faces, hide faces in their plane."""
    if face >= 2 * (source.rows - 1) * (source.columns - 1):
        return view.cap_nearer
    return 1.0


@wp.kernel
def project_vertices(source: Source, span: int, view: View, projected: Projected):
    """Compute snapped pixel coordinates and 1/z of each vertex beyond the near plane and within the guard band.

    Threads are (frame, row, span of columns) of vertices.
    """
    frame, row, first = wp.tid()
    start = first * span
    last = wp.min(start + span, source.columns)
    while start < last:
        stop = block_end(start, last, view)
        # The vertices between two blocks belong to both.
        if is_needed(view, frame, wp.max(row - 1, 0), row, wp.max(start - 1, 0), start):
            for column in range(start, stop):
                project_vertex(frame, row, column, source, view, projected)
        start = stop


@wp.func
def block_end(start: int, last: int, view: View) -> int:
    """The first column after a column's block, up to the last one; all columns are in one where all are needed."""
    stop = last
    if view.blocks.shape[1] > 0:
        stop = wp.min((start // BLOCK + 1) * BLOCK, last)
    return stop


@wp.func
def is_needed(view: View, frame: int, top: int, bottom: int, left: int, right: int) -> bool:
    """Whether any of some cells may show in a tile that is wanted, as far as their blocks tell."""
    needed = view.blocks.shape[1] == 0
    if not needed:
        last_row = wp.min(bottom // BLOCK, view.blocks.shape[1] - 1)
        last_column = wp.min(right // BLOCK, view.blocks.shape[2] - 1)
        for y in range(top // BLOCK, last_row + 1):
            for x in range(left // BLOCK, last_column + 1):
                if view.blocks[frame, y, x] != wp.uint8(0):
                    needed = True
    return needed


@wp.func
def is_needed_face(view: View, frame: int, face: Face) -> bool:
    """Whether a face of the grid may show in a tile that is wanted, as far as its block tells."""
    row = wp.min(face.rows)
    column = wp.min(face.columns)
    return is_needed(view, frame, row, row, column, column)


@wp.func
def project_vertex(frame: int, row: int, column: int, source: Source, view: View, projected: Projected):
    """Compute one vertex of `Projected`."""
    vertex = row * source.columns + column
    p = camera_space(source_point(source, frame, row, column), view.cameras[frame])
    intrinsics = view.intrinsics[frame]
    x = wp.int32(0)
    y = wp.int32(0)
    w = wp.float32(BEHIND)
    exact = projected.exact_x.shape[1] > 0
    if exact or p[2] >= wp.float64(view.near):
        inverse_z = wp.float64(1.0) / p[2]
        px = intrinsics[0] * p[0] * inverse_z + intrinsics[2]
        py = intrinsics[1] * p[1] * inverse_z + intrinsics[3]
        if exact:
            projected.exact_x[frame, vertex] = float(px)
            projected.exact_y[frame, vertex] = float(py)
        if p[2] >= wp.float64(view.near):
            guard = wp.float64(GUARD_BAND)
            steps = wp.float64(SUBPIXELS // view.snap)
            x = int(wp.floor(wp.clamp(px, -guard, guard) * steps + wp.float64(0.5))) * view.snap
            y = int(wp.floor(wp.clamp(py, -guard, guard) * steps + wp.float64(0.5))) * view.snap
            w = wp.float32(FAR_OFF)
            if can_be_snapped(px, py, exact, view):
                w = float(inverse_z)
    projected.x[frame, vertex] = x
    projected.y[frame, vertex] = y
    projected.inverse_z[frame, vertex] = w


@wp.func
def can_be_snapped(x: wp.float64, y: wp.float64, exact: bool, view: View) -> bool:
    """Whether faces may be drawn from a vertex's snapped coordinates: as they are, or (exact) after clipping.

    x and y in pixels. nvdiffrast clips every face that leaves the image and snaps the resulting corners.
    """
    guard = wp.float64(GUARD_BAND)
    near = wp.abs(x) < guard and wp.abs(y) < guard
    if exact:
        zero = wp.float64(0.0)
        near = x >= zero and x <= wp.float64(view.width) and y >= zero and y <= wp.float64(view.height)
    return near


@wp.func
def on_border(source: Source, row: int, column: int) -> bool:
    """Whether a vertex is one of the outermost, whose depth is not a source pixel's own."""
    return row == 0 or column == 0 or row == source.rows - 1 or column == source.columns - 1


@wp.func
def source_point(source: Source, frame: int, row: int, column: int) -> wp.vec3:
    """A vertex of the DW-Mesh in its own camera's space."""
    z = source.border[frame]
    if not on_border(source, row, column):
        z = source.depth[frame, row - source.ring, column - source.ring]
    return wp.vec3(z * source.ray_x[frame, column], z * source.ray_y[frame, row], z)


@wp.func
def vertex_point(source: Source, frame: int, vertex: int) -> wp.vec3:
    """A vertex of the DW-Mesh, by its index, in its own camera's space."""
    row = vertex // source.columns
    return source_point(source, frame, row, vertex - row * source.columns)


@wp.func
def camera_space(point: wp.vec3, camera: wp.mat44d) -> wp.vec3d:
    """A point of the source camera's space in the new camera's space."""
    x = wp.float64(point[0])
    y = wp.float64(point[1])
    z = wp.float64(point[2])
    return wp.vec3d(
        camera[0, 0] * x + camera[0, 1] * y + camera[0, 2] * z + camera[0, 3],
        camera[1, 0] * x + camera[1, 1] * y + camera[1, 2] * z + camera[1, 3],
        camera[2, 0] * x + camera[2, 1] * y + camera[2, 2] * z + camera[2, 3],
    )


@wp.func
def camera_direction(direction: wp.vec3, camera: wp.mat44d) -> wp.vec3d:
    """A direction of the source camera's space in the new camera's space."""
    x = wp.float64(direction[0])
    y = wp.float64(direction[1])
    z = wp.float64(direction[2])
    return wp.vec3d(
        camera[0, 0] * x + camera[0, 1] * y + camera[0, 2] * z,
        camera[1, 0] * x + camera[1, 1] * y + camera[1, 2] * z,
        camera[2, 0] * x + camera[2, 1] * y + camera[2, 2] * z,
    )


@wp.func
def cell_face(row: int, column: int, lower: bool, columns: int) -> Face:
    """One of a cell's two faces; columns of the whole grid."""
    face = Face()
    face.rows = wp.vec3i(row + 1, row, row)
    face.columns = wp.vec3i(column, column, column + 1)
    if lower:
        face.rows = wp.vec3i(row + 1, row, row + 1)
        face.columns = wp.vec3i(column, column + 1, column + 1)
    face.corners = face.rows * columns + face.columns
    return face


@wp.func
def cap_face(cap: int, rows: int, columns: int) -> Face:
    """One of the two caps."""
    face = Face()
    face.rows = wp.vec3i(0, 0, rows - 1)
    face.columns = wp.vec3i(columns - 1, 0, columns - 1)
    if cap == 1:
        face.rows = wp.vec3i(rows - 1, 0, rows - 1)
        face.columns = wp.vec3i(columns - 1, 0, 0)
    face.corners = face.rows * columns + face.columns
    return face


@wp.func
def mesh_face(index: int, rows: int, columns: int) -> Face:
    """A face by its place in the mesh: upper faces of all cells, lower faces of all cells, two caps."""
    cells = (rows - 1) * (columns - 1)
    lower = index >= cells
    cell = index
    if lower:
        cell = index - cells
    row = cell // (columns - 1)
    face = cell_face(row, cell - row * (columns - 1), lower, columns)
    if index >= 2 * cells:
        face = cap_face(index - 2 * cells, rows, columns)
    return face


@wp.func
def face_occluded(source: Source, frame: int, face: Face) -> bool:
    """Whether a face hides what was never seen: by EX-4D's rules, and always where it touches a ring.

    In the `centered` convention a face that continues a plane does not, however thin it is.
    """
    occluded = False
    if source.ring > 0:
        occluded = touches_border(source, face)
    if not occluded:
        occluded = occluded_by_rule(
            source,
            source_point(source, frame, face.rows[0], face.columns[0]),
            source_point(source, frame, face.rows[1], face.columns[1]),
            source_point(source, frame, face.rows[2], face.columns[2]),
        )
        if occluded and source.ring > 0:
            occluded = not face_continues_plane(source, frame, face)
    return occluded


@wp.func
def face_continues_plane(source: Source, frame: int, face: Face) -> bool:
    """Whether a face off the border has no step along its edges; see `plane_kernel.py`."""
    # In both faces of a cell the row of corner 1 and the column of corner 0 are those of its upper left pixel.
    return cell_continues_plane(
        source.depth,
        frame,
        face.rows[1] - source.ring,
        face.columns[0] - source.ring,
        face.rows[0] == face.rows[2],
        source.pixel_angles,
        source.flat_widths,
    )


@wp.func
def occluded_by_rule(source: Source, a: wp.vec3, b: wp.vec3, c: wp.vec3) -> bool:
    """The rule of `ex4d.mesh.occlusion` for one face, in the same operations."""
    occluded = False
    ab = b - a
    bc = c - b
    ca = a - c
    if source.boundary_rule != 0:
        dx = wp.max(wp.abs(ab[0]), wp.max(wp.abs(bc[0]), wp.abs(ca[0])))
        dy = wp.max(wp.abs(ab[1]), wp.max(wp.abs(bc[1]), wp.abs(ca[1])))
        dz = wp.max(wp.abs(ab[2]), wp.max(wp.abs(bc[2]), wp.abs(ca[2])))
        occluded = dz > wp.max(dx, dy) * BOUNDARY_RATIO
    else:
        p = wp.dot(ab, ab)
        q = wp.dot(bc, bc)
        r = wp.dot(ca, ca)
        larger = wp.max(p, q)
        smaller = wp.min(p, q)
        middle = wp.max(smaller, r)
        shortest = wp.min(smaller, r)
        numerator = larger + middle - shortest
        occluded = numerator * numerator >= larger * middle * source.thin
    return occluded


@wp.func
def touches_border(source: Source, face: Face) -> bool:
    """Whether a face has a vertex on the border."""
    return (
        on_border(source, face.rows[0], face.columns[0])
        or on_border(source, face.rows[1], face.columns[1])
        or on_border(source, face.rows[2], face.columns[2])
    )


@wp.func
def is_obstacle(source: Source, view: View, frame: int, face: Face) -> bool:
    """Whether all of a face is drawn; parts of stretched faces are drawn by `stretched_faces.py`."""
    drawn = True
    if view.occlusion != WATERTIGHT:
        drawn = not touches_border(source, face) and not is_stretched(source, view, frame, face)
    return drawn


@wp.func
def is_stretched(source: Source, view: View, frame: int, face: Face) -> bool:
    """Whether a face spans a discontinuity: an occluded one, in the "thickness" model also one over a step."""
    stretched = face_occluded(source, frame, face)
    if view.occlusion == THICKNESS and not stretched:
        stretched = over_step(source, frame, face)
    return stretched


@wp.func
def over_step(source: Source, frame: int, face: Face) -> bool:
    """Whether the surface ends between two corners that are neighbours in the source image; false on the ring."""
    right = wp.int32(1)  # of the corners, the pixel on the left of the horizontal edge, and the one above the vertical
    below = wp.int32(1)
    if face.rows[0] == face.rows[2]:  # the lower face
        right = 0
    step_right = int(source.steps[frame, face.rows[right] - 1, face.columns[right] - 1])
    step_below = int(source.steps[frame, face.rows[below] - 1, face.columns[below] - 1])
    return (step_right & STEP_TO_RIGHT) != 0 or (step_below & STEP_TO_BELOW) != 0


@wp.func
def exact_point(vertex: int, frame: int, source: Source, view: View) -> wp.vec3d:
    """(x z, y z, z) of a vertex, with x, y in pixels."""
    return in_pixels(camera_space(vertex_point(source, frame, vertex), view.cameras[frame]), view.intrinsics[frame])


@wp.func
def ray_on_screen(ray: wp.vec3, frame: int, view: View) -> wp.vec3d:
    """(x z, y z, z), with x, y in pixels, of a point (x / z, y / z, 1 / z) of the source camera's space.

    Where the new camera is at the source camera's place, x and y do not depend on the point's depth at all.
    """
    camera = view.cameras[frame]
    disparity = wp.float64(ray[2])
    moved = wp.vec3d(camera[0, 3], camera[1, 3], camera[2, 3]) * disparity
    return in_pixels(
        (camera_direction(wp.vec3(ray[0], ray[1], 1.0), camera) + moved) / disparity, view.intrinsics[frame]
    )


@wp.func
def in_pixels(p: wp.vec3d, intrinsics: wp.vec4d) -> wp.vec3d:
    """(x z, y z, z) of a point of the new camera's space, with x, y in pixels."""
    return wp.vec3d(intrinsics[0] * p[0] + intrinsics[2] * p[2], intrinsics[1] * p[1] + intrinsics[3] * p[2], p[2])
