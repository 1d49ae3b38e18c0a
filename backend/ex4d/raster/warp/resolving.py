"""Third pass of the `warp` rasterizer: computes colour, mask and depth of each pixel from its winning face."""

from __future__ import annotations

import warp as wp

from ex4d.mesh.edge_shares_kernel import color_at
from ex4d.raster.warp.cutting import shown_source_pixel
from ex4d.raster.warp.edge_rules import cross, face_corner, homogeneous_edge, meets, sample_centre
from ex4d.raster.warp.filling import is_wanted
from ex4d.raster.warp.projection import (
    BEHIND,
    EMPTY,
    FAR_RIM,
    NEAR_RIM,
    SAME_PIXEL,
    STRETCHED,
    THICKNESS,
    WATERTIGHT,
    Face,
    Projected,
    Source,
    View,
    exact_point,
    face_occluded,
    mesh_face,
    on_border,
)
from ex4d.raster.warp.rims import is_at_edge, is_near

wp.set_module_options({"enable_backward": False})

# The part of the way between two source pixels within which a rim still shows one of them alone.
RIM_SAME = wp.constant(0.02)
# Of a mixed pixel, a smaller part has too much noise for its colour to be told.
LEAST_SHARE = wp.constant(0.5)


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
    color: wp.vec3  # sRGB, 0 to 255, or a deep colour; 0 where unseen
    z: float  # infinite without a surface
    on_face: bool  # meets a face that is not hidden: with several samples of a pixel it has a place instead of a colour
    place: wp.vec2  # (x, y) in the grid of vertices


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
    shown = shown_at(winners[frame, pixel], frame, sample_centre(column), sample_centre(row), source, projected, view)
    mask[frame, pixel] = wp.where(shown.seen, wp.uint8(1), wp.uint8(0))
    write_color(shown.color, frame, pixel, image)
    if depth.shape[1] > 0:
        depth[frame, pixel] = shown.z


@wp.func
def write_color(color: wp.vec3, frame: int, pixel: int, image: wp.array3d(dtype=wp.uint8)):
    """Write a colour as 8 bits, or into an image (B, P, 6) as the bytes of half floats."""
    if image.shape[2] == 6:
        for channel in range(3):
            bits = wp.cast(wp.float16(color[channel]), wp.uint16)
            image[frame, pixel, 2 * channel] = wp.uint8(bits & wp.uint16(255))
            image[frame, pixel, 2 * channel + 1] = wp.uint8(bits >> wp.uint16(8))
    else:
        for channel in range(3):
            image[frame, pixel, channel] = wp.uint8(int(color[channel] + 0.5))


@wp.func
def shown_at(key: wp.uint64, frame: int, x: int, y: int, source: Source, projected: Projected, view: View) -> Shown:
    """What the ray through (x, y), in 1/256 pixel, shows by its key of the buffer; see `resolve_centered`."""
    shown = Shown()
    shown.seen = wp.bool(False)
    shown.color = wp.vec3(0.0, 0.0, 0.0)
    shown.z = float(wp.inf)
    shown.on_face = wp.bool(False)
    if key != EMPTY:
        id = int(key & wp.uint64(0xFFFFFFFF))
        index = id % STRETCHED
        face = mesh_face(index, source.rows, source.columns)
        shown.z = hit_depth(key)
        if view.occlusion == THICKNESS and id >= STRETCHED:
            if id >= NEAR_RIM:
                shown.seen = True
                shown.color = rim_color(face, id < FAR_RIM, frame, x, y, source, projected, view)
            return shown
        drawn_as_stretched = id >= STRETCHED
        hit = resolve_hit(face.corners, frame, x, y, source, projected, view)
        if hit.front:
            hidden = drawn_as_stretched or index >= 2 * (source.rows - 1) * (source.columns - 1)  # or a cap
            if view.occlusion == WATERTIGHT:
                hidden = face_occluded(source, frame, face)
            own = hit.corner
            if hidden:
                own = shown_source_pixel(source, face, frame, x, y, projected, view)
            if own >= 0 and on_border(source, face.rows[own], face.columns[own]):
                own = -1
            if own >= 0:
                shown.seen = True
                shown.color = source_color(source, frame, face.rows[own], face.columns[own])
            elif not hidden:
                shown.seen = True
                shown.on_face = True
                if view.samples == 1:
                    shown.color = blend(source, frame, face, hit.weights)
                else:
                    shown.place = place_on(face, hit.weights)
    return shown


@wp.func
def rim_color(
    face: Face, near: bool, frame: int, x: int, y: int, source: Source, projected: Projected, view: View
) -> wp.vec3:
    """The colour of a rim: that of its one source pixel, or between its two, by where (x, y) lies between them."""
    first = wp.int32(-1)
    second = wp.int32(-1)
    for k in range(3):
        if is_near(source, face, frame, k) == near:
            second = k
            if first < 0:
                first = k
    color = rim_end(source, face, first, near, frame, x, y, projected)
    a = face.corners[first]
    b = face.corners[second]
    if projected.inverse_z[frame, a] == BEHIND:  # which has no place on the screen
        color = rim_end(source, face, second, near, frame, x, y, projected)
    elif first != second and projected.inverse_z[frame, b] != BEHIND:
        right = float(x - projected.x[frame, a])
        below = float(y - projected.y[frame, a])
        across = float(projected.x[frame, b] - projected.x[frame, a])
        down = float(projected.y[frame, b] - projected.y[frame, a])
        # A ray through one of the two shows that one alone.
        part = (right * across + below * down) / wp.max(across * across + down * down, 1.0)
        part = wp.clamp((part - RIM_SAME) / (1.0 - 2.0 * RIM_SAME), 0.0, 1.0)
        color += part * (rim_end(source, face, second, near, frame, x, y, projected) - color)
    return color


