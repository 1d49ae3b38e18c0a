"""Denoising: flow matching by Euler steps with classifier-free guidance, from noise to latents.

For parity with the original, latents and timesteps are float32 (in bfloat16 a timestep of 999 would become 1000), and
matmuls run in bfloat16 by autocast.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ex4d.generation.wan.errors import GenerationError
from ex4d.generation.wan.guidance import VelocityHistory, guide
from ex4d_core.step_plan import Step, step_plan

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

# This rank's part of passes without and with guidance.
_Shards = dict[bool, "PassShard"]


def flow_match_schedule(steps: int, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sigmas (steps + 1, from 1 to 0) and timesteps (steps), float32, of Wan's scheduler in DiffSynth."""
    from diffsynth.diffusion.flow_match import FlowMatchScheduler

    sigmas, timesteps = FlowMatchScheduler.set_timesteps_wan(steps, shift=shift)
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float(), timesteps.float()


class _StepVelocities:
    """Predicts the velocity of each step of a plan: by passes of the network, or from those before."""

    def __init__(
        self, transformer: Transformer, prepared: PreparedConditioning, settings: WanSettings, shards: _Shards
    ):
        self._transformer, self._settings, self._shards = transformer, settings, shards
        self._prepared, self._protected = prepared, replace(prepared, attend=None)
        self._caches = _tea_caches(settings)
        self._histories = VelocityHistory(), VelocityHistory()

    def predict(self, step: Step, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Return the velocity (1, 16, F, h, w) float32 of the next step, guided where the step is."""
        if not step.prompts:
            return torch.zeros_like(latents)
        if step.computed:
            prepared, caches = self._prepared, self._caches
            if step.protected:
                prepared, caches = self._protected, (None, None)
            shard = self._shards.get(len(step.computed) > 1)
            computed = self._transformer.velocities(latents, timestep, prepared, step.computed, caches, shard)
            for prompt, velocity in zip(step.computed, computed, strict=True):
                self._histories[prompt].add(step.sigma, velocity)
        needed = [self._histories[prompt].at(step.sigma) for prompt in step.prompts]
        return guide(needed, self._settings.guidance, zero_star=self._settings.cfg_zero)


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
    plan = step_plan(settings, guided=conditioning.negative_prompt_embeds is not None)
    latents = noise.clone()
    with precision():
        prepared = transformer.prepare(conditioning, settings.attention)
    shards: _Shards = {}
    if group is not None:
        group.barrier()
        # Every rank creates the same ones, in the same order.
        for guided in sorted({len(step.computed) > 1 for step in plan if step.computed}):
            shards[guided] = group.shard(guided=guided)
    velocities = _StepVelocities(transformer, prepared, settings, shards)
    for index, step in enumerate(plan):
        if group is not None and not group.broadcast_continue():
            raise GenerationError(f"rank 0 stopped the shot before denoising step {index + 1} of {settings.steps}")
        started = time.monotonic()
        sigma, next_sigma = sigmas[index].item(), sigmas[index + 1].item()
        _set_known(latents, conditioning.known_latents, noise, sigma)
        with contextlib.nullcontext() if group is None else group.forward_pass():
            with precision():
                velocity = velocities.predict(step, latents, timesteps[index])
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

    steps = max(1, settings.steps - settings.protected_steps)
    return [TeaCache(steps, settings.tea_cache, _TEA_CACHE_MODEL) for _ in range(2)]
