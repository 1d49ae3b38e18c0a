"""Makes DiffSynth's VAE faster, in place: channels last in memory, norm and SiLU in one pass, no copies to add borders.

The layers keep their weights and their classes' behaviour towards the VAE's cache; only how they compute is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffsynth.models.wan_video_vae import CausalConv3d, RMS_norm, Upsample
from torch import nn
from torch.nn import functional

from backend.generate.wan import fused

if TYPE_CHECKING:
    from diffsynth.models.wan_video_vae import WanVideoVAE


class BorderConv(CausalConv3d):
    """Borders in space come from the convolution itself; only what is missing in time is put before the frames."""

    def forward(self, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
        across, down, missing = self._padding[0], self._padding[2], self._padding[4]
        if missing:
            before = [] if cache_x is None else [cache_x]
            missing -= sum(part.shape[2] for part in before)
            if missing > 0:
                before.insert(0, x.new_zeros(*x.shape[:2], missing, *x.shape[3:]))
            x = torch.cat([*before, x], dim=2)
        return functional.conv3d(x, self.weight, self.bias, self.stride, (0, down, across))


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
