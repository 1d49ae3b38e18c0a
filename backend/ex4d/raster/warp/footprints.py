"""The part of the source image that a pixel with several samples shows, and its colour.

Samples say how much of a pixel a surface covers. Its colour needs no more places than it has source pixels: one where
it is as large as in the source image or larger, by a cubic spline, which is as sharp wherever between source pixels it
is read. Means of several linearly interpolated colours are not: they blur most half-way, so that texture would breathe
as a camera moves.
"""

from __future__ import annotations

import warp as wp

from ex4d.mesh.edge_shares_kernel import inside, is_step
from ex4d.raster.warp.projection import Source
from ex4d.raster.warp.resolving import is_deep, source_color, surface_color, within_range

wp.set_module_options({"enable_backward": False})

# Up to so many source pixels wide or high a pixel is read at one place; from so many on at several; between, both.
ONE_PLACE = wp.constant(1.1)
SEVERAL_PLACES = wp.constant(1.6)
# Larger ones are read at each sample, which finds what is small on them.
EACH_SAMPLE = wp.constant(1.7)
# How far its samples may lie, root mean square, from a parallelogram in the source image, in source pixels; and from
# their mean, where only some of them meet the surface.
BENT = wp.constant(0.1)
SPREAD = wp.constant(0.4)


@wp.struct
class Footprint:
    """Sums over those samples of a pixel that meet faces which are not hidden.

    Places are (x, y) in the grid of vertices, each less the first. Columns and rows are counted from a pixel's middle.
    """

    count: int
    corners: int  # how many of them are the pixel's corners
    first: wp.vec2
    sum: wp.vec2  # of places
    across: wp.vec2  # of places times the sample's column
    down: wp.vec2  # of places times the sample's row
    squares: float  # of places' lengths


@wp.func
def with_place(footprint: Footprint, place: wp.vec2, x: int, y: int, samples: int) -> Footprint:
    """A footprint with one more sample, of column x and row y in the pixel, counted from its corner."""
    if footprint.count == 0:
        footprint.first = place
    own = place - footprint.first
    middle = 0.5 * float(samples - 1)
    footprint.count += 1
    if (x == 0 or x == samples - 1) and (y == 0 or y == samples - 1):
        footprint.corners += 1
    footprint.sum += own
    footprint.across += (float(x) - middle) * own
    footprint.down += (float(y) - middle) * own
    footprint.squares += wp.length_sq(own)
    return footprint


@wp.func
def is_whole(footprint: Footprint, samples: int) -> bool:
    """Whether it has all samples of the pixel, or its four corners, which are read first."""
    return footprint.corners == 4 and (footprint.count == 4 or footprint.count == samples * samples)


@wp.func
def moment(footprint: Footprint, samples: int) -> float:
    """The sum of the samples' squared columns, which is also that of their rows: of a whole footprint."""
    square = float(samples * samples)
    sum = square * (square - 1.0) / 12.0
    if footprint.count == 4:
        sum = float((samples - 1) * (samples - 1))
    return sum


@wp.func
def size_of(footprint: Footprint, samples: int) -> wp.vec2:
    """The width and height of a whole footprint, in source pixels."""
    slant = 1.0 / float(samples)  # of the grid of samples: `edge_rules.slanted`
    across = footprint.across + slant * footprint.down
    down = footprint.down - slant * footprint.across
    return (wp.abs(across) + wp.abs(down)) * float(samples) / (moment(footprint, samples) * (1.0 + slant * slant))


@wp.func
def has_one_color(footprint: Footprint, samples: int) -> bool:
    """Whether `footprint_color` tells its colour: it is a parallelogram, or a small part of a pixel."""
    rest = footprint.squares - wp.length_sq(footprint.sum) / float(footprint.count)
    limit = wp.float32(SPREAD)
    small = wp.bool(True)
    if is_whole(footprint, samples):
        rest -= (wp.length_sq(footprint.across) + wp.length_sq(footprint.down)) / moment(footprint, samples)
        limit = wp.float32(BENT)
        small = wp.max(size_of(footprint, samples)) <= EACH_SAMPLE
    return small and rest <= limit * limit * float(footprint.count)


