"""The preview engine: the render itself, its unseen regions filled smoothly or marked; seconds, on any machine.

Filling is pull-push (Gortler et al., The Lumigraph, 1996): averages of what was seen, coarser and coarser, flow back
into the holes. Two things are ours. What was uncovered by moving the camera is background, so far pixels weigh more.
And a hole that stays a hole changes its colour slowly, while its rim flickers with the mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.nn.functional import interpolate, pad

from ex4d.generate.engine import Watch
from ex4d.raster import RenderedFrame
from ex4d_core.shot import PreviewSettings

# The nearest surface of a frame counts this much when holes are filled, the farthest 1.
_FOREGROUND_WEIGHT = 0.001
# Holes are held steady from averages over 8 pixels on; finer ones follow the rim, or edges would smear.
_FIRST_STEADY_LEVEL = 3
# Share of the past in a hole's colour: half of it is gone after about 2 frames.
_STEADINESS = 0.75
# A cell of which this share is seen speaks for itself.
_ENOUGH_SEEN = 1 / 16


class PreviewEngine:
    """See the module's text; `Engine` in its own words."""

    name = "preview"
    licence = "free for any use: no model, only the footage"

    def __init__(self, settings: PreviewSettings | None = None):
        self.settings = settings or PreviewSettings()

    def generate(
        self, frames: Iterable[RenderedFrame], *, count: int | None = None, watch: Watch | None = None
    ) -> Iterator[np.ndarray]:
        """One finished frame for each rendered frame, at once; seen pixels are passed on untouched."""
        fill = HoleFilling()
        for frame in frames:
            if self.settings.holes == "mark":
                filling = np.array(self.settings.hole_color, dtype=np.uint8)
            else:
                filling = fill(frame.color, frame.mask, frame.depth)
            yield np.where(frame.mask[..., None], frame.color, filling)


class HoleFilling:
    """Pull-push over a sequence of frames of one size; call it once for each frame, in order."""

    def __init__(self) -> None:
        self._past: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, color: np.ndarray, mask: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Args:
            color: (H, W, 3) uint8; mask: (H, W) bool, true = known; depth: (H, W) float32.

        Returns:
            (H, W, 3) uint8 without holes; mid grey if nothing was ever seen. Made at half the resolution, which takes
            a third of the time and is not seen in something so smooth.
        """
        return self.fill(torch.from_numpy(color), torch.from_numpy(mask), torch.from_numpy(depth)).numpy()

    def fill(self, color: torch.Tensor, mask: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        """The same for tensors, on their device."""
        height, width = mask.shape
        weight = _background_weight(mask, depth)
        picture = color.permute(2, 0, 1)
        half = _halved(torch.cat([picture * weight, weight[None]])[None])
        filled = self._push(_pull(half))
        if not filled.is_cuda:
            # Pixel after pixel in 8 bits this takes a tenth of the time; on CUDA there is no such thing.
            filled = filled.add_(0.5).clamp_(0, 255).to(torch.uint8, memory_format=torch.channels_last)
        filled = interpolate(filled, scale_factor=2, mode="bilinear")[0, :, :height, :width].permute(1, 2, 0)
        return filled if filled.dtype == torch.uint8 else filled.add_(0.5).clamp_(0, 255).to(torch.uint8)

    def _push(self, pyramid: list[torch.Tensor]) -> torch.Tensor:
        """From coarse to fine: each cell is what was seen in it, or else what the coarser level says."""
        filled = torch.full_like(pyramid[-1][:, :3], 127.5)
        for level in range(len(pyramid) - 1, -1, -1):
            weight = pyramid[level][:, 3:]
            size = weight.shape[-2:]
            if filled.shape[-2:] != size:
                filled = interpolate(filled, scale_factor=2, mode="bilinear")[..., : size[0], : size[1]]
            trust = (weight / _ENOUGH_SEEN).clamp_(max=1)
            filled = torch.lerp(filled, pyramid[level][:, :3] / weight.clamp_min(1e-6), trust)
            if level >= _FIRST_STEADY_LEVEL:
                filled = self._steadied(level, filled, 1 - trust)
        return filled

    def _steadied(self, level: int, filled: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """Where there was a hole and is one, change slowly. Elsewhere the past would show through as a ghost."""
        if level in self._past:
            past, past_hole = self._past[level]
            filled = torch.lerp(filled, past, _STEADINESS * hole * past_hole)
        self._past[level] = filled, hole
        return filled


def _pull(finest: torch.Tensor) -> list[torch.Tensor]:
    """Averages (1, 4, h, w) of colour times weight, and of weight, from fine to a single cell."""
    pyramid = [finest]
    while max(pyramid[-1].shape[-2:]) > 1:
        pyramid.append(_halved(pyramid[-1]))
    return pyramid


def _halved(level: torch.Tensor) -> torch.Tensor:
    """(1, C, ceil(h / 2), ceil(w / 2)): averages of 2x2 cells; what lies outside counts as nothing."""
    height, width = level.shape[-2:]
    if height % 2 or width % 2:
        level = pad(level, (0, width % 2, 0, height % 2))
    rows = level[..., 0::2, :] + level[..., 1::2, :]  # a pooling layer takes ten times as long
    return (rows[..., 0::2] + rows[..., 1::2]).mul_(0.25)


def _background_weight(mask: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """(H, W) float32 in [0, 1]: 0 for holes, and more for farther surfaces, by their place in the depth's range."""
    if not mask.any():
        return mask.float()
    disparity = depth.reciprocal()  # of infinite depth, where there is no surface: 0
    near = disparity.mul(mask).max()
    far = disparity.masked_fill(~mask, torch.inf).min()
    if near - far <= 1e-6 * near:
        return mask.float()
    farness = (near - disparity).div_(near - far).square_()
    return farness.mul_(1 - _FOREGROUND_WEIGHT).add_(_FOREGROUND_WEIGHT).mul_(mask)
