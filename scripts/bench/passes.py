"""Benchmark of one pass of the transformer: the minimum that its arithmetic takes, and each way to compute it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.measuring import Row, median_seconds
from bench.original_pass import add_lora_layers, diffsynth_velocity
from ex4d.generation.wan.conditioning import WindowConditioning
from ex4d.generation.wan.kernels import fp8_attention, fused
from ex4d.generation.wan.kernels.attention import attention, fastest_attention
from ex4d.generation.wan.kernels.matmul import Fp8Linear
from ex4d.generation.wan.memory import free_memory
from ex4d.generation.wan.networks import load_dit
from ex4d.generation.wan.transformer import Transformer
from ex4d.weights.wan_files import find_wan_files
from ex4d_core.final_estimates import pass_operations

# Targets on one H200, in seconds.
TARGETS = {"bf16": 0.72, "fp8": 0.50}
_TIMESTEP = torch.tensor(500.0)


@dataclass(frozen=True)
class Case:
    """What is measured: EX-4D's own clip on a GPU, a toy clip without one."""

    device: torch.device
    frames: int
    side: int

    @staticmethod
    def of_this_machine() -> Case:
        """Return the case for this machine."""
        on_gpu = torch.cuda.is_available()
        return Case(torch.device("cuda:0"), 49, 512) if on_gpu else Case(torch.device("cpu"), 5, 64)

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU."""
        return self.device.type == "cuda"

    @property
    def grid(self) -> tuple[int, int, int]:
        """(F, h, w) of the latents."""
        return (self.frames - 1) // 4 + 1, self.side // 8, self.side // 8

    @property
    def tokens(self) -> int:
        """Number of the transformer's tokens."""
        frames, height, width = self.grid
        return frames * height * width // 4


def measure_rates(case: Case) -> dict[str, float]:
    """Measure operations per second of matmul and attention on random data."""
    tokens, width, hidden = case.tokens, 5120, 13824
    rows = torch.randn(tokens, width, device=case.device, dtype=torch.bfloat16)
    weight = torch.randn(hidden, width, device=case.device, dtype=torch.bfloat16) * width**-0.5
    bias = torch.zeros(hidden, device=case.device, dtype=torch.bfloat16)
    fp8_linear, fp8_rows = Fp8Linear(weight, bias), fused.quantize_fp8(rows)
    qkv = torch.randn(tokens, 3 * width, device=case.device, dtype=torch.bfloat16)
    factors = torch.full((3,), 64.0, device=case.device)
    query, key, value = qkv.chunk(3, dim=1)
    fp8_qkv = (qkv * 64).clamp(-448, 448).to(fused.FP8)
    of_matmul, of_attention = 2 * tokens * width * hidden, 4 * tokens**2 * width
    work: dict[str, tuple[int, Callable[[], object]]] = {
        "matmul, bf16": (of_matmul, lambda: functional.linear(rows, weight, bias)),
        "matmul, fp8": (of_matmul, lambda: fp8_linear(fp8_rows)),
        "attention, bf16": (of_attention, lambda: attention(query, key, value, 128)),
        "attention, fp8": (of_attention, lambda: fp8_attention.fp8_attention(fp8_qkv, factors, 128)),
    }
    if not fp8_attention.supports_fp8_attention(tokens, width, 128, case.device):
        del work["attention, fp8"]
    rates = {}
    with torch.inference_mode(), fastest_attention():
        for name, (operations, once) in work.items():
            repeats = max(1, int(0.5 / median_seconds(once, 3)))
            rates[name] = operations * repeats / median_seconds(lambda: [once() for _ in range(repeats)], 1)  # noqa: B023
    return rates


