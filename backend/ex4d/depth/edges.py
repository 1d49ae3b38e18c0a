"""Refines blurred depth edges along the image's: a pixel between two surfaces joins one of them.

Models that see an image at a bounded size blur silhouettes, and a mesh draws such a blur as stretched faces from the
near surface to the far one. Here each pixel on such a slope is given the depth of the nearer or the farther surface,
by where it lies on the slope and by which of them it resembles in colour. The same step upsamples depth of a smaller
size to the image's own.
"""

from __future__ import annotations

from math import ceil, log2

import numpy as np
import torch
import torch.nn.functional as F

from ex4d.depth.depth_settings import EdgeSettings


def refined_depth(
    depth: torch.Tensor, image: np.ndarray, settings: EdgeSettings | None, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Depth of a model's size at the image's size, its edges where the image's are.

    Args:
        depth: (h, w) float32 along z, above 0.
        image: (H, W, 3) uint8.
        settings: None leaves edges as smooth as they are.

    Returns:
        (H, W) float32, within the range of `depth`.
    """
    size = image.shape[:2]
    disparity = 1 / depth.to(device)
    bounds = disparity.min(), disparity.max()
    factor = max(size[0] / depth.shape[0], size[1] / depth.shape[1], 1.0)
    if depth.shape != size:
        shrinks = size[0] < depth.shape[0] or size[1] < depth.shape[1]
        # In disparity, in which models are smooth, so that a far side of any depth does not eat into the near one.
        disparity = F.interpolate(disparity[None, None], size, mode="bilinear", antialias=shrinks)[0, 0]
    if settings is not None:
        colour = torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255
        disparity = _snapped(disparity, colour, settings, factor)
    return (1 / disparity.clamp(*bounds)).cpu().numpy()


def _snapped(disparity: torch.Tensor, colour: torch.Tensor, settings: EdgeSettings, factor: float) -> torch.Tensor:
    """Every pixel climbs its slope and descends it; where both ends are surfaces, it takes the value of one of them.

    Args:
        disparity: (H, W).
        colour: (3, H, W).
        settings: what counts as an edge.
        factor: how much larger the image is than the model's map.
    """
    height, width = disparity.shape
    log = disparity.log()
    itself = torch.arange(height * width, device=log.device).view(height, width)
    high, above = F.max_pool2d(log[None, None], 3, stride=1, padding=1, return_indices=True)
    low, below = F.max_pool2d(-log[None, None], 3, stride=1, padding=1, return_indices=True)
    on_slope = (high + low)[0, 0] > 2 * settings.slope / factor
    # Each doubling goes twice as far; pixels of a surface, and tops and feet, stay where they are.
    above, below = (torch.where(on_slope, step[0, 0], itself).flatten() for step in (above, below))
    for _ in range(ceil(log2(settings.reach * factor))):
        above, below = above[above], below[below]
    # The tops of thin things are slopes on all sides, but there is nowhere further to climb.
    ends = ~on_slope.flatten() | _is_extreme(log, high, low)
    flat = disparity.flatten()
    place = torch.nonzero(on_slope.flatten() & ends[above] & ends[below])[:, 0]
    near, far, own = above[place], below[place], flat[place]
    is_edge = flat[near] > settings.step * flat[far]
    place, near, far, own = place[is_edge], near[is_edge], far[is_edge], own[is_edge]
    if len(place) == 0:
        return disparity
    votes = 2 * (own - (flat[near] + flat[far]) / 2) / (flat[near] - flat[far])
    if settings.colour_weight:
        smooth = F.avg_pool2d(colour, 3, stride=1, padding=1, count_include_pad=False).flatten(1)
        mine = colour.flatten(1)[:, place]
        unlike_near, unlike_far = ((smooth[:, end] - mine).square().sum(dim=0) for end in (near, far))
        votes += settings.colour_weight * torch.tanh((unlike_far - unlike_near) / settings.colour**2)
    snapped = flat.clone()
    snapped[place] = torch.where(votes > 0, flat[near], flat[far])
    return snapped.view(height, width)


def _is_extreme(log: torch.Tensor, high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """(H W) bool: no neighbour is nearer, or none farther."""
    return ((log >= high[0, 0]) | (-log >= low[0, 0])).flatten()