@wp.func
def footprint_color(source: Source, frame: int, footprint: Footprint, samples: int) -> wp.vec3:
    """The colour of a footprint that has one."""
    middle = footprint.first + footprint.sum / float(footprint.count)
    several = wp.float32(0.0)
    size = wp.vec2(0.0, 0.0)
    if is_whole(footprint, samples):
        size = size_of(footprint, samples)
        several = wp.clamp((wp.max(size) - ONE_PLACE) / (SEVERAL_PLACES - ONE_PLACE), 0.0, 1.0)
    color = wp.vec3(0.0, 0.0, 0.0)
    if several < 1.0:
        color += (1.0 - several) * cubic(source, frame, middle)
    if several > 0.0:
        # As many places as it has source pixels, but no more than samples.
        places = wp.min(samples, int(wp.ceil(wp.max(size))))
        step = float(samples) / (float(places) * moment(footprint, samples))
        reach = step * wp.vec2(reach_of(size[0]), reach_of(size[1]))
        sum = wp.vec3(0.0, 0.0, 0.0)
        for y in range(places):
            for x in range(places):
                right = float(x) - 0.5 * float(places - 1)
                below = float(y) - 0.5 * float(places - 1)
                sum += bilinear(
                    source, frame, middle + wp.cw_mul(reach, right * footprint.across + below * footprint.down)
                )
        color += several / float(places * places) * sum
    return color


@wp.func
def reach_of(size: float) -> float:
    """How much of a width of source pixels is read: a source pixel is a mean over its own width, whose variance counts.

    The variance of places over a width w is w^2 / 12, and variances add up.
    """
    return wp.sqrt(1.0 - 1.0 / wp.max(size * size, 1.0))


@wp.func
def bilinear(source: Source, frame: int, place: wp.vec2) -> wp.vec3:
    """Colour at a place in the grid of vertices, linear between the four around it, or those on its surface."""
    column = int(wp.floor(place[0]))
    row = int(wp.floor(place[1]))
    x = place[0] - float(column)
    y = place[1] - float(row)
    if is_beside_step(source, frame, row, column, 0):
        return weighted(source, frame, place, wp.vec4(0.0, 1.0 - x, x, 0.0), wp.vec4(0.0, 1.0 - y, y, 0.0))
    above = (1.0 - x) * surface_color(source, frame, row, column) + x * surface_color(source, frame, row, column + 1)
    row += 1
    below = (1.0 - x) * surface_color(source, frame, row, column) + x * surface_color(source, frame, row, column + 1)
    return (1.0 - y) * above + y * below


@wp.func
def cubic(source: Source, frame: int, place: wp.vec2) -> wp.vec3:
    """Colour at a place in the grid of vertices, by Catmull-Rom splines through the sixteen around it.

    Or, as of `bilinear`, through those on its surface.
    """
    column = int(wp.floor(place[0]))
    row = int(wp.floor(place[1]))
    across = spline_weights(place[0] - float(column))
    down = spline_weights(place[1] - float(row))
    if is_beside_step(source, frame, row, column, 1):
        return weighted(source, frame, place, across, down)
    color = wp.vec3(0.0, 0.0, 0.0)
    for k in range(4):
        line = wp.vec3(0.0, 0.0, 0.0)
        for j in range(4):
            line += across[j] * surface_color(source, frame, row + k - 1, column + j - 1)
        color += down[k] * line
    if is_deep(source):
        color = without_ringing(source, frame, row, column, color)
        return color
    return wp.vec3(wp.clamp(color[0], 0.0, 255.0), wp.clamp(color[1], 0.0, 255.0), wp.clamp(color[2], 0.0, 255.0))


@wp.func
def without_ringing(source: Source, frame: int, row: int, column: int, color: wp.vec3) -> wp.vec3:
    """A deep colour within those of the four source pixels around it: splines ring darkly beside bright light."""
    a = source_color(source, frame, row, column)
    b = source_color(source, frame, row, column + 1)
    c = source_color(source, frame, row + 1, column)
    d = source_color(source, frame, row + 1, column + 1)
    return wp.max(wp.min(color, wp.max(wp.max(a, b), wp.max(c, d))), wp.min(wp.min(a, b), wp.min(c, d)))


