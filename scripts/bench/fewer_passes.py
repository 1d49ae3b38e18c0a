"""What each way to fewer passes costs, on a toy that is trained for it: `ex4d bench generate --part fewer`.

Passes are counted while they run. Errors are those of the final latents, and of the frames that the toy's codec makes
of them, to the exact result of the same noise: 25 steps with guidance in bfloat16, as `ex4d-reference` computes them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from bench.measuring import Row
from bench.trained_toy import BATCH, TRAINING_STEPS, TrainedToy, moving_scenes
from ex4d.generation.wan.conditioning import WindowConditioning
from ex4d.generation.wan.denoising import denoise
from ex4d.generation.wan.kernels.attention import fastest_attention
from ex4d.generation.wan.transformer import Transformer
from ex4d_core.step_plan import pass_count
from ex4d_core.wan_settings import WanSettings, wan_preset

CLIPS = 6
# Of `standard` to the exact result, in decibels.
TARGET_PSNR = 30.0
EXACT = wan_preset("ex4d-reference")
# How each row differs from the exact settings.
CASES: dict[str, dict[str, Any]] = {
    "12 steps": {"steps": 12},
    "TeaCache, 0.2": {"tea_cache": 0.2},
    "TeaCache, 0.5": {"tea_cache": 0.5},
    "TeaCache, 0.5, 5 protected": {"tea_cache": 0.5, "protected_steps": 5},
    "every 2nd step": {"step_interval": 2},
    "every 3rd step": {"step_interval": 3},
    "every 3rd step, 3 protected": {"step_interval": 3, "protected_steps": 3},
    "every 3rd step, 5 protected": {"step_interval": 3, "protected_steps": 5},
    "every 4th step, 5 protected": {"step_interval": 4, "protected_steps": 5},
    "guidance at sigmas to 0.9": {"guidance_interval": (0.0, 0.9)},
    "guidance at sigmas from 0.5": {"guidance_interval": (0.5, 1.0)},
    "CFG-Zero*": {"cfg_zero": True},
    "CFG-Zero*, 1 zero step": {"cfg_zero": True, "zero_steps": 1},
    "fp8": {"precision": "fp8"},
}


@dataclass(frozen=True)
class Outcome:
    """Of one case: the passes of a window, and the errors over all clips, PSNR of the worst one too."""

    passes: int
    relative_l2: float
    psnr: float
    worst_psnr: float


class FewerPasses:
    """Runs cases on the clips that the toy was not trained on."""

    def __init__(self, toy: TrainedToy, clips: int = CLIPS):
        self._toy = toy
        scenes = moving_scenes(clips, torch.Generator().manual_seed(100))
        batch = toy.conditioning(scenes)
        self._inputs = [_clip(batch, index) for index in range(clips)]
        shape = toy.codec.encode(scenes.video).shape
        self._noise = torch.randn(shape, generator=torch.Generator().manual_seed(101)).to(toy.device)
        self._exact = self._latents(EXACT)[0]

    def run(self, settings: WanSettings) -> Outcome:
        """Denoise all clips, and compare them with the exact ones."""
        latents, passes = self._latents(settings)
        frames, exact = (self._toy.codec.decode(part) for part in (latents.cpu(), self._exact.cpu()))
        # Of a signal from -1 to 1.
        psnr = 10 * torch.log10(4 / (frames - exact).square().flatten(1).mean(dim=1).clamp_min(1e-12))
        difference = ((latents - self._exact).norm() / self._exact.norm()).item()
        return Outcome(passes, difference, psnr.mean().item(), psnr.min().item())

    def _latents(self, settings: WanSettings) -> tuple[torch.Tensor, int]:
        """Return the final latents of all clips (B, 16, F, h, w), and the passes of each."""
        dit = self._toy.fresh_dit()
        transformer = Transformer(
            dit,
            list(dit.blocks),
            device=self._toy.device,
            fp8=settings.precision == "fp8",
            fp8_attention=settings.fp8_attention,
        )
        running: list[int] = []
        run_blocks = transformer._run_blocks
        transformer._run_blocks = lambda streams, prompts, *rest: (
            running.append(len(prompts)),
            run_blocks(streams, prompts, *rest),
        )[1]
        precision = partial(torch.autocast, self._toy.device.type, torch.bfloat16)
        with fastest_attention():
            latents = [
                denoise(transformer, noise[None], inputs, settings, precision=precision)
                for noise, inputs in zip(self._noise, self._inputs, strict=True)
            ]
        return torch.cat(latents), sum(running) // len(latents)


def _clip(batch: WindowConditioning, index: int) -> WindowConditioning:
    shared = batch.image_embeds
    parts = {name: part[index : index + 1] for name, part in vars(batch).items() if part is not None}
    return replace(batch, **{**parts, "image_embeds": shared})


def measure_fewer_passes(
    device: torch.device, training_steps: int = TRAINING_STEPS, cases: Sequence[str] = tuple(CASES)
) -> Iterator[Row]:
    """Train the toy, and yield a row for each case and for the preset `standard`."""
    if device.type == "cpu":
        torch.set_num_threads(1)  # a toy of this size takes longer with more
    started = time.perf_counter()
    toy = TrainedToy(device, training_steps)
    of_last = toy.losses[-max(1, training_steps // 10) :]
    yield Row(
        "toy trained",
        f"{time.perf_counter() - started:.0f} s",
        f"{training_steps} steps of {BATCH} clips of moving scenes; loss {sum(of_last) / len(of_last):.3f}, "
        f"at first {toy.losses[0]:.3f}",
    )
    fewer = FewerPasses(toy)
    yield Row("fewer, exact", f"{pass_count(EXACT)} passes", f"{EXACT.steps} steps with guidance, bf16")
    for name in cases:
        yield _row(name, fewer.run(replace(EXACT, **CASES[name])))
    standard = fewer.run(wan_preset("standard"))
    target = f"target {TARGET_PSNR:.0f} dB"
    yield replace(row := _row("standard", standard), remark=f"{row.remark}; {target}")


def _row(name: str, outcome: Outcome) -> Row:
    share = pass_count(EXACT) / outcome.passes
    return Row(
        f"fewer, {name}",
        f"{outcome.passes} passes",
        f"{share:.2f} x fewer; relative L2 {outcome.relative_l2:.4f}, PSNR {outcome.psnr:.1f} dB, of the worst clip "
        f"{outcome.worst_psnr:.1f}",
    )
