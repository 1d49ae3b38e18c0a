"""One pass as DiffSynth computes it, and as the original EX-4D did: what our own is compared with.

For measurements and tests only. The networks and the pass are DiffSynth's own code; the LoRA at run time is ours, with
the arithmetic of the usual libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from ex4d.generate.wan.networks import LORA_LAYERS, LORA_RANK

if TYPE_CHECKING:
    from diffsynth.models.wan_video_dit import WanModel

    from ex4d.generate.wan.denoising import Conditions


def diffsynth_velocity(
    dit: WanModel, latents: torch.Tensor, timestep: torch.Tensor, conditions: Conditions, *, negative: bool = False
) -> torch.Tensor:
    """(1, 16, F, h, w) float32 through DiffSynth's model function; arguments as `Transformer.velocities` has them."""
    from diffsynth.pipelines.wan_video import model_fn_wan_video

    return model_fn_wan_video(
        dit=dit,
        latents=latents,
        timestep=timestep.reshape(1).to(latents.device, torch.float32),
        context=conditions.negative if negative else conditions.positive,
        clip_feature=conditions.clip_feature,
        y=conditions.y,
        control_camera_latents_input=conditions.camera,
    ).float()


class RunTimeLora(nn.Module):
    """A linear layer with a low-rank one beside it, added at every call."""

    def __init__(self, base: nn.Linear, down: torch.Tensor, up: torch.Tensor):
        super().__init__()
        self.base = base
        self.down, self.up = (nn.Parameter(part, requires_grad=False) for part in (down, up))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + nn.functional.linear(nn.functional.linear(x, self.down), self.up)


def add_run_time_lora(dit: WanModel, rank: int = LORA_RANK) -> None:
    """Give every layer that EX-4D's LoRA changes a random one, applied at run time; for timing."""
    for block in dit.blocks:
        for name in LORA_LAYERS:
            parent, _, last = name.rpartition(".")
            owner = block.get_submodule(parent)
            base = owner.get_submodule(last)
            down = torch.randn(rank, base.in_features, device=base.weight.device, dtype=base.weight.dtype)
            up = torch.randn(base.out_features, rank, device=base.weight.device, dtype=base.weight.dtype)
            setattr(owner, last, RunTimeLora(base, down * base.in_features**-0.5, 0.01 * up))