def measure_attention_errors(case: Case) -> Iterator[Row]:
    """Measure attention in fp8 on keys with a common offset, as they are and without their mean."""
    width, head = 256, 128
    if not fp8_attention.supports_fp8_attention(case.tokens, width, head, case.device):
        return
    generator = torch.Generator(case.device).manual_seed(0)
    dtype = torch.bfloat16 if case.on_gpu else torch.float32
    weights = [torch.full((width,), value, device=case.device, dtype=dtype) for value in (2.0, 8.0)]
    qkv = torch.randn(case.tokens, 3 * width, generator=generator, device=case.device)
    qkv[:, width : 2 * width] += 8 * torch.randn(width, generator=generator, device=case.device)
    qkv = qkv.to(dtype)
    # Positions as slow as those along a short axis, which leave an offset in place.
    places = torch.arange(case.tokens, device=case.device)[:, None] * 6 / case.tokens
    angles = places / 10_000 ** (torch.arange(head // 2, device=case.device) / (head // 2))
    options = (*weights, (angles.cos(), angles.sin()), 1e-6, head)
    of_queries, of_keys = map(fp8_attention.norm_factor, weights)
    scales = torch.tensor([of_queries, of_keys / 2, fused.FP8_MAX / fused.value_absmax(qkv).item()], device=case.device)
    with torch.inference_mode():
        exact = attention(*fused.qk_norm_rope(qkv.clone(), *options).chunk(3, dim=1), head)
        means = fused.key_sums(qkv, *options[1:]) / case.tokens
        for name, subtracted in (("keys as they are", None), ("keys without their mean", means)):
            values = fused.qk_norm_rope(qkv, *options, scales, subtracted)
            rows, row_scales = fp8_attention.fp8_attention(values, scales, head)
            error = relative_l2(rows.float() * row_scales, exact)
            yield Row(
                f"attention in fp8, {name}", f"{error:.3f}", "relative L2; keys with a common offset of 8 deviations"
            )


def minimum_seconds(case: Case, rates: dict[str, float]) -> dict[str, float]:
    """Return the seconds that a pass's matmuls and attention alone take at these rates."""
    matmul, attention = pass_operations(case.tokens)
    seconds = {
        "bf16": matmul / rates["matmul, bf16"] + attention / rates["attention, bf16"],
        "fp8": matmul / rates["matmul, fp8"] + attention / rates["attention, bf16"],
    }
    if "attention, fp8" in rates:
        seconds["fp8, attention too"] = matmul / rates["matmul, fp8"] + attention / rates["attention, fp8"]
    return seconds


def _random_inputs(case: Case, text_width: int) -> tuple[WindowConditioning, torch.Tensor]:
    """Draw conditioning, with prompts as long as the default ones, and noise."""
    generator = torch.Generator(case.device).manual_seed(0)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=case.device)

    prompt, negative_prompt = values(1, 512, text_width), values(1, 512, text_width)
    prompt[:, 24:] = 0
    negative_prompt[:, 130:] = 0
    latents = values(1, 32, *case.grid), values(1, 20, *case.grid)
    image_embeds = values(1, 257, 1280).bfloat16().float()
    return WindowConditioning(prompt, negative_prompt, *latents, image_embeds), values(1, 16, *case.grid)


def measure_passes(case: Case, models: Path) -> Generator[Row, None, float]:
    """Measure one pass with each option, several in a row as in a job; return the original's seconds."""
    files = find_wan_files(models)
    repeats = 5 if case.on_gpu else 1
    loaded = load_dit(files.dit, files.ex4d, device=case.device)

    def measure(
        once: Callable[[], torch.Tensor], choice_of_attention: AbstractContextManager[Any]
    ) -> tuple[float, torch.Tensor]:
        with torch.inference_mode(), torch.autocast(case.device.type, torch.bfloat16), choice_of_attention:
            result = once()
            return median_seconds(lambda: [once() for _ in range(repeats)], 1) / repeats, result

    dit = copy.deepcopy(loaded)
    conditioning, noise = _random_inputs(case, cast(nn.Linear, dit.text_embedding[0]).in_features)
    seconds, exact = measure(partial(diffsynth_velocity, dit, noise, _TIMESTEP, conditioning), contextlib.nullcontext())
    yield Row("pass, DiffSynth as it comes", f"{seconds:.3f} s", "LoRA merged, not compiled, torch's own attention")
    add_lora_layers(dit)
    flash = sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], set_priority=True)
    original, _ = measure(partial(diffsynth_velocity, dit, noise, _TIMESTEP, conditioning), flash)
    yield Row("pass, the original", f"{original:.3f} s", "LoRA at run time, not compiled, FlashAttention")
    if case.on_gpu:
        dit = copy.deepcopy(loaded)
        for block in dit.blocks:
            block.forward = torch.compile(block.forward, dynamic=False)
        once = partial(diffsynth_velocity, dit, noise, _TIMESTEP, conditioning)
        seconds, result = measure(once, fastest_attention())
        remark = f"torch.compile of the blocks, cuDNN; {_difference(result, exact)}"
        yield Row("pass, DiffSynth compiled", f"{seconds:.3f} s", remark)
        del once
    for name, fp8, attention_too in (("bf16", False, False), ("fp8", True, False), ("fp8, attention too", True, True)):
        del dit
        free_memory()
        dit = copy.deepcopy(loaded)
        transformer = Transformer(dit, dit.blocks, fp8=fp8, fp8_attention=attention_too)
        with torch.inference_mode(), torch.autocast(case.device.type, torch.bfloat16), fastest_attention():
            prepared = transformer.prepare(conditioning)
        once = partial(transformer.velocities, noise, _TIMESTEP, prepared, (0,))
        seconds, result = measure(lambda once=once: once()[0], fastest_attention())
        remark = f"{original / seconds:.2f} x the original's; {_difference(result, exact)}"
        remark += f"; target {TARGETS[name]:.2f} s on an H200" if name in TARGETS else ""
        yield Row(f"pass, ours, {name}", f"{seconds:.3f} s", remark)
        del transformer, prepared, once
    free_memory()
    return original


def _difference(result: torch.Tensor, exact: torch.Tensor) -> str:
    return f"relative L2 {relative_l2(result, exact):.4f} to DiffSynth's"


def relative_l2(result: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the length of the difference, over that of ``exact``."""
    return ((result.float() - exact.float()).norm() / exact.float().norm()).item()
