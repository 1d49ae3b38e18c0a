"""Third pass of the `warp` rasterizer with several samples of each pixel: reduces them as it resolves them.

The depth-and-id buffer has n x n samples for each pixel, at the centres of its n x n equal parts, and `View` is that
of the larger image. Colours exist at the final size alone.
"""

from __future__ import annotations

import warp as wp

from ex4d.raster.warp.edge_rules import meets_pixel, pixel_centre
from ex4d.raster.warp.projection import (
    EMPTY,
    STRETCHED,
    Projected,
    Source,
    View,
    mesh_face,
    on_border,
)
from ex4d.raster.warp.resolving import resolve_hit, shown_at, source_color

wp.set_module_options({"enable_backward": False})

# A source pixel is shown at its own size where its width in the new image differs from a pixel's by no more than this.
SAME_SIZE = wp.constant(0.1)


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

    A pixel whose centre meets a source pixel of its own size shows all of that source pixel and nothing else: the
    footage's own camera reproduces the footage byte for byte, as with one sample.

    Colours are averaged in sRGB, in which the footage was coded and is interpolated; that was closer to the true views
    of most scenes than averages in linear light (docs/measured/rendering.md).

    Threads are (frame, row, span of columns) of pixels.
    """
    frame, row, first = wp.tid()
    samples = view.samples
    width = view.width // samples
    for column in range(first * span, wp.min(first * span + span, width)):
        pixel = row * width + column
        sum = wp.vec3(0.0, 0.0, 0.0)
        count = wp.int32(0)
        nearest = float(wp.inf)
        nearest_seen = float(wp.inf)
        for y in range(row * samples, row * samples + samples):
            for x in range(column * samples, column * samples + samples):
                shown = shown_at(frame, y, x, source, projected, view, winners)
                nearest = wp.min(nearest, shown.z)
                if shown.seen:
                    count += 1
                    sum += shown.color
                    nearest_seen = wp.min(nearest_seen, shown.z)
        every = samples * samples
        met = met_source_pixel(frame, row, column, source, projected, view, winners)
        if met.found:
            count = every
            sum = float(every) * met.color
        share = (255 * count + every // 2) // every
        alpha[frame, pixel] = wp.uint8(share)
        mask[frame, pixel] = wp.where(share >= 128, wp.uint8(1), wp.uint8(0))
        for channel in range(3):
            image[frame, pixel, channel] = wp.uint8(int(sum[channel] / float(wp.max(count, 1)) + 0.5))
        if depth.shape[1] > 0:
            if met.found:
                nearest = met.z
            elif share >= 128:
                nearest = nearest_seen
            depth[frame, pixel] = nearest


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
    """The source pixel of a pixel's own size that its centre meets, on the front of a face that a middle sample hit."""
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
                    vertex = face.corners[k]
                    w = projected.inverse_z[frame, vertex]
                    dx = projected.x[frame, vertex] - pixel_centre(column, view)
                    dy = projected.y[frame, vertex] - pixel_centre(row, view)
                    if w > 0.0 and meets_pixel(dx, dy, view) and not on_border(source, face.rows[k], face.columns[k]):
                        z = source.depth[frame, face.rows[k] - source.ring, face.columns[k] - source.ring]
                        size = z * w * source.pixel_angles[frame, 0] * float(view.intrinsics[frame][0])
                        same = wp.abs(size / float(samples) - 1.0) <= SAME_SIZE
                        if same and resolve_hit(face.corners, frame, x, y, source, projected, view).front:
                            met.found = True
                            met.z = 1.0 / w
                            met.color = source_color(source, frame, face.rows[k], face.columns[k])
    return met
