"""Edges that do not crawl: colour and mask drawn larger and averaged, with what any rasterizer gives.

Off unless asked for: a mask that is either seen or unseen is what the models were trained with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster.rasterizer import Rasterizer


@dataclass(frozen=True)
class SoftFrames:
    """Frames with soft edges, on the rasterizer's device.

    Attributes:
        color: (T, H, W, 3) uint8, sRGB, the mean of what is seen of a pixel, not multiplied by alpha.
        alpha: (T, H, W) uint8, 255 times the share of a pixel that is seen.
    """

    color: torch.Tensor
    alpha: torch.Tensor

    @property
    def mask(self) -> torch.Tensor:
        """(T, H, W) bool: at least half of the pixel is seen."""
        return self.alpha >= 128


def render_soft_edges(
    rasterizer: Rasterizer,
    surface: DepthSurface,
    world_to_camera: np.ndarray | torch.Tensor,
    intrinsics: np.ndarray | torch.Tensor,
    width: int,
    height: int,
    *,
    samples: int = 2,
) -> SoftFrames:
    """Render with samples x samples points to a pixel: as many times the pixels, at the cost of about as much.

    Args:
        samples: 1 to 8, in each direction.
        others: as for `interface.Rasterizer.render`.

    Raises:
        ValueError: another number of samples, or see `interface.Rasterizer.render`.
    """
    if not 1 <= samples <= 8:
        raise ValueError(f"a pixel takes 1 to 8 samples in each direction, got {samples}")
    lenses = torch.as_tensor(intrinsics).double() * torch.tensor([samples, samples, 1.0], dtype=torch.float64)[:, None]
    fine = rasterizer.render(surface, world_to_camera, lenses, width * samples, height * samples)
    cells = (len(fine.mask), height, samples, width, samples)
    count = fine.mask.reshape(cells).sum(dim=(2, 4))  # unseen samples are black, so colour may be summed as it is
    total = fine.color.reshape(*cells, 3).sum(dim=(2, 4), dtype=torch.int32)
    color = (total + count[..., None] // 2) // count.clamp_min(1)[..., None]
    alpha = (255 * count + samples * samples // 2) // (samples * samples)
    return SoftFrames(color.to(torch.uint8), alpha.to(torch.uint8))
