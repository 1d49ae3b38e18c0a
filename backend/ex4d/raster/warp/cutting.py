"""Cuts stretched faces off in the occlusion models "thickness" and "open": the test that a fragment must pass.

`drawing.py` and `unsnapped.py` draw a face with a `Cut`, or with a `Whole`, which disappears in compilation: faces that
are not cut pay nothing. `ex4d.mesh.thickness` says how far behind a silhouette space is solid; in the "open" model it
is nowhere. In all models the source pixels at the ends of a stretched face are seen, as the squares that they cover.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.contours import (
    Contour,
    cell_corner,
    cell_weights,
    contour_of,
    is_shown,
    source_axis,
    turned_back,
    weights_of_side,
)
from ex4d.raster.warp.edge_rules import meets_pixel, pixel_centre
from ex4d.raster.warp.projection import (
    GUARD_BAND,
    HALF_PIXEL,
    OPEN,
    SAME_PIXEL,
    SUBPIXEL_BITS,
    SUBPIXELS,
    WATERTIGHT,
    Face,
    Projected,
    Source,
    View,
    camera_direction,
    camera_space,
    on_border,
    source_point,
)

wp.set_module_options({"enable_backward": False})

# Times a source pixel's width: the image shows a source pixel as the square it covers where no contour is known.
SOURCE_PIXEL_REACH = wp.constant(0.5)
# Times half a source pixel, in x or y: a cell shows none of its corners farther away, however it is turned (a cell's
# diagonal and `REACH_BEYOND` on both axes make 3.2).
LARGEST_REACH = wp.constant(3.25)
# Times half a source pixel: corners of a face that are no farther apart, in x and in y, lie as in the source image.
COMPACT = wp.constant(3)


@wp.struct
class Whole:
    """The cut of a face that is drawn to its edges."""

    unused: int


@wp.struct
class Cut:
    """Where a stretched face ends. A fragment counts where the interpolation of `beyond` is not positive.

    Elsewhere, a fragment on the front still counts if a source pixel reaches there: one of the face's corners
    (`reaches`). reach is half of a source pixel, in 1/256 pixel; negative for corners that are no source pixel.
    """

    face: Face
    contour: Contour

    beyond: wp.vec3  # of the corners: source depth less the limit
    inverse_z: wp.vec3
    x: wp.vec3i  # snapped coordinates of the corners
    y: wp.vec3i
    reach_x: wp.vec3i
    reach_y: wp.vec3i


@wp.func
def cut_stretched(source: Source, face: Face, frame: int, projected: Projected, view: View) -> Cut:
    """The cut of a stretched face at its back limit."""
    return cut_at(stretched_back_limit(source, face, frame, view), source, face, frame, projected, view)


@wp.func
def stretched_back_limit(source: Source, face: Face, frame: int, view: View) -> float:
    """The depth where a stretched face ends: the farthest limit of its near vertices, those in its nearer half.

    Infinite without limits; 0, before all of it, in the "open" model.
    """
    limit = wp.float32(wp.inf)
    if view.occlusion == OPEN or view.is_hollow != 0:
        limit = wp.float32(0.0)
    if source.limits.shape[1] > 0 and view.is_hollow == 0:
        depths = corner_depths(source, face, frame)
        middle = 0.5 * (wp.min(depths) + wp.max(depths))
        limit = wp.float32(0.0)
        for k in range(3):
            if depths[k] <= middle:
                here = wp.float32(wp.inf)
                if not on_border(source, face.rows[k], face.columns[k]):
                    here = source.limits[frame, face.rows[k] - 1, face.columns[k] - 1]
                limit = wp.max(limit, here)
    return limit


@wp.func
def corner_depths(source: Source, face: Face, frame: int) -> wp.vec3:
    """Depths of a face's corners along the source camera's z."""
    depths = wp.vec3()
    for k in range(3):
        depths[k] = source.border[frame]
        if not on_border(source, face.rows[k], face.columns[k]):
            depths[k] = source.depth[frame, face.rows[k] - source.ring, face.columns[k] - source.ring]
    return depths


@wp.func
def cut_at(limit: float, source: Source, face: Face, frame: int, projected: Projected, view: View) -> Cut:
    """The cut of a stretched face at a depth."""
    cut = Cut()
    cut.face = face
    cut.contour = contour_of(source, face, frame, view)
    depths = corner_depths(source, face, frame)
    for k in range(3):
        vertex = face.corners[k]
        cut.x[k] = projected.x[frame, vertex]
        cut.y[k] = projected.y[frame, vertex]
        cut.inverse_z[k] = projected.inverse_z[frame, vertex]
        reach = source_pixel_reach(source, face.rows[k], face.columns[k], frame, cut.inverse_z[k], view)
        cut.reach_x[k] = reach[0]
        cut.reach_y[k] = reach[1]
        cut.beyond[k] = depths[k] - limit
    return cut


@wp.func
def source_pixel_reach(source: Source, row: int, column: int, frame: int, inverse_z: float, view: View) -> wp.vec2i:
    """How far from a vertex's projection, in x and y and in 1/256 pixel, a stretched face still shows its source pixel.

    `SOURCE_PIXEL_REACH` times the source pixel's width at its depth, in this view; of one that is rolled, the square's
    box. Negative for the ring's vertices, for those without snapped coordinates, and where the camera sees the square
    from behind.
    """
    reach = wp.vec2i(-1, -1)
    if inverse_z > 0.0 and not on_border(source, row, column) and faces_camera(source, row, column, frame, view):
        scale = SOURCE_PIXEL_REACH * source.depth[frame, row - 1, column - 1] * inverse_z * float(SUBPIXELS)
        across = source_axis(view.cameras[frame], 0)
        down = source_axis(view.cameras[frame], 1)
        wide = source.pixel_angles[frame, 0]
        high = source.pixel_angles[frame, 1]
        x = scale * (wide * wp.abs(across[0]) + high * wp.abs(down[0])) * float(view.intrinsics[frame][0])
        y = scale * (wide * wp.abs(across[1]) + high * wp.abs(down[1])) * float(view.intrinsics[frame][1])
        reach = wp.vec2i(int(wp.min(x, GUARD_BAND)) + SAME_PIXEL, int(wp.min(y, GUARD_BAND)) + SAME_PIXEL)
    return reach


@wp.func
def faces_camera(source: Source, row: int, column: int, frame: int, view: View) -> bool:
    """Whether a source pixel's square, which faces the source camera, faces the new one too."""
    p = source_point(source, frame, row, column)
    q = camera_space(p, view.cameras[frame])
    turned = camera_direction(p, view.cameras[frame])
    return wp.dot(q, turned) > wp.float64(0.0)


