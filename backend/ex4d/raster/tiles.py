"""`Tiles`: the squares of images that are worth drawing, where a caller needs only a few places of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Tiles:
    """Which squares of each frame's image are drawn.

    Attributes:
        wanted: (T, rows, columns) bool, or 0 and 1, on the rasterizer's device.
        side: of a square, pixels; the last row and column may lie off the image in part.
        is_solid: whether stretched faces hide what is behind them. Otherwise only their rims are drawn
            (`ex4d.raster.warp.rims`), which hide nothing.
    """

    wanted: torch.Tensor
    side: int
    is_solid: bool = True

    def __getitem__(self, part: slice) -> Tiles:
        """Those of some frames."""
        return replace(self, wanted=self.wanted[part])

    @property
    def of_any(self) -> Tiles:
        """For one frame, the squares that any frame wants."""
        return Tiles(self.wanted.any(dim=0, keepdim=True), self.side)

    @property
    def table(self) -> torch.Tensor:
        """(T, rows + 1, columns + 1) int32, how many squares above and left of each are wanted."""
        counted = self.wanted.to(torch.int32).cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
        return F.pad(counted, (1, 0, 1, 0)).contiguous()


def tiles_with(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """(rows, columns) bool: which squares of an image (H, W) bool hold a pixel that is true."""
    height, width = pixels.shape
    whole = F.pad(pixels, (0, -width % side, 0, -height % side))
    return whole.unflatten(1, (-1, side)).any(2).unflatten(0, (-1, side)).any(1)


def widened(tiles: torch.Tensor, around: int) -> torch.Tensor:
    """(T, rows, columns) bool: the same squares and those within so many of them."""
    return F.max_pool2d(tiles[:, None].float(), 2 * around + 1, stride=1, padding=around)[:, 0] > 0
