"""Parity of a shot with a lead-in, and of one in three windows, with DiffSynth's own pass over the golden weights.

The original has neither, so nobody has its numbers. What they must give is what DiffSynth's pass gives in a plain loop
over the same inputs: known latents put back, with the noise of each sigma, before every step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.original_pass import diffsynth_velocity
from ex4d.generation.wan.conditioning import LATENT_FRAMES, WindowConditioning, known_mask, latent_count
from ex4d.generation.wan.denoising import denoise
from ex4d.generation.wan.networks import load_dit, require_diffsynth
from ex4d.generation.wan.transformer import Transformer
from ex4d_core.wan_settings import WanSettings
from parity.comparison import Comparison, compare_arrays, read_case_with_weights

if TYPE_CHECKING:
    from diffsynth.models.wan_video_dit import WanModel

# Relative L2; under autocast both round, at other places.
BOUNDS = {"bf16": 0.015, "float32": 1e-4}
_NEEDED = ("color_latents", "mask_latents", "noise", "clip_feature", "context_positive", "context_negative")
_STEPS, _LEAD_IN, _OVERLAP = 3, 8, 5


def compare_windows(prefix: Path, device: str = "cpu") -> Iterator[Comparison]:
    """Yield the comparison of each window's latents, as soon as it is computed.

    Args:
        prefix: the path of a case of `ex4d parity generation`, with or without ``.npz``.
        device: where both run.

    Raises:
        ParityCaseError: files are missing or not laid out like the golden data.
        CheckpointError: weights cannot be loaded.
    """
    require_diffsynth()
    case, weights = read_case_with_weights(prefix, _NEEDED)
    for precision in BOUNDS:
        yield from _precision(case, weights, precision, torch.device(device))


@torch.inference_mode()
def _precision(
    case: dict[str, np.ndarray], weights: list[Path], precision: str, device: torch.device
) -> Iterator[Comparison]:
    exact = precision == "float32"
    dtype = torch.float32 if exact else torch.bfloat16
    # The engine's transformer takes a network's parts for itself.
    of_engine, of_diffsynth = (load_dit([weights[0]], weights[1], device=device, dtype=dtype) for _ in range(2))

    def context() -> AbstractContextManager[Any]:
        return contextlib.nullcontext() if exact else torch.autocast(device.type, torch.bfloat16)

    inputs = {name: torch.from_numpy(case[name].astype(np.float32)).to(device) for name in _NEEDED}
    settings = WanSettings(steps=_STEPS)
    transformer = Transformer(of_engine, of_engine.blocks)
    compared = _Compared(transformer, of_diffsynth, inputs, settings, context, precision)
    frames = LATENT_FRAMES * (inputs["noise"].shape[2] - 1) + 1
    yield compared.window(f"lead-in of {_LEAD_IN} frames", frames + _LEAD_IN, 0)[0]
    known = None
    for number in range(3):
        comparison, latents = compared.window(f"window {number + 1} of 3", frames, number, known)
        yield comparison
        known = latents[:, :, -latent_count(_OVERLAP) :]


class _Compared:
    """Runs a window by the engine's denoising, and by DiffSynth's pass in a plain loop."""

    def __init__(
        self,
        transformer: Transformer,
        dit: WanModel,
        inputs: dict[str, torch.Tensor],
        settings: WanSettings,
        context: Callable[[], AbstractContextManager[Any]],
        precision: str,
    ):
        self._transformer, self._dit = transformer, dit
        self._inputs, self._settings, self._context, self._precision = inputs, settings, context, precision

    def window(
        self, name: str, frames: int, number: int, known: torch.Tensor | None = None
    ) -> tuple[Comparison, torch.Tensor]:
        """Compare a window that starts from ``known`` latents; returns the engine's, too."""
        conditioning = self._conditioning(frames, number, known)
        generator = torch.Generator("cpu").manual_seed(number)
        control = conditioning.control_latents
        noise = torch.randn(control[:, :16].shape, generator=generator).to(control)
        theirs = self._by_diffsynth(noise, conditioning)
        ours = denoise(self._transformer, noise, conditioning, self._settings, precision=self._context)
        arrays = (latents.float().cpu().numpy() for latents in (ours, theirs))
        return compare_arrays(f"{name} ({self._precision})", *arrays, BOUNDS[self._precision]), ours

    def _conditioning(self, frames: int, number: int, known: torch.Tensor | None) -> WindowConditioning:
        """The case's latents, repeated over time, for each window from another one on; known ones as in the engine."""
        inputs, count = self._inputs, latent_count(frames)
        color, mask = (
            torch.cat([inputs[name].roll(-number, 2)] * 2, dim=2)[:, :, :count]
            for name in ("color_latents", "mask_latents")
        )
        image = torch.zeros_like(color)
        image[:, :, :1] = color[:, :, :1]
        if known is not None:
            image[:, :, : known.shape[2]] = known
        flags = known_mask(1 if known is None else _OVERLAP, frames, *color.shape[-2:]).to(color)
        return WindowConditioning(
            prompt_embeds=inputs["context_positive"],
            negative_prompt_embeds=inputs["context_negative"],
            control_latents=torch.cat([color, mask], dim=1),
            image_latents=torch.cat([flags, image], dim=1),
            image_embeds=inputs["clip_feature"],
            known_latents=known,
        )

    def _by_diffsynth(self, noise: torch.Tensor, conditioning: WindowConditioning) -> torch.Tensor:
        from diffsynth.diffusion.flow_match import FlowMatchScheduler

        settings = self._settings
        sigmas, timesteps = FlowMatchScheduler.set_timesteps_wan(settings.steps, shift=settings.shift)
        latents, known = noise.clone(), conditioning.known_latents
        for step, timestep in enumerate(timesteps):
            sigma = float(sigmas[step])
            following = float(sigmas[step + 1]) if step + 1 < len(sigmas) else 0.0
            if known is not None:
                count = known.shape[2]
                latents[:, :, :count] = (1 - sigma) * known + sigma * noise[:, :, :count]
            with self._context():
                positive, negative = (
                    diffsynth_velocity(self._dit, latents, timestep, conditioning, negative=is_negative)
                    for is_negative in (False, True)
                )
            latents = latents + (following - sigma) * (negative + settings.guidance * (positive - negative))
        if known is not None:
            latents[:, :, : known.shape[2]] = known
        return latents
