"""Makes DiffSynth's VAE faster, in place: channels last in memory, norm and SiLU in one pass, no copies to add borders.

The layers keep their weights and their classes' behaviour towards the VAE's cache; only how they compute is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffsynth.models.wan_video_vae import CausalConv3d, RMS_norm, Upsample
from torch import nn
from torch.nn import functional

from ex4d.generate.wan.kernels import fused

if TYPE_CHECKING:
    from diffsynth.models.wan_video_vae import WanVideoVAE


class BorderConv(CausalConv3d):
    """Puts cached frames before the given ones and a border around them in one go, not one after the other.

    The border is real, not left to the convolution: cuDNN's kernels for those with many pixels and few channels are
    faster that way.
    """

    def forward(self, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
        across, down, missing = self._padding[0], self._padding[2], self._padding[4]
        if missing or across or down:
            x = _bordered(x, cache_x if missing else None, missing, down, across)
        return functional.conv3d(x, self.weight, self.bias, self.stride)


def _bordered(x: torch.Tensor, cached: torch.Tensor | None, before: int, down: int, across: int) -> torch.Tensor:
    """(B, C, before + T, H + 2 down, W + 2 across): the cached frames last before the given ones, zeros around."""
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


class FusedNorm(RMS_norm):
    """The norm over channels, in float32 inside."""

    silu = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = torch.channels_last_3d if x.ndim == 5 else torch.channels_last
        if x.is_cuda and x.dtype == torch.bfloat16 and fused.triton_kernels is not None:
            return fused.triton_kernels.channel_norm(x.contiguous(memory_format=last), self.gamma, silu=self.silu)
        made = functional.normalize(x.float(), dim=1) * self.scale * self.gamma.float()
        return (functional.silu(made) if self.silu else made).to(x.dtype)


class FusedNormSilu(FusedNorm):
    """The norm and the SiLU after it."""

    silu = True


def speed_up_vae(vae: WanVideoVAE) -> None:
    """Change a loaded VAE in place; results differ by no more than rounding."""
    for module in list(vae.model.modules()):
        if isinstance(module, nn.Sequential):
            for number in range(len(module) - 1):
                if isinstance(module[number], RMS_norm) and isinstance(module[number + 1], nn.SiLU):
                    module[number].__class__ = FusedNormSilu
                    module[number + 1] = nn.Identity()
    for module in vae.model.modules():
        if type(module) is CausalConv3d:
            module.__class__ = BorderConv
        elif type(module) is RMS_norm:
            module.__class__ = FusedNorm
        elif type(module) is Upsample:
            module.__class__ = nn.Upsample
        if isinstance(module, nn.Conv2d) and module.weight.is_cuda:
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d) and module.weight.is_cuda:
            module.to(memory_format=torch.channels_last_3d)