@wp.func
def nearest_source_pixel(
    source: Source, face: Face, frame: int, column: int, row: int, projected: Projected, view: View
) -> int:
    """The nearest corner of a stretched face whose source pixel reaches a pixel's centre; -1 if none does."""
    x = (column << SUBPIXEL_BITS) + HALF_PIXEL
    y = (row << SUBPIXEL_BITS) + HALF_PIXEL
    contour = contour_of(source, face, frame, view)
    nearest = wp.int32(-1)
    least = wp.float32(wp.inf)
    for k in range(3):
        vertex = face.corners[k]
        w = projected.inverse_z[frame, vertex]
        reach = source_pixel_reach(source, face.rows[k], face.columns[k], frame, w, view)
        if reach[0] > 0:
            dx = float(x - projected.x[frame, vertex]) / float(reach[0])
            dy = float(y - projected.y[frame, vertex]) / float(reach[1])
            distance = wp.max(wp.abs(dx), wp.abs(dy))
            if distance < least and reaches(contour, face, k, dx, dy):
                least = distance
                nearest = k
    return nearest


@wp.func
def source_pixel_weights(
    source: Source, face: Face, corner: int, frame: int, column: int, row: int, projected: Projected, view: View
) -> wp.vec4:
    """Weights of the cell's corners in the colour of what one of a face's corners, a source pixel, shows at a pixel."""
    vertex = face.corners[corner]
    w = projected.inverse_z[frame, vertex]
    reach = source_pixel_reach(source, face.rows[corner], face.columns[corner], frame, w, view)
    dx = float((column << SUBPIXEL_BITS) + HALF_PIXEL - projected.x[frame, vertex]) / float(reach[0])
    dy = float((row << SUBPIXEL_BITS) + HALF_PIXEL - projected.y[frame, vertex]) / float(reach[1])
    contour = contour_of(source, face, frame, view)
    place = turned_back(contour, dx, dy)
    weights = cell_weights(face, corner, SOURCE_PIXEL_REACH * place[0], SOURCE_PIXEL_REACH * place[1])
    return weights_of_side(contour, cell_corner(face, corner), weights)


