"""Several samples of each pixel, for rasterizers that draw one: a render for each place of a sample, and their mean.

`warp/sampling.py` does the same within one render.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from ex4d.raster.frames import RenderedBatch
from ex4d_core.cameras import CameraPath


def render_supersampled(draw: Callable[[CameraPath], RenderedBatch], camera: CameraPath, samples: int) -> RenderedBatch:
    """Draw samples x samples renders, whose pixels' centres are the places of samples, and average them.

    Memory is that of a few renders, however many samples.

    Args:
        draw: renders the camera path with one sample of each pixel.
        camera: of T frames.
        samples: per axis.
    """
    parts = (draw(shifted) for shifted in _shifted(camera, samples))
    one = next(parts)
    count, color = torch.zeros_like(one.mask, dtype=torch.int32), torch.zeros_like(one.color, dtype=torch.int32)
    nearest = nearest_seen = None if one.depth is None else torch.full_like(one.depth, torch.inf)
    while one is not None:
        count += one.mask
        color += one.color * one.mask[..., None]
        if one.depth is not None and nearest is not None and nearest_seen is not None:
            nearest = torch.minimum(nearest, one.depth)
            nearest_seen = torch.minimum(nearest_seen, one.depth.masked_fill(~one.mask, torch.inf))
        one = next(parts, None)
    every = samples**2
    alpha = ((255 * count + every // 2) // every).to(torch.uint8)
    mask = alpha >= 128
    color = (color / count.clamp_min(1)[..., None] + 0.5).to(torch.uint8)
    depth = None if nearest is None or nearest_seen is None else torch.where(mask, nearest_seen, nearest)
    return RenderedBatch(color, mask, depth, alpha)


def _shifted(camera: CameraPath, samples: int) -> Iterator[CameraPath]:
    """The path with each sample's place in a pixel moved to the pixel's centre; see `warp.edge_rules.slanted`."""
    places = (np.arange(samples) + 0.5) / samples - 0.5
    for y in places:
        for x in places:
            intrinsics = camera.intrinsics.copy()
            intrinsics[:, :2, 2] -= (x + y / samples, y - x / samples)
            yield replace(camera, intrinsics=intrinsics)
