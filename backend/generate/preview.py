"""The preview engine: the render itself, its unseen regions filled smoothly or marked; seconds, on any machine.

Filling is pull-push (Gortler et al., The Lumigraph, 1996): averages of what was seen, coarser and coarser, flow back
into the holes. Two things are ours. What was uncovered by moving the camera is background, so far pixels weigh more.
And coarse averages remember earlier frames, so that a hole keeps its colour while its rim changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, interpolate, pad

from backend.render import RenderedFrame
from ex4d_core.shot import PreviewSettings

# The nearest surface of a frame counts this much when holes are filled, the farthest 1.
_FOREGROUND_WEIGHT = 0.02
# Averages over 16 pixels and more remember; finer ones would smear moving edges.
_FIRST_REMEMBERING_LEVEL = 4
# Share of the past in what is remembered: half of it is gone after about 7 frames.
_MEMORY = 0.9


class PreviewEngine:
    """See the module's text; `Engine` in its own words."""

    name = "preview"
    licence = "free for any use: no model, only the footage"

    def __init__(self, settings: PreviewSettings | None = None):
        self.settings = settings or PreviewSettings()

    def generate(self, frames: Iterable[RenderedFrame]) -> Iterator[np.ndarray]:
        """One finished frame for each rendered frame; seen pixels are passed on untouched."""
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
        self._memory: dict[int, torch.Tensor] = {}

    def __call__(self, color: np.ndarray, mask: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Args:
            color: (H, W, 3) uint8; mask: (H, W) bool, true = known; depth: (H, W) float32.

        Returns:
            (H, W, 3) uint8 without holes; mid grey if nothing was ever seen.
        """
        height, width = mask.shape
        levels = max(1, (max(height, width) - 1).bit_length())
        known = np.concatenate([color.astype(np.float32), np.ones((height, width, 1), np.float32)], axis=2)
        known *= _background_weight(mask, depth)[..., None]
        top = torch.from_numpy(known).permute(2, 0, 1)[None]
        filled = self._fill(self._pull(top, levels))
        return filled[0, :3].permute(1, 2, 0).clamp_(0, 255).round_().to(torch.uint8).numpy()

    def _pull(self, level: torch.Tensor, levels: int) -> list[torch.Tensor]:
        """Weighted sums (1, 4, h, w), colour times weight and weight, from fine to coarse."""
        pyramid = [level]
        for index in range(1, levels + 1):
            height, width = level.shape[-2:]
            level = avg_pool2d(pad(level, (0, width % 2, 0, height % 2)), 2)
            if index >= _FIRST_REMEMBERING_LEVEL:
                past = self._memory.get(index)
                level = level if past is None else (1 - _MEMORY) * level + _MEMORY * past
                self._memory[index] = level
            pyramid.append(level)
        return pyramid

    @staticmethod
    def _fill(pyramid: list[torch.Tensor]) -> torch.Tensor:
        """From coarse to fine: each level is what it knows itself, and for the rest what the coarser level says."""
        filled = torch.full_like(pyramid[-1][:, :3], 127.5)
        for level in reversed(pyramid):
            weight = level[:, 3:]
            known = weight.clamp(0, 1)
            own = level[:, :3] / weight.clamp_min(1e-6)
            coarse = (
                interpolate(
                    filled, size=(2 * filled.shape[-2], 2 * filled.shape[-1]), mode="bilinear", align_corners=False
                )[..., : level.shape[-2], : level.shape[-1]]
                if filled.shape != own.shape
                else filled
            )
            # A weight of 1/16 is a few sure pixels among many holes: enough to trust their average.
            trust = (16 * known).clamp(max=1)
            filled = own * trust + coarse * (1 - trust)
        return filled


def _background_weight(mask: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(H, W) float32 in [0, 1]: 0 for holes, and more for farther surfaces, by their place in the depth's range."""
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    seen = depth[mask]
    disparity = 1 / np.where(mask, depth, 1.0)
    near, far = 1 / seen.min(), 1 / seen.max()
    if near - far <= 1e-6 * near:
        return mask.astype(np.float32)
    nearness = (disparity - far) / (near - far)
    return np.where(mask, _FOREGROUND_WEIGHT + (1 - _FOREGROUND_WEIGHT) * (1 - nearness) ** 2, 0).astype(np.float32)
