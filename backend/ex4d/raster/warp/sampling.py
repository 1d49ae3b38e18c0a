"""Third pass of the `warp` rasterizer with several samples of each pixel: reduces them as it resolves them.

The depth-and-id buffer has n x n samples for each pixel, in a grid that is turned a little (`edge_rules.slanted`), and
`View` is that of the larger image. Colours exist at the final size alone.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.edge_rules import meets_pixel, pixel_centre, sample_centre, slanted
from ex4d.raster.warp.footprints import Footprint, bilinear, footprint_color, has_one_color, size_of, with_place
from ex4d.raster.warp.projection import (
    EMPTY,
    SAME_PIXEL,
    STRETCHED,
    WATERTIGHT,
    Face,
    Projected,
    Source,
    View,
    camera_space,
    mesh_face,
    on_border,
    source_point,
)
from ex4d.raster.warp.resolving import hit_depth, resolve_hit, shown_at, source_color

wp.set_module_options({"enable_backward": False})

# A source pixel is shown at its own size where its width in the new image differs from a pixel's by no more than this.
SAME_SIZE = wp.constant(0.1)
# The new camera looks along a source pixel's own ray if parallax moves it by no more than this, in pixels.
SAME_RAY = wp.constant(1.0 / 256.0)
# What of a pixel is read in turn: its corners, its other samples, each sample's own colour.
CORNERS, OTHERS, COLORS, DONE = wp.constant(0), wp.constant(1), wp.constant(2), wp.constant(3)
# Faces between the corners of a pixel lie no farther from its middle than its size says, and so many cells more.
CELLS_AROUND = wp.constant(1.5)


@wp.struct
class Met:
    """The source pixel that a pixel shows alone."""

    found: bool
    color: wp.vec3
    z: float  # along the new camera's z


@wp.kernel
def resolve_samples(
    source: Source,
    span: int,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
    image: wp.array3d(dtype=wp.uint8),
    mask: wp.array2d(dtype=wp.uint8),
    depth: wp.array2d(dtype=float),
    alpha: wp.array2d(dtype=wp.uint8),
):
    """Write `RenderedBatch` from the n x n rays of each pixel, and depth where its array is not empty.

    A pixel that looks along a source pixel's own ray, at its own size, shows all of that source pixel and nothing else:
    the footage's own camera reproduces the footage byte for byte, as with one sample. Elsewhere samples say how much of
    a pixel each surface covers; the colour of the faces among them is read once, at their middle (`footprints.py`).

    Colours are averaged in sRGB, in which the footage was coded and is interpolated; that was closer to the true views
    of most scenes than averages in linear light (docs/measured/rendering.md).

    Threads are (frame, row, span of columns) of pixels.
    """
    frame, row, first = wp.tid()
    samples = view.samples
    width = view.width // samples
    every = samples * samples
    for column in range(first * span, wp.min(first * span + span, width)):
        pixel = row * width + column
        sum = wp.vec3(0.0, 0.0, 0.0)
        count = wp.int32(0)
        nearest = float(wp.inf)
        nearest_seen = float(wp.inf)
        footprint = Footprint()
        turn = wp.int32(CORNERS)
        met = met_source_pixel(frame, row, column, source, projected, view, winners)
        if met.found:
            turn = DONE
            count = every
            sum = float(every) * met.color
            nearest_seen = met.z
        # One loop for all turns: with a second call of `shown_at` the compiler would put it into neither.
        while turn < DONE:
            step = wp.int32(1)
            if turn == CORNERS:
                step = samples - 1
            for y in range(0, samples, step):
                for x in range(0, samples, step):
                    is_corner = (x == 0 or x == samples - 1) and (y == 0 or y == samples - 1)
                    if turn == COLORS or is_corner == (turn == CORNERS):
                        key = winners[frame, (row * samples + y) * view.width + column * samples + x]
                        sample_x = sample_centre(column * samples + x) + slanted(y, view)
                        sample_y = sample_centre(row * samples + y) - slanted(x, view)
                        shown = shown_at(key, frame, sample_x, sample_y, source, projected, view)
                        if turn < COLORS:
                            nearest = wp.min(nearest, shown.z)
                            if shown.seen:
                                count += 1
                                sum += shown.color
                                nearest_seen = wp.min(nearest_seen, shown.z)
                            if shown.on_face:
                                footprint = with_place(footprint, shown.place, x, y, samples)
                        elif shown.on_face:
                            sum += bilinear(source, frame, shown.place)
            if turn == CORNERS:
                turn = OTHERS
                if is_one_surface(footprint, frame, row, column, source, view, winners):
                    turn = DONE
                    count = every
                    nearest_seen = nearest_sample(frame, row, column, view, winners)
                    sum = float(every) * footprint_color(source, frame, footprint, samples)
            elif turn == OTHERS and footprint.count > 0 and not has_one_color(footprint, samples):
                turn = COLORS
            else:
                if turn == OTHERS and footprint.count > 0:
                    sum += float(footprint.count) * footprint_color(source, frame, footprint, samples)
                turn = DONE
        share = (255 * count + every // 2) // every
        alpha[frame, pixel] = wp.uint8(share)
        mask[frame, pixel] = wp.where(share >= 128, wp.uint8(1), wp.uint8(0))
        for channel in range(3):
            image[frame, pixel, channel] = wp.uint8(int(sum[channel] / float(wp.max(count, 1)) + 0.5))
        if depth.shape[1] > 0:
            depth[frame, pixel] = wp.where(share >= 128, nearest_seen, nearest)


@wp.func
def is_one_surface(
    footprint: Footprint,
    frame: int,
    row: int,
    column: int,
    source: Source,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
) -> bool:
    """Whether all samples of a pixel meet faces that lie between those of its corners, and none of them is hidden.

    The footprint is that of the corners. In the "watertight" model a face must be looked at to know that it is hidden.
    """
    samples = view.samples
    found = footprint.count == 4 and view.occlusion != WATERTIGHT and has_one_color(footprint, samples)
    if found:
        across = source.columns - 1
        cells = (source.rows - 1) * across
        rows_of_index = 1.0 / float(across)
        middle = footprint.first + footprint.sum / 4.0
        middle_cell = int(wp.floor(middle[1])) * across + int(wp.floor(middle[0]))
        size = size_of(footprint, samples)
        reach_x = int(0.5 * size[0] + CELLS_AROUND)
        reach_y = int(0.5 * size[1] + CELLS_AROUND)
        for y in range(row * samples, row * samples + samples):
            for x in range(column * samples, column * samples + samples):
                key = winners[frame, y * view.width + x]
                index = int(key & wp.uint64(0xFFFFFFFF))
                if key == EMPTY or index >= 2 * cells:  # stretched faces and caps
                    found = False
                elif found:
                    away = wp.where(index >= cells, index - cells, index) - middle_cell
                    rows_away = int(wp.floor(float(away) * rows_of_index + 0.5))
                    columns_away = away - rows_away * across
                    found = wp.abs(rows_away) <= reach_y and wp.abs(columns_away) <= reach_x
    return found


@wp.func
def nearest_sample(frame: int, row: int, column: int, view: View, winners: wp.array2d(dtype=wp.uint64)) -> float:
    """The least depth of a pixel's samples."""
    nearest = float(wp.inf)
    for y in range(row * view.samples, row * view.samples + view.samples):
        for x in range(column * view.samples, column * view.samples + view.samples):
            nearest = wp.min(nearest, hit_depth(winners[frame, y * view.width + x]))
    return nearest


