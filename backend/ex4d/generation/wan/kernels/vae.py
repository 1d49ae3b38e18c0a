"""A faster VAE, from DiffSynth's in place: channels last in memory, norm and SiLU in one pass, padding in one copy.

The layers keep their weights and how they use the VAE's cache; only the arithmetic is replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffsynth.models.wan_video_vae import CausalConv3d, RMS_norm, Upsample
from torch import nn
from torch.nn import functional

from ex4d.generation.wan.kernels.fused import triton_kernels

if TYPE_CHECKING:
    from diffsynth.models.wan_video_vae import WanVideoVAE


class PaddedCausalConv3d(CausalConv3d):
    """Puts cached frames before the given ones and zeros around them in one copy.

    The padding is not left to the convolution, since cuDNN's kernels for many pixels and few channels are faster so.
    """

    def forward(self, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, C, T, H, W), with the last frames of the call before, to the convolution's result."""
        across, down, missing = map(int, self._padding[::2])
        if missing or across or down:
            x = _pad(x, cache_x if missing else None, missing, down, across)
        return functional.conv3d(x, self.weight, self.bias, self.stride)


def _pad(x: torch.Tensor, cached: torch.Tensor | None, before: int, down: int, across: int) -> torch.Tensor:
    """Pad to (B, C, before + T, H + 2 down, W + 2 across): zeros around, the cached frames right before ``x``."""
    batch, channels, frames, height, width = x.shape
    kept = 0 if cached is None else cached.shape[2]
    before = max(before, kept)
    shape = (batch, channels, before + frames, height + 2 * down, width + 2 * across)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
    if before > kept:
        out[:, :, : before - kept] = 0
    if down:
        out[:, :, before - kept :, :down] = 0
        out[:, :, before - kept :, -down:] = 0
    if across:
        out[:, :, before - kept :, down : down + height, :across] = 0
        out[:, :, before - kept :, down : down + height, -across:] = 0
    inside = out[:, :, :, down : down + height, across : across + width]
    if cached is not None:
        inside[:, :, before - kept : before] = cached
    inside[:, :, before:] = x
    return out


class FusedRMSNorm(RMS_norm):
    """RMS norm over channels, computed in float32."""

    silu = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Norm (B, C, ...)."""
        last = torch.channels_last_3d if x.ndim == 5 else torch.channels_last
        if x.is_cuda and x.dtype == torch.bfloat16 and triton_kernels is not None:
            return triton_kernels.channel_norm(x.contiguous(memory_format=last), self.gamma, silu=self.silu)
        result = functional.normalize(x.float(), dim=1) * self.scale * self.gamma.float()
        return (functional.silu(result) if self.silu else result).to(x.dtype)


class FusedRMSNormSiLU(FusedRMSNorm):
    """RMS norm over channels, then SiLU."""

    silu = True


def optimize_vae(vae: WanVideoVAE) -> None:
    """Replace a loaded VAE's layers in place; results differ by no more than rounding."""
    for module in list(vae.model.modules()):
        if isinstance(module, nn.Sequential):
            for number in range(len(module) - 1):
                if isinstance(module[number], RMS_norm) and isinstance(module[number + 1], nn.SiLU):
                    module[number].__class__ = FusedRMSNormSiLU
                    module[number + 1] = nn.Identity()
    for module in vae.model.modules():
        if type(module) is CausalConv3d:
            module.__class__ = PaddedCausalConv3d
        elif type(module) is RMS_norm:
            module.__class__ = FusedRMSNorm
        elif type(module) is Upsample:
            module.__class__ = nn.Upsample  # pyright: ignore[reportAttributeAccessIssue] (its base class)
        if isinstance(module, nn.Conv2d) and module.weight.is_cuda:
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d) and module.weight.is_cuda:
            module.to(memory_format=torch.channels_last_3d)
