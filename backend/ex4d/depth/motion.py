"""Optical flow between two frames: small displacement fields by block matching, on any device.

Used to compare depth over time. A quarter of a pixel does not matter there, but a wrong match does, so each
displacement says whether it can be trusted (forward-backward consistency, and alike colours).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

WORKING_SIDE = 160  # pixels of the longer side; finer fields cost much and change a scale and an offset little
_LEVELS = 4
_BLOCK = 7  # pixels; the side of the square whose colours are compared
_TRUSTED_DIFFERENCE = 0.06  # mean absolute colour difference, of 1, within a block
_ROUND_TRIP = 1.5  # working pixels by which going there and back may miss


@dataclass(frozen=True)
class Motion:
    """Displacement of an image against an earlier one.

    Attributes:
        offset: (2, h, w) float32, x and y: what is at (x, y) now was at (x, y) + offset, in working pixels.
        trusted: (h, w) bool, false where nothing in the earlier image is alike or the way back misses.
    """

    offset: torch.Tensor
    trusted: torch.Tensor

    def warped(self, earlier: torch.Tensor) -> torch.Tensor:
        """Values (h, w) of the earlier image, moved to where they are now."""
        return _sampled(earlier[None, None], self.offset[None])[0, 0]


def working_image(image: torch.Tensor) -> torch.Tensor:
    """An image (3, H, W) in [0, 1] at the size that motion is estimated at."""
    scale = min(1.0, WORKING_SIDE / max(image.shape[1:]))
    size = [max(8, round(side * scale)) for side in image.shape[1:]]
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def motion_between(earlier: torch.Tensor, now: torch.Tensor) -> Motion:
    """Motion from one working image (3, h, w) to the next."""
    there, back = _offsets(earlier, now), _offsets(now, earlier)
    returned = there + _sampled(back, there)
    difference = (now[None] - _sampled(earlier[None], there)).abs().mean(dim=1, keepdim=True)
    difference = F.avg_pool2d(difference, 3, stride=1, padding=1, count_include_pad=False)[0, 0]
    trusted = (returned.norm(dim=1)[0] < _ROUND_TRIP) & (difference < _TRUSTED_DIFFERENCE)
    return Motion(there[0], trusted & _inside(there)[0])


def _offsets(earlier: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    """(1, 2, h, w): coarse to fine, each level tries steps of one pixel around what the coarser one found."""
    pyramid = [(earlier[None], now[None])]
    while len(pyramid) < _LEVELS and min(pyramid[-1][0].shape[2:]) >= 4 * _BLOCK:
        before, after = pyramid[-1]
        pyramid.append((F.avg_pool2d(before, 2), F.avg_pool2d(after, 2)))
    offset = now.new_zeros(1, 2, *pyramid[-1][0].shape[2:])
    for before, after in reversed(pyramid):
        size = after.shape[2:]
        if offset.shape[2:] != size:
            offset = 2 * F.interpolate(offset, size=size, mode="bilinear")
        for step in (2.0, 1.0, 0.5):
            offset = _best_of_nine(before, after, offset, step)
        offset = _median(offset)
    return offset


def _best_of_nine(before: torch.Tensor, after: torch.Tensor, offset: torch.Tensor, step: float) -> torch.Tensor:
    """The displacement itself, or one of its eight neighbours, whichever block is most alike."""
    around = [(x, y) for y in (0, -step, step) for x in (0, -step, step)]
    steps = offset.new_tensor(around)[:, :, None, None]
    tried = offset + steps
    costs = (after - _sampled(before.expand(9, -1, -1, -1), tried)).abs().mean(dim=1, keepdim=True)
    costs = F.avg_pool2d(costs, _BLOCK, stride=1, padding=_BLOCK // 2, count_include_pad=False)
    costs[1:] += 1e-4 * step  # where all are alike, nothing moves
    best = costs.argmin(dim=0, keepdim=True).expand(1, 2, -1, -1)
    return tried.gather(0, best)


def _median(offset: torch.Tensor) -> torch.Tensor:
    """Median of 3 x 3: removes single wrong blocks and keeps the edges of moving things."""
    padded = F.pad(offset, (1, 1, 1, 1), mode="replicate")
    patches = F.unfold(padded, 3).reshape(1, 2, 9, -1)
    return patches.median(dim=2).values.reshape(offset.shape)


def _positions(offset: torch.Tensor) -> torch.Tensor:
    """(n, 2, h, w): where each displaced pixel lies, in pixels counted from the first one's centre."""
    height, width = offset.shape[2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=offset.device), torch.arange(width, device=offset.device), indexing="ij"
    )
    return torch.stack([x, y]) + offset


def _sampled(values: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Values (n, C, h, w) at displaced places, bilinear, the border repeated."""
    height, width = values.shape[2:]
    size = offset.new_tensor([width, height])
    grid = (2 * _positions(offset).permute(0, 2, 3, 1) + 1) / size - 1
    return F.grid_sample(values, grid.to(values), mode="bilinear", padding_mode="border", align_corners=False)


def _inside(offset: torch.Tensor) -> torch.Tensor:
    height, width = offset.shape[2:]
    x, y = _positions(offset).unbind(1)
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
