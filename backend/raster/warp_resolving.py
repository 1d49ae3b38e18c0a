"""Third pass of the `warp` rasterizer: each pixel's winning face to colour, mask and depth, in either convention."""

from __future__ import annotations

import warp as wp

from backend.raster.warp_projection import (
    EMPTY,
    HALF_PIXEL,
    SUBPIXEL_BITS,
    Projected,
    View,
    cross,
    face_corner,
    face_corners,
    homogeneous_edge,
)

wp.set_module_options({"enable_backward": False})

# A pixel whose centre is within 1/256 pixel (in x and in y) of a source pixel's vertex shows that source pixel. Float32
# vertices projected back into their own camera are off by less, and being so little wrong elsewhere cannot be seen.
SAME_PIXEL = wp.constant(1)
SEEN_ALPHA = wp.constant(125.0)  # EX-4D: seen where the interpolated alpha, of 255, is above


@wp.struct
class Hit:
    """What a pixel's winning face shows there."""

    weights: wp.vec3  # perspective-correct, of the face's corners in order
    front: bool  # turned to the viewer as to the source camera
    corner: int  # which corner's projection the pixel's centre meets, or -1


@wp.kernel
def resolve_centered(
    vertices: wp.array2d(dtype=wp.vec3),
    colors: wp.array3d(dtype=wp.uint8),
    occluded: wp.array2d(dtype=wp.uint8),
    projected: Projected,
    view: View,
    rows: int,
    columns: int,
    winners: wp.array2d(dtype=wp.uint64),
    image: wp.array3d(dtype=wp.uint8),
    mask: wp.array2d(dtype=wp.uint8),
    depth: wp.array2d(dtype=float),
):
    """Colour and mask of each pixel; depth is written where its array is not empty.

    Seen is the front of a face that is not occluded. Where a pixel's centre meets a source pixel's own vertex, on the
    front of any face, it shows that source pixel: a curtain begins at the last seen point, and that point is seen.
    """
    frame, row, column = wp.tid()
    pixel = row * view.width + column
    key = winners[frame, pixel]
    seen = wp.uint8(0)
    color = wp.vec3(0.0, 0.0, 0.0)
    z = float(wp.inf)
    if key != EMPTY:
        face = int(key & wp.uint64(0xFFFFFFFF))
        z = hit_depth(key)
        corners = face_corners(face, rows, columns)
        hit = resolve_hit(corners, frame, column, row, vertices, projected, view)
        if hit.front:
            own = wp.int32(-1)
            if hit.corner >= 0 and on_picture(corners[hit.corner], rows, columns):
                own = corners[hit.corner]
            if own >= 0:
                seen = wp.uint8(1)
                color = wp.vec3(
                    float(colors[frame, own, 0]), float(colors[frame, own, 1]), float(colors[frame, own, 2])
                )
            else:
                if occluded[frame, face] == wp.uint8(0):
                    seen = wp.uint8(1)
                    color = wp.vec3(
                        blend(colors, frame, corners, hit.weights, 0),
                        blend(colors, frame, corners, hit.weights, 1),
                        blend(colors, frame, corners, hit.weights, 2),
                    )
    mask[frame, pixel] = seen
    for channel in range(3):
        image[frame, pixel, channel] = wp.uint8(int(color[channel] + 0.5))
    if depth.shape[1] > 0:
        depth[frame, pixel] = z


