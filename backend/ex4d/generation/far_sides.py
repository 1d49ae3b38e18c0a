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
from torch.nn.functional import interpolate, max_pool2d, pad

from ex4d.warp_start import start_warp

wp.set_module_options({"enable_backward": False})

# Rims are searched in cells of so many pixels: a sixteenth of the work, and holes narrower than that are filled from
# both sides alike.
_CELL = 4
# How far from a hole nearer surfaces are left out, as a share of the image's longer side.
_REACH = 0.05
# Disparity above that of the far rim, by its logarithm, up to which a surface counts, and from which it does not.
_SAME_SURFACE, _NEARER_SURFACE = 0.1, 0.4
# Weight of a nearer surface, for holes that have no other around.
_LEAST_WEIGHT = 0.003
_NOTHING = 1e9


@wp.func
def along(row: int, column: int, epipole: wp.vec3) -> wp.vec2:
    """The direction of the line through the epipole and a cell's middle, of one cell a step; 0 at the epipole."""
    x = (float(column) + 0.5) * epipole[2] - epipole[0]
    y = (float(row) + 0.5) * epipole[2] - epipole[1]
    largest = wp.max(wp.abs(x), wp.abs(y))
    step = wp.vec2(0.0, 0.0)
    if largest > 0.0:
        step = wp.vec2(x / largest, y / largest)
    return step


@wp.kernel
def find_far_rims(
    seen: wp.array2d(dtype=wp.uint8), disparity: wp.array2d(dtype=float), epipole: wp.vec3, far: wp.array2d(dtype=float)
):
    """The smaller disparity of the two rims of a hole on a cell's line; `_NOTHING` where the cell is seen."""
    row, column = wp.tid()
    least = wp.float32(_NOTHING)
    step = along(row, column, epipole)
    if seen[row, column] == wp.uint8(0) and wp.length_sq(step) > 0.0:
        for side in range(2):
            direction = step * (1.0 - 2.0 * float(side))
            x = float(column) + 0.5 + direction[0]
            y = float(row) + 0.5 + direction[1]
            searching = wp.bool(True)
            while searching:
                searching = x >= 0.0 and y >= 0.0 and x < float(seen.shape[1]) and y < float(seen.shape[0])
                if searching:
                    if seen[int(y), int(x)] != wp.uint8(0):
                        least = wp.min(least, disparity[int(y), int(x)])
                        searching = False
                x += direction[0]
                y += direction[1]
    far[row, column] = least


@wp.kernel
def spread_along(far: wp.array2d(dtype=float), epipole: wp.vec3, reach: int, limit: wp.array2d(dtype=float)):
    """The least value within ``reach`` cells on a cell's line."""
    row, column = wp.tid()
    least = far[row, column]
    step = along(row, column, epipole)
    for k in range(-reach, reach + 1):
        x = wp.floor(float(column) + 0.5 + step[0] * float(k))
        y = wp.floor(float(row) + 0.5 + step[1] * float(k))
        if x >= 0.0 and y >= 0.0 and x < float(far.shape[1]) and y < float(far.shape[0]):
            least = wp.min(least, far[int(y), int(x)])
    limit[row, column] = least


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
    disparity = torch.where(mask, depth.reciprocal(), _NOTHING)
    cells = -max_pool2d(pad(-disparity[None], margin, value=-_NOTHING), _CELL)[0]
    limit = _limits(
        cells, np.asarray(source_centre) / (_CELL, _CELL, 1), max(1, round(_REACH * max(height, width) / _CELL))
    )
    limit = interpolate(limit[None, None], scale_factor=_CELL, mode="nearest")[0, 0, :height, :width]
    nearer = (disparity / limit).log_().sub_(_SAME_SURFACE).div_(_NEARER_SURFACE - _SAME_SURFACE)
    return (1 - nearer).clamp_(_LEAST_WEIGHT, 1)


def _limits(cells: torch.Tensor, epipole: np.ndarray, reach: int) -> torch.Tensor:
    """Disparity of the far rims near each cell, of (h, w) disparity that is `_NOTHING` in holes."""
    start_warp()
    device = wp.device_from_torch(cells.device)
    stream = wp.stream_from_torch(torch.cuda.current_stream(cells.device)) if device.is_cuda else None
    cells = cells.contiguous()
    seen = (cells < _NOTHING).to(torch.uint8)
    far, limit = torch.empty_like(cells), torch.empty_like(cells)
    shape, point = tuple(cells.shape), wp.vec3(*(epipole / max(np.abs(epipole).max(), 1e-12)))
    arrays = [wp.from_torch(one) for one in (seen, cells, far, limit)]
    wp.launch(find_far_rims, shape, [*arrays[:2], point, arrays[2]], device=device, stream=stream)
    wp.launch(spread_along, shape, [arrays[2], point, reach, arrays[3]], device=device, stream=stream)
    return limit
