"""Parity of the transformer with LoRA and camera encoder: PREFIX.npz, _dit.safetensors, _adapter.ckpt.

Runs the engine's own loading and denoising twice: under bfloat16 autocast, as the original did, and in float32.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ex4d.generation.wan.conditioning import WindowConditioning
from ex4d.generation.wan.denoising import denoise, flow_match_schedule
from ex4d.generation.wan.networks import HEAD_CHANNELS, load_dit, require_diffsynth
from ex4d.generation.wan.transformer import Transformer
from ex4d_core.wan_settings import WanSettings
from parity.comparison import Comparison, ParityCaseError, compare_arrays, read_case_with_weights

# Relative L2 to the original, whose own result under autocast is not more exact.
RAY_BOUND = 0.01
VELOCITY_BOUND = 0.01
FINAL_BOUNDS = {"bf16": 0.015, "float32": 0.006}
SCHEDULE_BOUND = 1e-6

_INPUTS = ("color_latents", "mask_latents", "noise", "y", "clip_feature", "context_positive", "context_negative")
_NEEDED = (*_INPUTS, "cfg_scale", "sigma_shift", "timesteps", "sigmas", "final_latents", "ray_latent", "config")
_VELOCITY = re.compile(r"velocity_t(\d+)(_no_adapter|_no_lora)?")


def compare_generation(prefix: Path, device: str = "cpu") -> Iterator[Comparison]:
    """Yield every comparison of a case, each as soon as it is computed.

    Args:
        prefix: the path of the case's files, with or without ``.npz``.
        device: where the engine runs.

    Raises:
        ParityCaseError: files are missing or not laid out like the golden data.
        CheckpointError: weights cannot be loaded.
    """
    require_diffsynth()
    case, weights = read_case_with_weights(prefix, _NEEDED)
    _require_layout(case)
    yield from _schedule(case)
    for precision in ("bf16", "float32"):
        yield from _precision(case, weights, precision, torch.device(device))


def _require_layout(case: dict[str, np.ndarray]) -> None:
    """Check that sizes fit together, and that the heads are Wan's."""
    latents = case["noise"].shape
    if len(latents) != 5 or latents[3] % 2 or latents[4] % 2:
        raise ParityCaseError(f"invalid noise of shape {latents}: expected (1, 16, F, h, w) with even h and w")
    for name in ("color_latents", "mask_latents", "y"):
        if case[name].shape[2:] != latents[2:]:
            raise ParityCaseError(f"invalid {name} of shape {case[name].shape}: expected that of the noise, {latents}")
    try:
        config = json.loads(str(case["config"]))
        width, heads = config["dim"], config["num_heads"]
    except (ValueError, LookupError, TypeError) as error:
        raise ParityCaseError(f"invalid config: expected JSON with dim and num_heads ({error!r})") from error
    if width != HEAD_CHANNELS * heads:
        raise ParityCaseError(
            f"invalid config with {heads} heads for a width of {width}: expected heads of {HEAD_CHANNELS} channels"
        )


def _schedule(case: dict[str, np.ndarray]) -> Iterator[Comparison]:
    sigmas, timesteps = flow_match_schedule(len(case["timesteps"]), float(case["sigma_shift"]))
    yield compare_arrays("timesteps", timesteps.numpy(), case["timesteps"], SCHEDULE_BOUND)
    yield compare_arrays("sigmas", sigmas[:-1].numpy(), case["sigmas"], SCHEDULE_BOUND)


@torch.inference_mode()
def _precision(
    case: dict[str, np.ndarray], weights: list[Path], precision: str, device: torch.device
) -> Iterator[Comparison]:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    exact = precision == "float32"

    def context() -> AbstractContextManager[Any]:
        return contextlib.nullcontext() if exact else torch.autocast(device.type, torch.bfloat16)

    def load(*, with_ex4d_lora: bool = True) -> Transformer:
        dit = load_dit([weights[0]], weights[1], device=device, dtype=dtype, with_ex4d_lora=with_ex4d_lora)
        return Transformer(dit, dit.blocks)

    inputs = {name: torch.from_numpy(case[name].astype(np.float32)).to(device) for name in _INPUTS}
    conditioning = WindowConditioning(
        prompt_embeds=inputs["context_positive"],
        negative_prompt_embeds=inputs["context_negative"],
        control_latents=torch.cat([inputs["color_latents"], inputs["mask_latents"]], dim=1),
        image_latents=inputs["y"],
        image_embeds=inputs["clip_feature"],
    )
    transformer = load()
    with context():
        ray = transformer.encode_camera(conditioning.control_latents)
    assert ray is not None
    yield _compare("ray_latent", precision, ray, case, RAY_BOUND)
    for name, match in sorted((name, match) for name in case if (match := _VELOCITY.fullmatch(name))):
        time, variant = match.groups()
        chosen = load(with_ex4d_lora=False) if variant == "_no_lora" else transformer
        adapter = chosen.dit.control_adapter
        if variant == "_no_adapter":
            chosen.dit.control_adapter = None
        with context():
            prepared = chosen.prepare(conditioning)
            velocity = chosen.velocities(inputs["noise"], torch.tensor(float(time)), prepared, (0,))[0]
        chosen.dit.control_adapter = adapter
        yield _compare(name, precision, velocity, case, VELOCITY_BOUND)
    final = denoise(
        transformer,
        inputs["noise"],
        conditioning,
        WanSettings(steps=len(case["timesteps"]), shift=float(case["sigma_shift"]), guidance=float(case["cfg_scale"])),
        precision=context,
    )
    yield _compare("final_latents", precision, final, case, FINAL_BOUNDS[precision])


def _compare(name: str, precision: str, result: torch.Tensor, case: dict[str, np.ndarray], bound: float) -> Comparison:
    return compare_arrays(f"{name} ({precision})", result.float().cpu().numpy(), case[name], bound)
