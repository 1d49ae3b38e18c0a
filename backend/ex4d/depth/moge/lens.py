"""Finds the lens and the offset of depth that make a map of points one that a camera sees.

With a focal length f and an offset s, a point (x, y, z) is seen at f (x, y) / (z + s), where its pixel is; both follow
from least squares over some of the pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from ex4d.depth.moge.network import view_plane

_SIDE = 64  # rows and columns of the pixels that are compared
_STEPS, _HALVINGS = 50, 20
_SETTLED = 1e-6  # relative change of the sum of squares


def lens_and_offset(points: torch.Tensor, solid: torch.Tensor, focal: float | None = None) -> tuple[float, float]:
    """The focal length in halves of the image's diagonal, and the offset of depth in the unit of the points.

    Args:
        points: (H, W, 3) in camera space.
        solid: (H, W) bool, where points are compared.
        focal: the focal length, where it is known: only the offset is looked for.

    Returns:
        (1, 0) where fewer than two pixels are solid, and no focal length is known.
    """
    place, across, depth = _sampled(points, solid)
    if len(depth) < 2:
        return (1.0 if focal is None else focal), 0.0

    def seen(offset: float) -> tuple[np.ndarray, float]:
        projected = across / (depth + offset)[:, None]
        best = focal if focal is not None else float((projected * place).sum() / (projected**2).sum())
        return (best * projected - place).ravel(), best

    offset = _least_squares(lambda value: seen(value)[0], float(np.abs(depth).mean()))
    return seen(offset)[1], offset


def _least_squares(residuals: Callable[[float], np.ndarray], size: float) -> float:
    """The value near 0 with the least sum of squares, by Gauss and Newton's steps, halved until they do not overshoot.

    Args:
        residuals: of a value.
        size: in what order of magnitude values change anything: no step is longer than half of it.
    """
    step = 1e-4 * size
    value, found = 0.0, residuals(0.0)
    for _ in range(_STEPS):
        slope = (residuals(value + step) - residuals(value - step)) / (2 * step)
        move = float(np.clip(-(slope @ found) / max(slope @ slope, 1e-30), -size / 2, size / 2))
        before = float(found @ found)
        for _ in range(_HALVINGS):
            trial = residuals(value + move)
            if float(trial @ trial) < before:  # false for what is not finite, too
                break
            move /= 2
        else:
            return value
        value, found = value + move, trial
        if before - float(found @ found) <= _SETTLED * before:
            return value
    return value


def _sampled(points: torch.Tensor, solid: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of some solid pixels: places (N, 2) in the image, (x, y) (N, 2) and z (N,) of their points."""
    rows, columns = solid.shape
    place = view_plane(rows, columns, columns / rows, points.device)
    maps = torch.cat([place, points, solid[..., None].float()], dim=-1).permute(2, 0, 1)[None].float()
    few = F.interpolate(maps, (_SIDE, _SIDE), mode="nearest")[0].permute(1, 2, 0).double().cpu().numpy()
    few = few[few[..., 5] > 0]
    return few[:, :2], few[:, 2:4], few[:, 4]