@wp.func
def met_source_pixel(
    frame: int,
    row: int,
    column: int,
    source: Source,
    projected: Projected,
    view: View,
    winners: wp.array2d(dtype=wp.uint64),
) -> Met:
    """The source pixel that a pixel shows alone, on the front of a face that a middle sample hit."""
    met = Met()
    met.found = wp.bool(False)
    samples = view.samples
    low = (samples - 1) // 2
    for y in range(row * samples + low, row * samples + samples - low):
        for x in range(column * samples + low, column * samples + samples - low):
            key = winners[frame, y * view.width + x]
            if key != EMPTY and not met.found:
                index = int(key & wp.uint64(0xFFFFFFFF)) % STRETCHED
                face = mesh_face(index, source.rows, source.columns)
                for k in range(3):
                    # One test after the other: Warp evaluates all of an `and`, and hardly any pixel passes the first.
                    alone = (
                        wp.abs(projected.x[frame, face.corners[k]] - pixel_centre(column, view)) <= samples * SAME_PIXEL
                    )
                    if alone:
                        alone = is_alone(face, k, frame, row, column, source, projected, view)
                    if alone:
                        hit = resolve_hit(
                            face.corners, frame, sample_centre(x), sample_centre(y), source, projected, view
                        )
                        if hit.front:
                            met.found = True
                            met.z = 1.0 / projected.inverse_z[frame, face.corners[k]]
                            met.color = source_color(source, frame, face.rows[k], face.columns[k])
    return met


@wp.func
def is_alone(
    face: Face, k: int, frame: int, row: int, column: int, source: Source, projected: Projected, view: View
) -> bool:
    """Whether a corner of a face is a source pixel of a pixel's own size, on its own ray through the pixel's centre."""
    alone = wp.bool(False)
    w = projected.inverse_z[frame, face.corners[k]]
    dx = projected.x[frame, face.corners[k]] - pixel_centre(column, view)
    dy = projected.y[frame, face.corners[k]] - pixel_centre(row, view)
    if w > 0.0 and meets_pixel(dx, dy, view) and not on_border(source, face.rows[k], face.columns[k]):
        z = source.depth[frame, face.rows[k] - source.ring, face.columns[k] - source.ring]
        size = z * w * source.pixel_angles[frame, 0] * float(view.intrinsics[frame][0]) / float(view.samples)
        alone = wp.abs(size - 1.0) <= SAME_SIZE and on_own_ray(source, frame, face.rows[k], face.columns[k], view)
    return alone


@wp.func
def on_own_ray(source: Source, frame: int, row: int, column: int, view: View) -> bool:
    """Whether a vertex lies in the direction in which the source camera saw it.

    Source pixels that a pixel's centre meets elsewhere would stand out of their neighbours, and flash as it moves on.
    """
    p = camera_space(source_point(source, frame, row, column), view.cameras[frame])
    limit = SAME_RAY * float(view.samples)
    dx = float(view.intrinsics[frame][0] * (p[0] / p[2] - wp.float64(source.ray_x[frame, column])))
    dy = float(view.intrinsics[frame][1] * (p[1] / p[2] - wp.float64(source.ray_y[frame, row])))
    return wp.abs(dx) <= limit and wp.abs(dy) <= limit
