"""Colours of the far side of silhouettes without what the camera mixed into them of the near side.

A camera mixes both sides of a silhouette in the pixels that it crosses, and footage is coded with less colour than
light. What was mixed belongs where the silhouette is in the source image. In a new view the near side has moved away,
and its colour would stand as a thin line on the far side, around the hole.
"""

from __future__ import annotations

import torch

from ex4d.calling_thread import copied
from ex4d.mesh.surface_colors_kernel import unmix_colors
from ex4d.warp_launch import launch_rows


def surface_colors(depth: torch.Tensor, color: torch.Tensor, steps: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Give pixels that are mixed with a much nearer surface the mean colour of their own surface around them.

    Args:
        depth: (T, H, W) float32, along z.
        color: (T, H, W, 3) uint8 sRGB, on depth's device.
        steps: (T, H, W) uint8, `BackLimits.steps`.
        shares: (T, H, W, 2) uint8, of `edge_shares`.

    Returns:
        (T, H, W, 3) uint8 sRGB.
    """
    unmixed = copied(color)
    inputs = (values.contiguous() for values in (depth, color, steps, shares))
    launch_rows(unmix_colors, depth.shape, depth.device, *inputs, unmixed)
    return unmixed