@wp.func
def weighted(source: Source, frame: int, place: wp.vec2, across: wp.vec4, down: wp.vec4) -> wp.vec3:
    """Weighted sum of the colours of the four columns and four rows around a place, each by `color_near`."""
    color = wp.vec3(0.0, 0.0, 0.0)
    side = wp.int32(4)  # a variable, or Warp would write the loops out, which slows down all pixels
    for k in range(side):
        for j in range(side):
            weight = across[j] * down[k]
            if weight != 0.0:
                color += weight * color_near(source, frame, place, k - 1, j - 1)
    if is_deep(source):
        near = source_color(source, frame, int(wp.floor(place[1] + 0.5)), int(wp.floor(place[0] + 0.5)))
        return within_range(source, color, near)
    return wp.vec3(wp.clamp(color[0], 0.0, 255.0), wp.clamp(color[1], 0.0, 255.0), wp.clamp(color[2], 0.0, 255.0))


@wp.func
def is_beside_step(source: Source, frame: int, row: int, column: int, around: int) -> bool:
    """Whether the surface ends between the corners of a cell, or so many pixels around it; not known without steps."""
    found = wp.int32(0)
    if source.steps.shape[1] > 0:
        top = wp.max(row - source.ring - around, 0)
        bottom = wp.min(row - source.ring + around + 1, source.steps.shape[1] - 1)
        left = wp.max(column - source.ring - around, 0)
        right = wp.min(column - source.ring + around + 1, source.steps.shape[2] - 1)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                found += int(source.steps[frame, y, x])
    return found > 0


@wp.func
def color_near(source: Source, frame: int, place: wp.vec2, down: int, right: int) -> wp.vec3:
    """Colour of the vertex some rows and columns from the first one of a place's cell.

    In the "thickness" model, whose faces span no step, beyond a step on the way there from the place's nearest pixel
    the surface goes on as it ended: a silhouette's pixels are often mixed with what is behind them, and without the
    change up to there interpolated colours would be duller than the truth.
    """
    row = int(wp.floor(place[1] + 0.5))
    column = int(wp.floor(place[0] + 0.5))
    rows = int(wp.floor(place[1])) + down - row
    columns = int(wp.floor(place[0])) + right - column
    rows_on_surface = reach_on_surface(source, frame, row, column, rows, 0)
    row += rows_on_surface
    columns_on_surface = reach_on_surface(source, frame, row, column, 0, columns)
    column += columns_on_surface
    color = surface_color(source, frame, row, column)
    if columns_on_surface != columns:
        back = wp.clamp(columns_on_surface - columns, -1, 1)
        if reach_on_surface(source, frame, row, column, 0, back) != 0:
            color += color - surface_color(source, frame, row, column + back)
    if rows_on_surface != rows:
        back = wp.clamp(rows_on_surface - rows, -1, 1)
        if reach_on_surface(source, frame, row, column, back, 0) != 0:
            color += surface_color(source, frame, row, column) - surface_color(source, frame, row + back, column)
    return color


@wp.func
def reach_on_surface(source: Source, frame: int, row: int, column: int, down: int, right: int) -> int:
    """How far of so many rows, or columns, from a vertex the surface goes on; one of the two is 0, both may be < 0."""
    rows = wp.clamp(down, -1, 1)
    columns = wp.clamp(right, -1, 1)
    reach = wp.int32(0)
    goes_on = wp.bool(True)
    for k in range(wp.abs(down + right)):
        if source.steps.shape[1] > 0:
            y = row - source.ring + k * rows
            x = column - source.ring + k * columns
            # The ring repeats the outermost pixels.
            if inside(source.steps, y, x) and inside(source.steps, y + rows, x + columns):
                goes_on = goes_on and not is_step(source.steps, frame, y, x, rows, columns)
        if goes_on:
            reach += 1
    return reach * (rows + columns)


@wp.func
def spline_weights(t: float) -> wp.vec4:
    """Weights of the values at -1, 0, 1 and 2 in a Catmull-Rom spline at t, 0 to 1."""
    return wp.vec4(
        t * (-0.5 + t * (1.0 - 0.5 * t)),
        1.0 + t * t * (1.5 * t - 2.5),
        t * (0.5 + t * (2.0 - 1.5 * t)),
        0.5 * t * t * (t - 1.0),
    )
