"""Denoising: flow matching by Euler steps with classifier-free guidance, from noise to latents.

For parity with the original, latents and timesteps are float32 (in bfloat16 a timestep of 999 would become 1000), and
matmuls run in bfloat16 by autocast.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch

from ex4d.generation.wan.errors import GenerationError

if TYPE_CHECKING:
    from diffsynth.pipelines.wan_video import TeaCache

    from ex4d.generation.wan.conditioning import WindowConditioning
    from ex4d.generation.wan.parallel.group import PassShard, SequenceParallelGroup
    from ex4d.generation.wan.transformer import PreparedConditioning, Transformer
    from ex4d_core.wan_settings import WanSettings

# TeaCache's fitted coefficients are per model; a LoRA does not change them much.
_TEA_CACHE_MODEL = "Wan2.1-I2V-14B-480P"


# Called after each step with the number of steps so far, the latents (1, 16, F, h, w) that the velocity predicts for
# sigma 0, and the step's seconds. An exception that it raises ends the work.
StepCallback = Callable[[int, torch.Tensor, float], None]


def flow_match_schedule(steps: int, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sigmas (steps + 1, from 1 to 0) and timesteps (steps), float32, of Wan's scheduler in DiffSynth."""
    from diffsynth.diffusion.flow_match import FlowMatchScheduler

    sigmas, timesteps = FlowMatchScheduler.set_timesteps_wan(steps, shift=shift)
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float(), timesteps.float()


def guided_velocity(
    transformer: Transformer,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    prepared: PreparedConditioning,
    guidance: float,
    caches: Sequence[TeaCache | None] = (None, None),
    shard: PassShard | None = None,
) -> torch.Tensor:
    """Predict the velocity (1, 16, F, h, w) float32, with classifier-free guidance of scale ``guidance``."""
    if len(prepared.prompts) == 1 or guidance == 1:
        return transformer.velocities(latents, timestep, prepared, (0,), caches, shard)[0]
    positive, negative = transformer.velocities(latents, timestep, prepared, (0, 1), caches, shard)
    return negative + guidance * (positive - negative)


@torch.inference_mode()
def denoise(
    transformer: Transformer,
    noise: torch.Tensor,
    conditioning: WindowConditioning,
    settings: WanSettings,
    *,
    precision: Callable[[], AbstractContextManager[None]],
    on_step: StepCallback | None = None,
    group: SequenceParallelGroup | None = None,
) -> torch.Tensor:
    """Run all denoising steps of one window.

    Args:
        noise: (1, 16, F, h, w) float32.
        precision: returns the context that the transformer runs in (autocast, or none).
        group: of ranks that all run this at once, each a part of every pass.

    Returns:
        (1, 16, F, h, w) float32; the known latents are in it unchanged.

    Raises:
        GenerationError: the transformer produced NaN or infinity; on other ranks also, rank 0 stopped.
        RankLostError: another rank ended.
    """
    sigmas, timesteps = flow_match_schedule(settings.steps, settings.shift)
    caches = _tea_caches(settings)
    latents = noise.clone()
    with precision():
        prepared = transformer.prepare(conditioning)
    shard = None
    if group is not None:
        group.barrier()
        shard = group.shard(guided=conditioning.negative_prompt_embeds is not None and settings.guidance != 1)
    for index in range(settings.steps):
        if group is not None and not group.broadcast_continue():
            raise GenerationError(f"rank 0 stopped the shot before denoising step {index + 1} of {settings.steps}")
        started = time.monotonic()
        sigma, next_sigma = sigmas[index].item(), sigmas[index + 1].item()
        _set_known(latents, conditioning.known_latents, noise, sigma)
        with contextlib.nullcontext() if group is None else group.forward_pass():
            with precision():
                velocity = guided_velocity(
                    transformer, latents, timesteps[index], prepared, settings.guidance, caches, shard
                )
            # Reading this one bit waits for the GPU, so the step's duration is right.
            finite = torch.isfinite(velocity).all().item()
        if not finite:
            raise GenerationError(
                f"the transformer produced NaN or infinity in denoising step {index + 1} of {settings.steps}: check "
                "the files with ex4d models check, and any LoRA and its weight"
            )
        pred_original_sample = latents - sigma * velocity
        latents = latents + (next_sigma - sigma) * velocity
        if on_step is not None:
            try:
                on_step(index + 1, pred_original_sample, time.monotonic() - started)
            except BaseException:
                # The other ranks wait before their next step, if there is one.
                if group is not None and index + 1 < settings.steps:
                    group.broadcast_continue(False)
                raise
    _set_known(latents, conditioning.known_latents, noise, 0.0)
    return latents


def _set_known(latents: torch.Tensor, known: torch.Tensor | None, noise: torch.Tensor, sigma: float) -> None:
    """Replace the known latents, with the noise of this sigma."""
    if known is not None:
        count = known.shape[2]
        latents[:, :, :count] = (1 - sigma) * known + sigma * noise[:, :, :count]


def _tea_caches(settings: WanSettings) -> Sequence[TeaCache | None]:
    """Create one TeaCache for each prompt, if they are on."""
    if not settings.tea_cache:
        return None, None
    from diffsynth.pipelines.wan_video import TeaCache

    return [TeaCache(settings.steps, settings.tea_cache, _TEA_CACHE_MODEL) for _ in range(2)]
