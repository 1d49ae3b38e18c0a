"""Layers of a dense prediction transformer's head (DPT, arXiv 2103.13413), which several depth networks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


def resize_layers(channels: Sequence[int]) -> nn.ModuleList:
    """Layers that bring four maps of equal size to 4, 2, 1 and 1/2 times that size."""
    first, second, _, fourth = channels
    return nn.ModuleList(
        [
            nn.ConvTranspose2d(first, first, 4, stride=4),
            nn.ConvTranspose2d(second, second, 2, stride=2),
            nn.Identity(),
            nn.Conv2d(fourth, fourth, 3, stride=2, padding=1),
        ]
    )


class Fusion(nn.Module):
    """Adds a finer map to a coarser one and resizes the sum to the finer size.

    Args:
        coarsest: no finer map is added; some published layouts keep an unused layer for it.
    """

    def __init__(self, features: int, *, coarsest: bool = False) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        if not coarsest:
            self.resConfUnit1 = Residual(features)
        self.resConfUnit2 = Residual(features)

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor | None, size: Sequence[int]) -> torch.Tensor:
        """(T, C, *size) of maps (T, C, h, w); `fine` is missing where the coarse one is the first."""
        if fine is not None:
            coarse = coarse + self.resConfUnit1(fine)
        return self.out_conv(resized(self.resConfUnit2(coarse), size))


class Residual(nn.Module):
    """Two convolutions beside a shortcut, each behind its activation."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(features, features, 3, padding=1) for _ in range(2))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """(T, C, h, w) in and out."""
        return value + self.conv2(F.relu(self.conv1(F.relu(value))))


def resized(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """(T, C, *size) of maps (T, C, h, w), corners on corners."""
    return F.interpolate(maps, size=list(size), mode="bilinear", align_corners=True)
