"""Reference implementations of a pass: DiffSynth's, and the original EX-4D's, with the LoRA as separate layers.

Networks and pass are DiffSynth's code; the LoRA layers have the arithmetic of the usual libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from ex4d.generation.wan.networks import LORA_LAYERS, LORA_RANK

if TYPE_CHECKING:
    from diffsynth.models.wan_video_dit import WanModel

    from ex4d.generation.wan.conditioning import WindowConditioning


def diffsynth_velocity(
    dit: WanModel,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    conditioning: WindowConditioning,
    *,
    negative: bool = False,
) -> torch.Tensor:
    """Predict (1, 16, F, h, w) float32 by DiffSynth's function, with the arguments of `Transformer.velocities`."""
    from diffsynth.pipelines.wan_video import model_fn_wan_video

    embeds = conditioning.negative_prompt_embeds if negative else conditioning.prompt_embeds
    assert embeds is not None
    return model_fn_wan_video(
        dit=dit,
        latents=latents,
        timestep=timestep.reshape(1).to(latents.device, torch.float32),
        context=embeds,
        clip_feature=conditioning.image_embeds,
        y=conditioning.image_latents,
        control_camera_latents_input=conditioning.control_latents,
    ).float()


class LoraLinear(nn.Module):
    """A linear layer plus a low-rank one, both computed at every call."""

    def __init__(self, base: nn.Linear, down: torch.Tensor, up: torch.Tensor):
        """Add ``up @ down`` of (out, rank) and (rank, in) to a layer."""
        super().__init__()
        self.base = base
        self.down, self.up = (nn.Parameter(part, requires_grad=False) for part in (down, up))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out)."""
        return self.base(x) + nn.functional.linear(nn.functional.linear(x, self.down), self.up)


def add_lora_layers(dit: WanModel, rank: int = LORA_RANK) -> None:
    """Add a random LoRA, not merged, to every layer that EX-4D's changes; for timing."""
    for block in dit.blocks:
        for name in LORA_LAYERS:
            parent, _, last = name.rpartition(".")
            owner = block.get_submodule(parent)
            base = cast(nn.Linear, owner.get_submodule(last))
            down = torch.randn(rank, base.in_features, device=base.weight.device, dtype=base.weight.dtype)
            up = torch.randn(base.out_features, rank, device=base.weight.device, dtype=base.weight.dtype)
            setattr(owner, last, LoraLinear(base, down * base.in_features**-0.5, 0.01 * up))
