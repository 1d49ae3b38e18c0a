"""What one step learns from: flow matching on Wan's shifted schedule, and the learning rate.

Whatever chance decides is a function of the seed and of the sample's position in the run, so that a run that is
resumed, or runs on another number of GPUs, draws the same.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from ex4d.training.settings import TrainingSettings

# Steps of the schedule that training draws from, as in Wan's and DiffSynth's own training.
_TIMESTEPS = 1000


@dataclass(frozen=True)
class Draw:
    """What chance decides for one sample.

    Attributes:
        noise: (1, 16, F, h, w) float32.
        sigma: share of the noise, in (0, 1].
        timestep: (1,) float32, 1000 sigma.
        weight: of the loss.
        prompted: whether the prompt is used.
    """

    noise: torch.Tensor
    sigma: float
    timestep: torch.Tensor
    weight: float
    prompted: bool


class FlowMatching:
    """Rectified flow: latents lie on the line from a sample to noise, and the velocity is noise minus sample.

    Sigmas are ``s u / (1 + (s - 1) u)`` for ``u`` even in (0, 1] (Esser et al., 2024, section 5.3.2; Wan's ``shift``),
    so that high noise is drawn as often as the sampler passes through it.
    """

    def __init__(self, settings: TrainingSettings):
        from diffsynth.diffusion.flow_match import FlowMatchScheduler

        scheduler = FlowMatchScheduler("Wan")
        scheduler.set_timesteps(_TIMESTEPS, training=True, shift=settings.shift)
        self._sigmas, self._timesteps = scheduler.sigmas.float(), scheduler.timesteps.float()
        bell = scheduler.linear_timesteps_weights.float()
        self._weights = bell if settings.loss_weight == "bell" else torch.ones(_TIMESTEPS)
        self._settings = settings

    def draw(self, shape: Sequence[int], position: int) -> Draw:
        """What chance decides for the sample at a position, whose latents have this shape; on the CPU."""
        generator = torch.Generator().manual_seed(seed_of(self._settings.seed, "draw", position))
        place = int(torch.randint(0, _TIMESTEPS, (), generator=generator))
        prompted = float(torch.rand((), generator=generator)) >= self._settings.unprompted
        noise = torch.randn(tuple(shape), generator=generator)
        weight = float(self._weights[place])
        return Draw(noise, float(self._sigmas[place]), self._timesteps[place : place + 1], weight, prompted)

    @staticmethod
    def noisy(sample: torch.Tensor, draw: Draw) -> torch.Tensor:
        """A sample with its share of noise."""
        return torch.lerp(sample, draw.noise.to(sample), draw.sigma)

    @staticmethod
    def loss(velocity: torch.Tensor, sample: torch.Tensor, draw: Draw) -> torch.Tensor:
        """The weighted mean squared error of a predicted velocity, float32."""
        target = draw.noise.to(sample) - sample
        return draw.weight * functional.mse_loss(velocity.float(), target.float())


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """The learning rate of a step, counted from 0."""
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.decay == "constant" or step < settings.warmup:
        return settings.learning_rate * warm
    share = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def seed_of(seed: int, purpose: str, number: int) -> int:
    """A seed for one purpose and number; neighbouring ones have nothing in common."""
    digest = hashlib.blake2b(f"{seed} {purpose} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
