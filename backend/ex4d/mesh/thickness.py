"""Back limits of the "thickness" occlusion model: how deep the unseen space behind a silhouette counts as solid.

The `warp` rasterizer ends the solid behind silhouettes at these limits, or before, by the camera (`rims.py` there). In
the watertight mesh a stretched face reaches from the silhouette of a near surface to the surface behind it, however
far, as if every object's shadow were solid to the horizon. Here it ends at a plausible depth, and a ray that passes
beyond it reaches the surface behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ex4d.mesh.thickness_kernel import measure_silhouettes
from ex4d.warp_launch import launch_rows
from ex4d_core.thickness_rule import THICKNESS_RATIO, WIDEST_SHARE


@dataclass(frozen=True)
class BackLimits:
    """The result of `back_limits`, on the depth's device.

    Attributes:
        limits: (T, H, W) float32, depth along the source camera's z up to which the space behind a pixel counts as
            solid: depth + thickness at silhouettes (on their near side), the pixel's own depth elsewhere.
        steps: (T, H, W) uint8, `STEP_TO_RIGHT` is set where the surface ends between a pixel and its right neighbour,
            `STEP_TO_BELOW` between it and the one below (bits of `thickness_kernel.py`).
    """

    limits: torch.Tensor
    steps: torch.Tensor


def pixel_angles(intrinsics: torch.Tensor) -> torch.Tensor:
    """(T, 2) float32 of (T, 3, 3) intrinsics, 1/fx and 1/fy: a pixel's width and height at depth 1."""
    return (1.0 / intrinsics[:, [0, 1], [0, 1]].double()).float().contiguous()


def back_limits(depth: torch.Tensor, angles: torch.Tensor) -> BackLimits:
    """Measure how wide the object at each silhouette pixel is, and take a share of that as its thickness.

    With p a pixel, q its neighbour in one of the four directions, p' the pixel before p and q' the one after q on the
    same line, and w = z_p / f the width of a pixel at p:

    - Step: p is a silhouette pixel in that direction if g = z_q - z_p is more than 3 w and more than 1 % of z_p, and
      also either more than 3 max(z_p - z_p', z_q' - z_q), which keeps slanted surfaces whole, since there the steps
      before or after are like this one; or more than 22.9 w, where EX-4D's angle rule calls any face stretched, unless
      it continues a plane (`plane_kernel.py`). The image's edge counts as a step too, for the border walls (but sets no
      bit in `steps`).
    - Width: walk from p away from q, n = 1, 2, ... pixels, while the depth there is at most z_p + 3 n w. So the walk
      crosses the object and anything in front of it, and ends at its opposite silhouette. Where the surface recedes
      steeply from its near edge it ends at once. It ends after a quarter of the image's longer side at the latest.
    - Limit: z_p + n w / 2, with the least n of p's silhouette directions, so that a thin slanted pole is thin.

    Widths are across the line of sight at the silhouette itself, so they scale with the scene and with the resolution;
    nothing depends on the unit of depth.

    Args:
        depth: (T, H, W) float32, along z, scene units, finite and positive.
        angles: (T, 2), `pixel_angles` of the source camera, on depth's device.
    """
    depth = depth.contiguous()
    widest = max(1, round(WIDEST_SHARE * max(depth.shape[1:])))
    limits, steps = torch.empty_like(depth), torch.empty(depth.shape, dtype=torch.uint8, device=depth.device)
    settings = angles, widest, THICKNESS_RATIO
    launch_rows(measure_silhouettes, depth.shape, depth.device, depth, *settings, limits, steps)
    return BackLimits(limits, steps)
