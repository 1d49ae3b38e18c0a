"""Where inside a pixel a silhouette lies, by the pixel's colour.

Depth says to which side of a silhouette a source pixel belongs, no finer. An enlarged picture would show these pixels
as saw teeth. A camera mixes the colours of both sides in the pixels that a silhouette crosses, so how much of each side
is in a pixel tells where in it the silhouette lies; `ex4d.raster.warp.rims` puts it there.
"""

from __future__ import annotations

import torch

from ex4d.mesh.edge_shares_kernel import measure_shares
from ex4d.warp_launch import launch_rows


def edge_shares(depth: torch.Tensor, color: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Measure how much of each pixel beside a step belongs to the near side.

    With p a pixel on the near side of a step, q its neighbour on the far side, p' the pixel before p and q' the one
    after q on the same line: the share s of the near side in p is that of p' in its colour, by least squares of
    c(p) = s c(p') + (1 - s) c(q'); of q, likewise. The mean counts where a pixel is beside several steps. All of p
    counts as near, and nothing of q, where their colours do not tell: without contrast, or where they are no mixture.

    Args:
        depth: (T, H, W) float32, along z.
        color: (T, H, W, 3) uint8 sRGB, on depth's device.
        steps: (T, H, W) uint8, `BackLimits.steps`.

    Returns:
        (T, H, W, 2) uint8, of 255: the near side's share where the pixel is itself on the near side of a step (at least
        `NEAR_LEAST`), and where it is on the far side (at most `FAR_MOST`).
    """
    shares = torch.empty(*depth.shape, 2, dtype=torch.uint8, device=depth.device)
    inputs = (values.contiguous() for values in (depth, color, steps))
    launch_rows(measure_shares, depth.shape, depth.device, *inputs, shares)
    return shares