@wp.func
def rim_end(
    source: Source, face: Face, corner: int, near: bool, frame: int, x: int, y: int, projected: Projected
) -> wp.vec3:
    """The colour of a rim at its source pixel: of the far side, without what the camera mixed into it of the near one.

    Else the near side's colour would stand as a fringe around what it leaves unseen. Its own pixels stay as they are:
    unmixed, they differ more from the truth. A ray through the pixel's centre shows its colour, too.
    """
    row = face.rows[corner]
    column = face.columns[corner]
    color = source_color(source, frame, row, column)
    right = wp.abs(x - projected.x[frame, face.corners[corner]])
    below = wp.abs(y - projected.y[frame, face.corners[corner]])
    at_centre = right <= SAME_PIXEL and below <= SAME_PIXEL
    if not (near or at_centre or source.shares.shape[1] == 0 or is_at_edge(source, face)):
        own = 1.0 - float(source.shares[frame, row - source.ring, column - source.ring, 1]) / 255.0
        other = wp.vec3(0.0, 0.0, 0.0)
        count = wp.float32(0.0)
        for k in range(3):
            if is_near(source, face, frame, k):
                other += source_color(source, frame, face.rows[k], face.columns[k])
                count += 1.0
        if count > 0.0:
            other /= count
            mixed = color
            color = surface_color(source, frame, row, column)
            if wp.length_sq(color - mixed) == 0.0:
                color = within_range(source, other + (color - other) / wp.max(own, LEAST_SHARE), mixed)
    return color


@wp.func
def place_on(face: Face, weights: wp.vec3) -> wp.vec2:
    """The place in the grid of vertices, (x, y), at perspective-correct weights of a face's corners."""
    return wp.vec2(
        weights[0] * float(face.columns[0]) + weights[1] * float(face.columns[1]) + weights[2] * float(face.columns[2]),
        weights[0] * float(face.rows[0]) + weights[1] * float(face.rows[1]) + weights[2] * float(face.rows[2]),
    )


@wp.func
def resolve_hit(
    corners: wp.vec3i,
    frame: int,
    x: int,
    y: int,
    source: Source,
    projected: Projected,
    view: View,
) -> Hit:
    """The weights, side and met corner of a face at (x, y), in 1/256 pixel."""
    hit = Hit()
    hit.corner = -1
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
        f_a = homogeneous_edge(b, c, x, y)
        f_b = homogeneous_edge(c, a, x, y)
        f_c = homogeneous_edge(a, b, x, y)
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
        weights[0] * surface_color(source, frame, face.rows[0], face.columns[0])
        + weights[1] * surface_color(source, frame, face.rows[1], face.columns[1])
        + weights[2] * surface_color(source, frame, face.rows[2], face.columns[2])
    )


@wp.func
def source_color(source: Source, frame: int, row: int, column: int) -> wp.vec3:
    """Colour of a vertex as the camera coded it; the ring repeats the outermost pixels."""
    y = wp.clamp(row - source.ring, 0, source.color.shape[1] - 1)
    x = wp.clamp(column - source.ring, 0, source.color.shape[2] - 1)
    return pixel_color(source.color, frame, y, x)


@wp.func
def surface_color(source: Source, frame: int, row: int, column: int) -> wp.vec3:
    """Colour of a vertex as its surface has it, wherever the vertex does not show as the source pixel it is."""
    y = wp.clamp(row - source.ring, 0, source.color.shape[1] - 1)
    x = wp.clamp(column - source.ring, 0, source.color.shape[2] - 1)
    return pixel_color(source.surface_color, frame, y, x)


@wp.func
def pixel_color(colors: wp.array4d(dtype=wp.uint8), frame: int, row: int, column: int) -> wp.vec3:
    """Colour of a source pixel, of 8 bits or half floats."""
    if colors.shape[3] == 6:
        return wp.vec3(
            half_at(colors, frame, row, column, 0),
            half_at(colors, frame, row, column, 1),
            half_at(colors, frame, row, column, 2),
        )
    return color_at(colors, frame, row, column)


@wp.func
def is_deep(source: Source) -> bool:
    """Whether colours are half floats."""
    return source.color.shape[3] == 6


@wp.func
def half_at(colors: wp.array4d(dtype=wp.uint8), frame: int, row: int, column: int, channel: int) -> float:
    """A channel of a source pixel's half floats."""
    low = wp.uint16(colors[frame, row, column, 2 * channel])
    high = wp.uint16(colors[frame, row, column, 2 * channel + 1])
    return float(wp.cast(low | (high << wp.uint16(8)), wp.float16))


@wp.func
def within_range(source: Source, color: wp.vec3, near: wp.vec3) -> wp.vec3:
    """A computed colour without what no source pixel can have: values outside of 8 bits, or new negative deep ones.

    Light has no upper end. Below 0 lie only colours outside of the gamut, which the source pixel near it has, too.
    """
    if is_deep(source):
        return wp.max(color, wp.min(near, wp.vec3(0.0, 0.0, 0.0)))
    return wp.vec3(wp.clamp(color[0], 0.0, 255.0), wp.clamp(color[1], 0.0, 255.0), wp.clamp(color[2], 0.0, 255.0))


@wp.func
def hit_depth(key: wp.uint64) -> float:
    """The depth in a key of the depth-and-id buffer."""
    return wp.cast(wp.uint32(key >> wp.uint64(32)), wp.float32)
