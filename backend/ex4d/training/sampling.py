"""Sample videos of a run: a sample's masked video repainted by the adapter as it is, beside what it learns from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ex4d.generation.wan.conditioning import LATENT_FRAMES
from ex4d.generation.wan.decoding import decode_in_order, to_uint8_images
from ex4d.generation.wan.denoising import flow_match_schedule
from ex4d.generation.wan.networks import load_vae
from ex4d.training.samples import TrainingSample
from ex4d.training.schedule import seed_of
from ex4d.training.settings import TrainingSettings
from ex4d.training.trainer import conditioned, training_precision

if TYPE_CHECKING:
    from torch import nn

# As many as the engine's best preset takes.
SAMPLE_STEPS = 25

# Maps latents (1, 16, F, h, w) to frames (T, H, W, 3) uint8.
Decode = Callable[[torch.Tensor], np.ndarray]


@torch.no_grad()
def sample_latents(
    model: nn.Module,
    sample: TrainingSample,
    settings: TrainingSettings,
    device: torch.device,
    steps: int = SAMPLE_STEPS,
) -> torch.Tensor:
    """Denoise from seeded noise with a sample's conditioning: (1, 16, F, h, w) float32.

    Every process of a run must call this. Without guidance, which would take twice the passes.
    """
    target, conditioning = conditioned(sample, device)
    generator = torch.Generator().manual_seed(seed_of(settings.seed, "sample", 0))
    latents = torch.randn(target.shape, generator=generator).to(device)
    sigmas, timesteps = flow_match_schedule(steps, settings.shift)
    for index in range(steps):
        with training_precision(device, settings.precision):
            velocity = model(latents, timesteps[index : index + 1].to(device), conditioning)
        latents = latents + (sigmas[index + 1] - sigmas[index]).item() * velocity
    return latents


def side_by_side(sample: TrainingSample, latents: torch.Tensor, decode: Decode) -> np.ndarray:
    """Frames (T, H, 4 W, 3) uint8: masked video, mask, the sampled video, and the source that training aims at."""
    color, mask = sample.control_latents.float().chunk(2)
    parts = [color[None], mask[None], latents, sample.target_latents.float()[None]]
    return np.concatenate([decode(part.to(latents.device)) for part in parts], axis=2)


class VaeDecode:
    """Decodes with Wan's VAE, which is on the device only meanwhile."""

    def __init__(self, file: Path, device: torch.device):
        """Load it when it is needed."""
        self._file, self._device = file, device
        self._vae: Any = None

    @torch.inference_mode()
    def __call__(self, latents: torch.Tensor) -> np.ndarray:
        """Map latents (1, 16, F, h, w) to frames (4 F - 3, H, W, 3) uint8."""
        if self._vae is None:
            self._vae = load_vae(self._file)
        self._vae.to(self._device)
        try:
            frames = decode_in_order(
                self._vae, latents.to(self._device), lambda: training_precision(self._device, "bf16")
            )
            images = [to_uint8_images(part) for part in frames]
        finally:
            self._vae.to("cpu")
        assert sum(map(len, images)) == LATENT_FRAMES * (latents.shape[2] - 1) + 1
        return np.concatenate(images)
