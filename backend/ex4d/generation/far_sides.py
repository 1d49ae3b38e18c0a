"""Which surfaces may colour a hole: those at its far side, not the near one that the moving camera slid along.

A camera that moves slides near surfaces along far ones, on lines through the *epipole*, the image of the source
camera's centre. So the two rims of a hole on such a line are the surface that hid it and the surface that it belongs
to; the farther one tells what the hole shows. Nearer surfaces within a short way of it get hardly any weight.

Across these lines nothing is compared, since nothing slid there: the sky above a facade says nothing about the part
of the facade that the footage did not show.
"""

from __future__ import annotations

import numpy as np
import torch
import warp as wp
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pad

from ex4d.generation.far_side_kernels import find_far_rims, spread_along
from ex4d.warp_launch import launch

# Rims are searched in cells of so many pixels: a sixteenth of the work, and holes narrower than that are filled from
# both sides alike.
_CELL = 4
# A cell counts as seen if this share of it is: specks in a hole are no rim.
_MOSTLY = 0.5
# How far from a hole nearer surfaces are left out, as a share of the image's longer side.
_REACH = 0.1
# Share of the far rim's depth from which on a surface counts, and up to which it does not.
_SAME_SURFACE, _NEARER_SURFACE = 0.95, 0.8
# Weight of a nearer surface, for holes that have no other around.
_LEAST_WEIGHT = 0.003


def far_side_weights(mask: torch.Tensor, depth: torch.Tensor, source_centre: np.ndarray) -> torch.Tensor:
    """How much each pixel may say about the holes beside it.

    Args:
        mask: (H, W) bool, true = seen.
        depth: (H, W) float32 along z.
        source_centre: (3,), the source camera's centre in this image; see `RenderedFrame.source_centre`.

    Returns:
        (H, W) float32 on the mask's device: 1, or less for surfaces that are nearer than the far side of a hole.
    """
    height, width = mask.shape
    margin = (0, -width % _CELL, 0, -height % _CELL)
    seen = torch.where(mask, depth, 0.0)
    mostly_seen = avg_pool2d(pad(mask[None].float(), margin), _CELL)[0] >= _MOSTLY
    cells = max_pool2d(pad(seen[None], margin), _CELL)[0] * mostly_seen
    reach = max(1, round(_REACH * max(height, width) / _CELL))
    limit = _far_depth(cells, np.asarray(source_centre) / (_CELL, _CELL, 1), reach)
    # Of each pixel's depth the share of the far rim's, where there is one.
    limit = torch.where(limit > 0, 1 / limit, torch.inf)
    limit = interpolate(limit[None, None], scale_factor=_CELL, mode="nearest")[0, 0, :height, :width]
    share = limit * seen.clamp_min_(1e-30)
    return share.sub_(_NEARER_SURFACE).div_(_SAME_SURFACE - _NEARER_SURFACE).clamp_(_LEAST_WEIGHT, 1)


def _far_depth(cells: torch.Tensor, epipole: np.ndarray, reach: int) -> torch.Tensor:
    """Depth of the far rim of the holes near each cell, 0 where none is near; of (h, w) depth that is 0 in holes."""
    far, spread = torch.empty_like(cells), torch.empty_like(cells)
    point = wp.vec3(*(epipole / max(np.abs(epipole).max(), 1e-12)))
    shape = (cells.shape[0], cells.shape[1])
    launch(find_far_rims, shape, cells.device, cells.contiguous(), point, far)
    launch(spread_along, shape, cells.device, far, point, reach, spread)
    return spread
