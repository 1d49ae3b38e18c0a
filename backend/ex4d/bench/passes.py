"""One pass of the transformer on this machine: what the arithmetic alone would take, and each way to compute it.

The first table of `ex4d bench generate` (`bench_generate.py` has the others).
"""

from __future__ import annotations

import contextlib
import copy
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ex4d.bench.measuring import Row, median_seconds
from ex4d.bench.original_pass import add_run_time_lora, diffsynth_velocity
from ex4d.generate.wan.denoising import Conditions
from ex4d.generate.wan.files import find_files
from ex4d.generate.wan.kernels.attention import fastest_attention
from ex4d.generate.wan.networks import load_dit
from ex4d.generate.wan.transformer import Transformer

# What is asked of one H200.
TARGETS = {"bf16": 0.72, "fp8": 0.50}
_TIMESTEP = torch.tensor(500.0)


@dataclass(frozen=True)
class Case:
    """What is measured: EX-4D's own clip on a GPU, next to nothing without one."""

    device: torch.device
    frames: int
    side: int

    @staticmethod
    def of_this_machine() -> Case:
        on_gpu = torch.cuda.is_available()
        return Case(torch.device("cuda:0"), 49, 512) if on_gpu else Case(torch.device("cpu"), 5, 64)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def grid(self) -> tuple[int, int, int]:
        return (self.frames - 1) // 4 + 1, self.side // 8, self.side // 8

    @property
    def tokens(self) -> int:
        frames, height, width = self.grid
        return frames * height * width // 4


def measured_rates(case: Case) -> dict[str, float]:
    """Operations a second of products and of attention, on random data."""
    from ex4d.generate.wan.kernels import fp8_attention as attention8
    from ex4d.generate.wan.kernels import fused
    from ex4d.generate.wan.kernels.matmul import Fp8Linear

    tokens, width, hidden = case.tokens, 5120, 13824
    rows = torch.randn(tokens, width, device=case.device, dtype=torch.bfloat16)
    weight = torch.randn(hidden, width, device=case.device, dtype=torch.bfloat16) * width**-0.5
    bias = torch.zeros(hidden, device=case.device, dtype=torch.bfloat16)
    eight, eight_rows = Fp8Linear(weight, bias), fused.quantized(rows)
    qkv = torch.randn(tokens, 3 * width, device=case.device, dtype=torch.bfloat16)
    factors = torch.full((3,), 64.0, device=case.device)
    qkv8 = (qkv * 64).clamp(-448, 448).to(fused.FP8)
    product, attention = 2 * tokens * width * hidden, 4 * tokens**2 * width
    work = {
        "products, bf16": (product, lambda: functional.linear(rows, weight, bias)),
        "products, fp8": (product, lambda: eight(eight_rows)),
        "attention, bf16": (attention, lambda: fused.attention(*qkv.chunk(3, dim=1), 128)),
        "attention, fp8": (attention, lambda: attention8.attention8(qkv8, factors, 128)),
    }
    if not attention8.can_attend(tokens, width, 128, case.device):
        del work["attention, fp8"]
    rates = {}
    with torch.inference_mode(), fastest_attention():
        for name, (operations, once) in work.items():
            repeats = max(1, int(0.5 / median_seconds(once, 3)))
            rates[name] = operations * repeats / median_seconds(lambda: [once() for _ in range(repeats)], 1)  # noqa: B023
    return rates


def floors(case: Case, rates: dict[str, float]) -> dict[str, float]:
    width, hidden, blocks, tokens = 5120, 13824, 40, case.tokens
    products = blocks * tokens * (12 * width * width + 4 * width * hidden)
    attention = blocks * 4 * tokens**2 * width
    made = {
        "bf16": products / rates["products, bf16"] + attention / rates["attention, bf16"],
        "fp8": products / rates["products, fp8"] + attention / rates["attention, bf16"],
    }
    if "attention, fp8" in rates:
        made["fp8, attention too"] = products / rates["products, fp8"] + attention / rates["attention, fp8"]
    return made


def _conditions(case: Case, text_width: int) -> tuple[Conditions, torch.Tensor]:
    """Random ones, with prompts as long as the default ones, and noise."""
    generator = torch.Generator(case.device).manual_seed(0)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=case.device)

    texts = [values(1, 512, text_width) for _ in range(2)]
    texts[0][:, 24:] = 0
    texts[1][:, 130:] = 0
    conditions = Conditions(
        *texts, values(1, 32, *case.grid), values(1, 20, *case.grid), values(1, 257, 1280).bfloat16().float()
    )
    return conditions, values(1, 16, *case.grid)


def passes(case: Case, models: Path) -> Iterator[Row]:
    """One pass with each option, several in a row as in a job; returns the original's seconds."""
    files = find_files(models)
    repeats = 5 if case.on_gpu else 1
    loaded = load_dit(files.dit, files.ex4d, device=case.device)

    def load():
        return copy.deepcopy(loaded)

    @contextlib.contextmanager
    def inside(*contexts) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.autocast(case.device.type, torch.bfloat16))
            for context in contexts:
                stack.enter_context(context)
            yield

    def measured(once: Callable[[], torch.Tensor], exact: torch.Tensor | None, *contexts) -> tuple[float, str]:
        with inside(*contexts):
            made = once()
            seconds = median_seconds(lambda: [once() for _ in range(repeats)], 1) / repeats
        return seconds, "" if exact is None else f"relative L2 {relative_l2(made, exact):.4f} to DiffSynth's"

    dit = load()
    conditions, noise = _conditions(case, dit.text_embedding[0].in_features)

    def diffsynth() -> torch.Tensor:
        return diffsynth_velocity(dit, noise, _TIMESTEP, conditions)

    with inside():
        exact = diffsynth()
    seconds, _ = measured(diffsynth, None)
    yield Row("pass, DiffSynth as it comes", f"{seconds:.3f} s", "LoRA merged, not compiled, torch's own choice")
    add_run_time_lora(dit)
    flash = sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], set_priority=True)
    original, _ = measured(diffsynth, None, flash)
    yield Row("pass, the original's way", f"{original:.3f} s", "LoRA at run time, not compiled, FlashAttention")
    if case.on_gpu:
        dit = load()
        for block in dit.blocks:
            block.forward = torch.compile(block.forward, dynamic=False)
        seconds, remark = measured(diffsynth, exact, fastest_attention())
        yield Row("pass, DiffSynth compiled", f"{seconds:.3f} s", f"torch.compile of the blocks, cuDNN; {remark}")
    for name, options in (
        ("bf16", {}),
        ("fp8", {"fp8": True}),
        ("fp8, attention too", {"fp8": True, "fp8_attention": True}),
    ):
        dit = None
        _free_memory()
        transformer = Transformer(load(), **options)
        with inside(fastest_attention()):
            prepared = transformer.prepare(conditions)

        def ours(by=transformer, given=prepared) -> torch.Tensor:
            return by.velocities(noise, _TIMESTEP, given, (0,))[0]

        seconds, remark = measured(ours, exact, fastest_attention())
        target = f"; target {TARGETS[name]:.2f} s on an H200" if name in TARGETS else ""
        yield Row(
            f"pass, ours, {name}", f"{seconds:.3f} s", f"{original / seconds:.2f} x the original's; {remark}{target}"
        )
        del transformer, prepared, ours
        _free_memory()
    return original


def relative_l2(made: torch.Tensor, exact: torch.Tensor) -> float:
    return ((made.float() - exact.float()).norm() / exact.float().norm()).item()


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
