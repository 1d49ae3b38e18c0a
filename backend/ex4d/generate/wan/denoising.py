"""Noise to latents: flow matching by Euler steps, with classifier-free guidance.

What matters for parity with the original: latents and timesteps in float32 (in bfloat16 a timestep of 999 would become
1000), and products in bfloat16 by autocast.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ex4d.generate.wan.errors import GenerationError
from ex4d.generate.wan.parallel.group import Stopped

if TYPE_CHECKING:
    from ex4d.generate.wan.parallel.group import Split, Team
    from ex4d.generate.wan.transformer import Prepared, Transformer

# TeaCache's fitted coefficients are per model; a LoRA does not change them much.
_TEA_CACHE_MODEL = "Wan2.1-I2V-14B-480P"


@dataclass(frozen=True)
class Conditions:
    """What one window's latents are made from.

    Attributes:
        positive, negative: (1, L, C) text embeddings; no guidance without the negative one.
        camera: (1, 32, F, h, w), latents of colour and of mask.
        y: (1, 20, F, h, w), mask and latents of known frames.
        clip_feature: (1, 257, 1280) of the first frame.
        known: (1, 16, K, h, w), latents that are given, from the first on; None at the start of a shot.
    """

    positive: torch.Tensor
    negative: torch.Tensor | None
    camera: torch.Tensor
    y: torch.Tensor
    clip_feature: torch.Tensor
    known: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Conditions:
        """The same on another device."""
        there = {name: None if value is None else value.to(device) for name, value in vars(self).items()}
        return Conditions(**there)


@dataclass(frozen=True)
class Step:
    """Where denoising is after one step.

    Attributes:
        done, total: steps.
        estimate: (1, 16, F, h, w), the latents as they would be without the remaining noise.
        seconds: that the step took.
    """

    done: int
    total: int
    estimate: torch.Tensor
    seconds: float


def schedule(steps: int, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise levels (steps + 1, from 1 to 0) and timesteps (steps), float32, as Wan's scheduler in DiffSynth."""
    from diffsynth.diffusion.flow_match import FlowMatchScheduler

    sigmas, timesteps = FlowMatchScheduler.set_timesteps_wan(steps, shift=shift)
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float(), timesteps.float()


def guided_velocity(
    transformer: Transformer,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    prepared: Prepared,
    guidance: float,
    caches=(None, None),
    split: Split | None = None,
) -> torch.Tensor:
    """Classifier-free guidance: away from the negative prompt by ``guidance``; (1, 16, F, h, w) float32."""
    if len(prepared.prompts) == 1 or guidance == 1:
        return transformer.velocities(latents, timestep, prepared, (0,), caches, split)[0]
    positive, negative = transformer.velocities(latents, timestep, prepared, (0, 1), caches, split)
    return negative + guidance * (positive - negative)


@torch.inference_mode()
def denoise(
    transformer: Transformer,
    noise: torch.Tensor,
    conditions: Conditions,
    *,
    steps: int,
    shift: float,
    guidance: float,
    tea_cache: float = 0.0,
    precision: Callable[[], AbstractContextManager],
    on_step: Callable[[Step], None] | None = None,
    team: Team | None = None,
) -> torch.Tensor:
    """All steps.

    Args:
        noise: (1, 16, F, h, w) float32.
        precision: gives the context that the transformer runs in (autocast, or none).
        on_step: called after every step; what it raises ends the work.
        team: of ranks that all do this at once, each a part of every pass.

    Returns:
        (1, 16, F, h, w) float32; `Conditions.known` stands in it as it was given.

    Raises:
        GenerationError: the transformer gave values that are no numbers.
        Stopped: on other ranks than 0, which wants no further step.
        RankLost: another rank is gone.
    """
    sigmas, timesteps = schedule(steps, shift)
    caches = _tea_caches(steps, tea_cache)
    latents = noise.clone()
    with precision():
        prepared = transformer.prepare(conditions)
    split = None
    if team is not None:
        team.begin()
        split = team.split(conditions.negative is not None and guidance != 1)
    for index in range(steps):
        if team is not None and not team.go_on():
            raise Stopped
        started = time.monotonic()
        sigma, following = sigmas[index].item(), sigmas[index + 1].item()
        _impose(latents, conditions.known, noise, sigma)
        with contextlib.nullcontext() if team is None else team.passing():
            with precision():
                change = guided_velocity(transformer, latents, timesteps[index], prepared, guidance, caches, split)
            # Asking the GPU for this one bit also makes the step's time true.
            finite = torch.isfinite(change).all().item()
        if not finite:
            raise GenerationError(
                f"step {index + 1} of {steps} gave values that are no numbers; check the weights with ex4d models "
                "check, and any LoRA and its weight"
            )
        estimate = latents - sigma * change
        latents = latents + (following - sigma) * change
        if on_step is not None:
            try:
                on_step(Step(index + 1, steps, estimate, time.monotonic() - started))
            except BaseException:
                # The others stand before their next step, if there is one.
                if team is not None and index + 1 < steps:
                    team.go_on(False)
                raise
    _impose(latents, conditions.known, noise, 0.0)
    return latents


def _impose(latents: torch.Tensor, known: torch.Tensor | None, noise: torch.Tensor, sigma: float) -> None:
    """Put what is known, with the noise of this step, where it belongs."""
    if known is not None:
        count = known.shape[2]
        latents[:, :, :count] = (1 - sigma) * known + sigma * noise[:, :, :count]


def _tea_caches(steps: int, threshold: float):
    if not threshold:
        return None, None
    from diffsynth.pipelines.wan_video import TeaCache

    return tuple(TeaCache(steps, threshold, _TEA_CACHE_MODEL) for _ in range(2))
