"""Wan2.1's transformer with random weights made on the device, and inputs: for measurements of passes without files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bench.passes import Case
from bench.random_weights import random_weights, small_dit_sizes
from ex4d.generation.wan.conditioning import WindowConditioning
from ex4d.generation.wan.layouts import full_size_sizes
from ex4d.generation.wan.networks import with_exact_norms

if TYPE_CHECKING:
    from diffsynth.models.wan_video_dit import WanModel

# (F, h, w) of the latents of 81 frames, and of what a CPU can do in its place.
GRIDS = {"832x480": (21, 60, 104), "1280x720": (21, 90, 160)}
TOY_GRIDS = {"832x480": (3, 4, 6), "1280x720": (5, 8, 12)}


@dataclass(frozen=True)
class TransformerInputs:
    """Weights of the plain transformer, without EX-4D's parts, which the peers do not have.

    Attributes:
        state: in bfloat16, by Wan's own names.
        sizes: what DiffSynth's `WanModel` is built with.
    """

    state: dict[str, torch.Tensor]
    sizes: dict[str, Any]
    device: torch.device

    @staticmethod
    def of_case(case: Case) -> TransformerInputs:
        """Draw weights: of the published sizes on a GPU, of a toy's without one."""
        from diffsynth.models.wan_video_dit import WanModel

        sizes = full_size_sizes() if case.on_gpu else small_dit_sizes()
        with torch.device("meta"):
            layout = WanModel(**sizes).state_dict()
        # One at a time, so that no more than one of them is ever in 32 bits.
        state = {
            key: random_weights({key: value}, number, case.device)[key].bfloat16()
            for number, (key, value) in enumerate(layout.items())
        }
        return TransformerInputs(state, sizes, case.device)

    def dit(self) -> WanModel:
        """A network of DiffSynth's class that shares the weights."""
        from diffsynth.core.vram.initialization import skip_model_initialization
        from diffsynth.models.wan_video_dit import WanModel

        with skip_model_initialization():
            dit = WanModel(**self.sizes)
        dit.load_state_dict(self.state, assign=True)
        with_exact_norms(dit)
        return dit.eval().requires_grad_(False)

    def window(self, grid: tuple[int, int, int]) -> tuple[WindowConditioning, torch.Tensor]:
        """Draw conditioning, with prompts as long as the default ones, and noise, for latents (F, h, w)."""
        generator = torch.Generator(self.device).manual_seed(0)

        def values(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=self.device)

        prompts = [values(1, 512, self.sizes["text_dim"]) for _ in range(2)]
        for prompt, length in zip(prompts, (24, 130), strict=True):
            prompt[:, length:] = 0
        latents = values(1, 32, *grid), values(1, 20, *grid)
        return WindowConditioning(*prompts, *latents, values(1, 257, 1280)), values(1, 16, *grid)
