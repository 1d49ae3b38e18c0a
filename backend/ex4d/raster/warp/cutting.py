"""Cuts stretched faces in the "open" occlusion model to the source pixels at their ends: the test of each fragment.

`drawing.py` and `unsnapped.py` draw a face with a `Cut`, or with a `Whole`, which disappears in compilation: faces that
are not cut pay nothing. In the "watertight" model walls are whole, and show the same source pixels where a pixel's
centre meets them. The "thickness" model splits stretched faces instead (`rims.py`).
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.contours import (
    Contour,
    cell_weights,
    contour_of,
    is_shown,
    source_axis,
    turned_back,
)
from ex4d.raster.warp.edge_rules import meets_pixel, pixel_centre
from ex4d.raster.warp.projection import (
    GUARD_BAND,
    SAME_PIXEL,
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
# No source pixel reaches farther in its cell, in halves of the box around its square, rolled or not (`cell_weights`).
FARTHEST_REACH = wp.constant(3.2)
# Times half a source pixel: corners of a face that are no farther apart, in x and in y, lie as in the source image.
COMPACT = wp.constant(3)


@wp.struct
class Whole:
    """The cut of a face that is drawn to its edges."""

    unused: int


@wp.struct
class Cut:
    """What a stretched face shows: a fragment on the front counts if a source pixel, one of its corners, `reaches` it.

    reach is half of a source pixel, in 1/256 pixel; negative for corners that are no source pixel.
    """

    face: Face
    contour: Contour
    x: wp.vec3i  # snapped coordinates of the corners
    y: wp.vec3i
    reach_x: wp.vec3i
    reach_y: wp.vec3i


@wp.func
def cut_stretched(source: Source, face: Face, frame: int, projected: Projected, view: View) -> Cut:
    """The cut of a stretched face in the "open" model."""
    cut = Cut()
    cut.face = face
    cut.contour = contour_of(source, face, frame, view)
    for k in range(3):
        vertex = face.corners[k]
        cut.x[k] = projected.x[frame, vertex]
        cut.y[k] = projected.y[frame, vertex]
        inverse_z = projected.inverse_z[frame, vertex]
        reach = source_pixel_reach(source, face.rows[k], face.columns[k], frame, inverse_z, view)
        cut.reach_x[k] = reach[0]
        cut.reach_y[k] = reach[1]
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
    source: Source, face: Face, frame: int, x: int, y: int, projected: Projected, view: View
) -> int:
    """The nearest corner of a stretched face whose source pixel reaches (x, y), in 1/256 pixel; -1 if none does."""
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
def shown_source_pixel(source: Source, face: Face, frame: int, x: int, y: int, projected: Projected, view: View) -> int:
    """The corner of a stretched face whose source pixel shows at (x, y), in 1/256 pixel; -1 if none does.

    In the "watertight" model, walls that a camera aside sees show only source pixels that a pixel's centre meets, as in
    EX-4D; a face that is no larger than in the source image, as in a zoom, shows its corners' squares there, too.
    """
    own = nearest_source_pixel(source, face, frame, x, y, projected, view)
    if own >= 0 and view.occlusion == WATERTIGHT:
        vertex = face.corners[own]
        own_x = projected.x[frame, vertex]
        own_y = projected.y[frame, vertex]
        reach = source_pixel_reach(
            source, face.rows[own], face.columns[own], frame, projected.inverse_z[frame, vertex], view
        )
        is_compact = wp.bool(True)
        for k in range(3):
            corner = face.corners[k]
            dx = wp.abs(projected.x[frame, corner] - own_x)
            dy = wp.abs(projected.y[frame, corner] - own_y)
            if projected.inverse_z[frame, corner] <= 0.0 or dx // COMPACT > reach[0] or dy // COMPACT > reach[1]:
                is_compact = False
        dx = own_x - pixel_centre(x // (view.samples * SUBPIXELS), view)
        dy = own_y - pixel_centre(y // (view.samples * SUBPIXELS), view)
        if not is_compact and not meets_pixel(dx, dy, view):
            own = -1
    return own


@wp.func
def survives(cut: Whole, x: int, y: int, front: bool) -> bool:
    """Every fragment of a whole face counts."""
    return True


@wp.func
def survives(cut: Cut, x: int, y: int, front: bool) -> bool:  # noqa: F811 (Warp: overloads)
    """Whether a fragment of a snapped face counts, at x, y in 1/256 pixel: on the front, where a corner reaches."""
    counts = wp.bool(False)
    if front:
        for k in range(3):
            if not counts and cut.reach_x[k] > 0:
                dx = float(x - cut.x[k]) / float(cut.reach_x[k])
                dy = float(y - cut.y[k]) / float(cut.reach_y[k])
                if wp.max(wp.abs(dx), wp.abs(dy)) <= FARTHEST_REACH:
                    counts = reaches(cut.contour, cut.face, k, dx, dy)
    return counts


@wp.func
def survives_unsnapped(cut: Whole) -> bool:
    """Every fragment of a whole face counts."""
    return True


@wp.func
def survives_unsnapped(cut: Cut) -> bool:  # noqa: F811
    """Without snapped coordinates no source pixel reaches anywhere."""
    return False