@wp.func
def reaches(contour: Contour, face: Face, corner: int, dx: float, dy: float) -> bool:
    """Whether a stretched face's corner, a source pixel, is shown at (dx, dy) halves of its box from its centre.

    As far as the silhouette in its cell; where that is not known, or none of the face's corners is on that side of it,
    as the square that it covers.
    """
    shown = wp.abs(dx) <= 1.0 and wp.abs(dy) <= 1.0
    if contour.known:
        place = turned_back(contour, dx, dy)
        weights = cell_weights(face, corner, SOURCE_PIXEL_REACH * place[0], SOURCE_PIXEL_REACH * place[1])
        shown = is_shown(contour, face, corner, weights, shown)
    return shown


@wp.func
def shown_source_pixel(
    source: Source, face: Face, frame: int, column: int, row: int, projected: Projected, view: View
) -> int:
    """The corner of a stretched face whose source pixel a pixel shows; -1 if it shows none.

    In the "watertight" model, walls that a camera aside sees show only source pixels that a pixel's centre meets, as in
    EX-4D; a face that is no larger than in the source image, as in a zoom, shows its corners' squares there, too.
    """
    own = nearest_source_pixel(source, face, frame, column, row, projected, view)
    if own >= 0 and view.occlusion == WATERTIGHT:
        vertex = face.corners[own]
        x = projected.x[frame, vertex]
        y = projected.y[frame, vertex]
        reach = source_pixel_reach(
            source, face.rows[own], face.columns[own], frame, projected.inverse_z[frame, vertex], view
        )
        is_compact = wp.bool(True)
        for k in range(3):
            corner = face.corners[k]
            dx = wp.abs(projected.x[frame, corner] - x)
            dy = wp.abs(projected.y[frame, corner] - y)
            if projected.inverse_z[frame, corner] <= 0.0 or dx // COMPACT > reach[0] or dy // COMPACT > reach[1]:
                is_compact = False
        x -= pixel_centre(column // view.samples, view)
        y -= pixel_centre(row // view.samples, view)
        if not is_compact and not meets_pixel(x, y, view):
            own = -1
    return own


@wp.func
def survives(cut: Whole, e_a: float, e_b: float, e_c: float, x: int, y: int, front: bool) -> bool:
    """Every fragment of a whole face counts."""
    return True


@wp.func
def survives(cut: Cut, e_a: float, e_b: float, e_c: float, x: int, y: int, front: bool) -> bool:  # noqa: F811 (Warp: overloads)
    """Whether a fragment of a snapped face counts, at x, y in 1/256 pixel.

    Edge functions belong to the corners in clockwise order on the screen, which is not their own order on the back.
    """
    edges = wp.vec3(e_a, e_b, e_c)
    if not front:
        edges = wp.vec3(e_a, e_c, e_b)
    # Perspective-correct up to a positive factor; -inf or NaN for a face of the ring alone, of which nothing is cut.
    counts = not (wp.dot(edges, wp.cw_mul(cut.inverse_z, cut.beyond)) > 0.0)
    if front and not counts:
        for k in range(3):
            if not counts and cut.reach_x[k] > 0:
                dx = float(x - cut.x[k]) / float(cut.reach_x[k])
                dy = float(y - cut.y[k]) / float(cut.reach_y[k])
                counts = reaches(cut.contour, cut.face, k, dx, dy)
    return counts


@wp.func
def survives_unsnapped(cut: Whole, e_a: wp.float64, e_b: wp.float64, e_c: wp.float64, front: bool) -> bool:
    """Every fragment of a whole face counts."""
    return True


@wp.func
def survives_unsnapped(cut: Cut, e_a: wp.float64, e_b: wp.float64, e_c: wp.float64, front: bool) -> bool:  # noqa: F811
    """`survives` by homogeneous edge functions, which carry the depths; no source pixel reaches anywhere."""
    edges = wp.vec3d(e_a, e_b, e_c)
    if not front:
        edges = wp.vec3d(e_a, e_c, e_b)
    beyond = wp.vec3d(wp.float64(cut.beyond[0]), wp.float64(cut.beyond[1]), wp.float64(cut.beyond[2]))
    return not (wp.dot(edges, beyond) > wp.float64(0.0))
