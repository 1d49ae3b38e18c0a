"""Third pass of the `warp` rasterizer: computes colour, mask and depth of each pixel from its winning face."""

from __future__ import annotations

import warp as wp

from ex4d.raster.rasterizer import REFERENCE_SEEN_ALPHA
from ex4d.raster.warp.cutting import shown_source_pixel, source_pixel_weights
from ex4d.raster.warp.edge_rules import cross, face_corner, homogeneous_edge, meets
from ex4d.raster.warp.filling import is_wanted
from ex4d.raster.warp.projection import (
    EMPTY,
    HALF_PIXEL,
    STRETCHED,
    SUBPIXEL_BITS,
    THICKNESS,
    WATERTIGHT,
    Face,
    Projected,
    Source,
    View,
    cap_face,
    cell_face,
    exact_point,
    face_occluded,
    mesh_face,
    occluded_by_rule,
    on_border,
    source_point,
)

wp.set_module_options({"enable_backward": False})

SEEN_ALPHA = wp.constant(REFERENCE_SEEN_ALPHA)


@wp.struct
class Hit:
    """Where a pixel's ray meets its winning face."""

    weights: wp.vec3  # perspective-correct, of the face's corners in order
    front: bool  # turned to the viewer as to the source camera
    corner: int  # which corner's projection the pixel's centre meets, or -1


@wp.struct
class Shown:
    """What one ray of the new camera shows."""

    seen: bool
    color: wp.vec3  # sRGB, 0 to 255; 0 where unseen
    z: float  # infinite without a surface


@wp.kernel
def resolve_centered(
    source: Source,
    span: int,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
    image: wp.array3d(dtype=wp.uint8),
    mask: wp.array2d(dtype=wp.uint8),
    depth: wp.array2d(dtype=float),
):
    """Write colour and mask of each pixel, and depth where its array is not empty.

    The front of a face that is not occluded is seen. Where a pixel's centre meets a source pixel's own vertex, on the
    front of any face, it shows that source pixel. Stretched faces show a source pixel as far as it reaches: such a face
    begins at the last seen point, which is seen itself.
    Threads are (frame, row, span of columns) of pixels.
    """
    frame, row, first = wp.tid()
    for column in range(first * span, wp.min(first * span + span, view.width)):
        if is_wanted(column, row, column, row, frame, view):
            resolve_pixel(frame, row, column, source, projected, view, winners, image, mask, depth)
        else:
            mask[frame, row * view.width + column] = wp.uint8(0)


@wp.func
def resolve_pixel(
    frame: int,
    row: int,
    column: int,
    source: Source,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
    image: wp.array3d(dtype=wp.uint8),
    mask: wp.array2d(dtype=wp.uint8),
    depth: wp.array2d(dtype=float),
):
    """Write one pixel; see `resolve_centered`."""
    pixel = row * view.width + column
    shown = shown_at(frame, row, column, source, projected, view, winners)
    mask[frame, pixel] = wp.where(shown.seen, wp.uint8(1), wp.uint8(0))
    for channel in range(3):
        image[frame, pixel, channel] = wp.uint8(int(shown.color[channel] + 0.5))
    if depth.shape[1] > 0:
        depth[frame, pixel] = shown.z


@wp.func
def shown_at(
    frame: int,
    row: int,
    column: int,
    source: Source,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
) -> Shown:
    """What the ray through a pixel's centre shows; see `resolve_centered`."""
    key = winners[frame, row * view.width + column]
    shown = Shown()
    shown.seen = wp.bool(False)
    shown.color = wp.vec3(0.0, 0.0, 0.0)
    shown.z = float(wp.inf)
    if key != EMPTY:
        index = int(key & wp.uint64(0xFFFFFFFF))
        drawn_as_stretched = index >= STRETCHED
        if drawn_as_stretched:
            index -= STRETCHED
        face = mesh_face(index, source.rows, source.columns)
        shown.z = hit_depth(key)
        hit = resolve_hit(face.corners, frame, column, row, source, projected, view)
        if hit.front:
            hidden = drawn_as_stretched or index >= 2 * (source.rows - 1) * (source.columns - 1)  # or a cap
            if view.occlusion == WATERTIGHT:
                hidden = face_occluded(source, frame, face)
            own = hit.corner
            reached = hidden and own < 0
            if hidden:
                own = shown_source_pixel(source, face, frame, column, row, projected, view)
            if own >= 0 and on_border(source, face.rows[own], face.columns[own]):
                own = -1
            if own >= 0:
                shown.seen = True
                shown.color = source_color(source, frame, face.rows[own], face.columns[own])
                if reached and view.occlusion == THICKNESS:
                    weights = source_pixel_weights(source, face, own, frame, column, row, projected, view)
                    shown.color = blend_cell(source, frame, face, weights)
            elif not hidden:
                shown.seen = True
                shown.color = blend(source, frame, face, hit.weights)
    return shown


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