@wp.kernel
def resolve_reference(
    vertices: wp.array2d(dtype=wp.vec3),
    colors: wp.array3d(dtype=wp.uint8),
    projected: Projected,
    view: View,
    rows: int,
    columns: int,
    winners: wp.array2d(dtype=wp.uint64),
    image: wp.array3d(dtype=wp.uint8),
    mask: wp.array2d(dtype=wp.uint8),
    depth: wp.array2d(dtype=float),
):
    """EX-4D's way: the vertices' RGBA is interpolated on both sides of any face, and alpha decides what is seen.

    Colour is rounded down, as there. Vertices of occluded faces have colour (0, 0, 0, 0).
    """
    frame, row, column = wp.tid()
    pixel = row * view.width + column
    key = winners[frame, pixel]
    seen = wp.uint8(0)
    color = wp.vec3(0.0, 0.0, 0.0)
    z = float(wp.inf)
    if key != EMPTY:
        face = int(key & wp.uint64(0xFFFFFFFF))
        z = hit_depth(key)
        corners = face_corners(face, rows, columns)
        hit = resolve_hit(corners, frame, column, row, vertices, projected, view)
        if blend(colors, frame, corners, hit.weights, 3) > SEEN_ALPHA:
            seen = wp.uint8(1)
            color = wp.vec3(
                blend(colors, frame, corners, hit.weights, 0),
                blend(colors, frame, corners, hit.weights, 1),
                blend(colors, frame, corners, hit.weights, 2),
            )
    mask[frame, pixel] = seen
    for channel in range(3):
        image[frame, pixel, channel] = wp.uint8(int(color[channel]))
    if depth.shape[1] > 0:
        depth[frame, pixel] = z


@wp.func
def resolve_hit(
    corners: wp.vec3i,
    frame: int,
    column: int,
    row: int,
    vertices: wp.array2d(dtype=wp.vec3),
    projected: Projected,
    view: View,
) -> Hit:
    hit = Hit()
    hit.corner = -1
    x = (column << SUBPIXEL_BITS) + HALF_PIXEL
    y = (row << SUBPIXEL_BITS) + HALF_PIXEL
    aw = projected.inverse_z[frame, corners[0]]
    bw = projected.inverse_z[frame, corners[1]]
    cw = projected.inverse_z[frame, corners[2]]
    ax = projected.x[frame, corners[0]] - x
    ay = projected.y[frame, corners[0]] - y
    bx = projected.x[frame, corners[1]] - x
    by = projected.y[frame, corners[1]] - y
    cx = projected.x[frame, corners[2]] - x
    cy = projected.y[frame, corners[2]] - y
    if cw > 0.0 and meets(cx, cy):
        hit.corner = 2
    if bw > 0.0 and meets(bx, by):
        hit.corner = 1
    if aw > 0.0 and meets(ax, ay):
        hit.corner = 0
    if aw > 0.0 and bw > 0.0 and cw > 0.0:
        e_a = float(cross(bx, by, cx, cy)) * aw
        e_b = float(cross(cx, cy, ax, ay)) * bw
        e_c = float(cross(ax, ay, bx, by)) * cw
        total = e_a + e_b + e_c
        hit.front = total > 0.0
        hit.weights = wp.vec3(e_a / total, e_b / total, e_c / total)
    else:
        a = face_corner(corners[0], frame, vertices, projected, view)
        b = face_corner(corners[1], frame, vertices, projected, view)
        c = face_corner(corners[2], frame, vertices, projected, view)
        f_a = homogeneous_edge(b, c, column, row)
        f_b = homogeneous_edge(c, a, column, row)
        f_c = homogeneous_edge(a, b, column, row)
        sum = f_a + f_b + f_c
        hit.front = sum > wp.float64(0.0)
        hit.weights = wp.vec3(float(f_a / sum), float(f_b / sum), float(f_c / sum))
    return hit


@wp.func
def meets(dx: int, dy: int) -> bool:
    return wp.abs(dx) <= SAME_PIXEL and wp.abs(dy) <= SAME_PIXEL


@wp.func
def on_picture(vertex: int, rows: int, columns: int) -> bool:
    """Whether a vertex is a source pixel, not one of the ring around the picture."""
    row = vertex // columns
    column = vertex - row * columns
    return row > 0 and row < rows - 1 and column > 0 and column < columns - 1


@wp.func
def blend(colors: wp.array3d(dtype=wp.uint8), frame: int, corners: wp.vec3i, weights: wp.vec3, channel: int) -> float:
    return (
        weights[0] * float(colors[frame, corners[0], channel])
        + weights[1] * float(colors[frame, corners[1], channel])
        + weights[2] * float(colors[frame, corners[2], channel])
    )


@wp.func
def hit_depth(key: wp.uint64) -> float:
    return wp.cast(wp.uint32(key >> wp.uint64(32)), wp.float32)