@wp.func
def resolve_hit(
    corners: wp.vec3i,
    frame: int,
    column: int,
    row: int,
    source: Source,
    projected: Projected,
    view: View,
) -> Hit:
    """The weights, side and met corner of a face at a pixel."""
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
        a = face_corner(corners[0], frame, source, projected, view)
        b = face_corner(corners[1], frame, source, projected, view)
        c = face_corner(corners[2], frame, source, projected, view)
        f_a = homogeneous_edge(b, c, column, row)
        f_b = homogeneous_edge(c, a, column, row)
        f_c = homogeneous_edge(a, b, column, row)
        sum = f_a + f_b + f_c
        hit.front = sum > wp.float64(0.0)
        hit.weights = wp.vec3(float(f_a / sum), float(f_b / sum), float(f_c / sum))
    return hit


@wp.func
def exact_weights(
    corners: wp.vec3i, frame: int, column: int, row: int, source: Source, projected: Projected, view: View
) -> wp.vec3:
    """Perspective-correct weights of a face's exact corners, not of the snapped ones.

    A pixel that the snapped face covers may lie a little outside the exact one, so weights are clamped.
    """
    weights = wp.vec3(1.0, 0.0, 0.0)  # edge-on: any of its points
    aw = projected.inverse_z[frame, corners[0]]
    bw = projected.inverse_z[frame, corners[1]]
    cw = projected.inverse_z[frame, corners[2]]
    if aw > 0.0 and bw > 0.0 and cw > 0.0:
        centre = wp.vec2(float(column) + 0.5, float(row) + 0.5)
        a = wp.vec2(projected.exact_x[frame, corners[0]], projected.exact_y[frame, corners[0]]) - centre
        b = wp.vec2(projected.exact_x[frame, corners[1]], projected.exact_y[frame, corners[1]]) - centre
        c = wp.vec2(projected.exact_x[frame, corners[2]], projected.exact_y[frame, corners[2]]) - centre
        e_a = (b[0] * c[1] - b[1] * c[0]) * aw
        e_b = (c[0] * a[1] - c[1] * a[0]) * bw
        e_c = (a[0] * b[1] - a[1] * b[0]) * cw
        total = e_a + e_b + e_c
        if total != 0.0:
            weights = wp.vec3(e_a / total, e_b / total, e_c / total)
    else:
        weights = weights_by_ray(corners, frame, column, row, source, view)
    return clamped(weights)


@wp.func
def weights_by_ray(corners: wp.vec3i, frame: int, column: int, row: int, source: Source, view: View) -> wp.vec3:
    """Weights of a face's corners where a pixel's ray meets its plane; corners may be anywhere."""
    ray = wp.vec3d(wp.float64(column) + wp.float64(0.5), wp.float64(row) + wp.float64(0.5), wp.float64(1.0))
    a = exact_point(corners[0], frame, source, view)
    b = exact_point(corners[1], frame, source, view)
    c = exact_point(corners[2], frame, source, view)
    e_a = wp.dot(ray, wp.cross(b, c))
    e_b = wp.dot(ray, wp.cross(c, a))
    e_c = wp.dot(ray, wp.cross(a, b))
    total = e_a + e_b + e_c
    weights = wp.vec3(1.0, 0.0, 0.0)
    if total != wp.float64(0.0):
        weights = wp.vec3(float(e_a / total), float(e_b / total), float(e_c / total))
    return weights


@wp.func
def clamped(weights: wp.vec3) -> wp.vec3:
    """Weights within [0, 1] whose sum is 1."""
    a_weight = wp.clamp(weights[0], 0.0, 1.0)
    b_weight = wp.clamp(weights[1], 0.0, 1.0)
    scale = 1.0 / wp.max(a_weight + b_weight, 1.0)
    return wp.vec3(a_weight * scale, b_weight * scale, 1.0 - wp.min(a_weight + b_weight, 1.0))


@wp.func
def blend(source: Source, frame: int, face: Face, weights: wp.vec3) -> wp.vec3:
    """The colour of a face at perspective-correct weights."""
    return (
        weights[0] * source_color(source, frame, face.rows[0], face.columns[0])
        + weights[1] * source_color(source, frame, face.rows[1], face.columns[1])
        + weights[2] * source_color(source, frame, face.rows[2], face.columns[2])
    )


@wp.func
def blend_cell(source: Source, frame: int, face: Face, weights: wp.vec4) -> wp.vec3:
    """The colour of the corners of a face's cell: top left, top right, bottom left, bottom right."""
    row = wp.min(face.rows)
    column = wp.min(face.columns)
    return (
        weights[0] * source_color(source, frame, row, column)
        + weights[1] * source_color(source, frame, row, column + 1)
        + weights[2] * source_color(source, frame, row + 1, column)
        + weights[3] * source_color(source, frame, row + 1, column + 1)
    )


@wp.func
def source_color(source: Source, frame: int, row: int, column: int) -> wp.vec3:
    """Colour of a vertex; the ring repeats the outermost pixels."""
    y = wp.clamp(row - source.ring, 0, source.color.shape[1] - 1)
    x = wp.clamp(column - source.ring, 0, source.color.shape[2] - 1)
    return wp.vec3(
        float(source.color[frame, y, x, 0]), float(source.color[frame, y, x, 1]), float(source.color[frame, y, x, 2])
    )


@wp.func
def hit_depth(key: wp.uint64) -> float:
    """The depth in a key of the depth-and-id buffer."""
    return wp.cast(wp.uint32(key >> wp.uint64(32)), wp.float32)
