"""How long the engine wan takes on this machine, beside DiffSynth's own code and the original EX-4D's way of using it.

The tables of `ex4d bench generate`: rates, one pass of the transformer with each option and what it does to the result,
whole jobs by stage, memory modes under a cap. All with random weights of the published sizes, in files written for the
purpose. Without a GPU the same runs at toy size, which shows that it runs and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ex4d.bench import PARTS
from ex4d.bench.measuring import Row, median_seconds, wait_for_gpu
from ex4d.bench.passes import (
    Case,
    floors,
    measured_rates,
    passes,
    relative_l2,
)
from ex4d.generate.engine import EngineProgress
from ex4d.generate.wan.files import find_files
from ex4d.generate.wan.loaded_networks import LoadedModels, ModelChoice
from ex4d.generate.wan.networks import load_image_encoder, load_vae
from ex4d.generate.wan.random_weights import write_models
from ex4d.generate.wan.wan_engine import WanEngine
from ex4d.machine import VRAM_LIMIT_VARIABLE
from ex4d.raster import RenderedFrame
from ex4d_core.shot import WanSettings, wan_preset

# What is asked of one H200.
TARGETS = {"job": 2.3, "fast": 5.0}
CAPS = (24, 12)


def measure_generation(folder: Path | None = None, parts: Sequence[str] = PARTS) -> Iterator[Row]:
    """All rows, each as soon as it is measured.

    Args:
        parts: of `PARTS`.
        folder: where the random weights are written (52 GB on a GPU machine) and removed again; a temporary one by
            default.
    """
    case = Case.of_this_machine()
    size = f"{case.frames} frames, {case.side}x{case.side}, {case.tokens:,} tokens"
    yield Row("case", "14B" if case.on_gpu else "toy", f"{size}, random weights")
    if not case.on_gpu:
        yield Row("GPU rows", "no GPU", "PyTorch finds no CUDA device on this machine; times below say nothing")
    with tempfile.TemporaryDirectory(prefix="ex4d-bench-", dir=folder) as place, _environment(Path(place) / "cache"):
        started = time.perf_counter()
        models = write_models(Path(place) / "models", full_size=case.on_gpu, device=case.device)
        yield Row("weights written", f"{time.perf_counter() - started:.0f} s", "not part of any job")
        original = None
        if "passes" in parts:
            # First, since torch forgets its own choice of attention once it was told another.
            original = yield from passes(case, models)
            yield from _limits(case)
        if "jobs" in parts:
            yield from _jobs(case, models, original)
        if "memory" in parts:
            yield from _memory_modes(case, models)
        if "gpus" in parts:
            yield from _several_gpus(case, models)


@contextlib.contextmanager
def _environment(cache: Path) -> Iterator[None]:
    """Caches of its own for the time, so that nothing from before makes anything faster."""
    changed = {"XDG_CACHE_HOME": str(cache), VRAM_LIMIT_VARIABLE: None}
    before = {name: os.environ.get(name) for name in changed}
    try:
        _set(changed)
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _limits(case: Case) -> Iterator[Row]:
    """How fast this GPU multiplies and attends, and what a pass would take if it did nothing else."""
    if not case.on_gpu:
        return
    rates = measured_rates(case)
    for what, rate in rates.items():
        yield Row(what, f"{rate / 1e12:.0f} TFLOP/s", "in a row for half a second, at the transformer's own sizes")
    for what, seconds in floors(case, rates).items():
        yield Row(f"floor of a pass, {what}", f"{seconds:.3f} s", "arithmetic alone at the rates above")


class _TimedEngine(WanEngine):
    """Notes when its stages and steps end, and keeps the latents."""

    def __init__(self, settings: WanSettings, models: LoadedModels):
        super().__init__(settings, models)
        self.marks: dict[str, float] = {}
        self.latents: torch.Tensor | None = None
        self.steps: list[float] = []

    def _conditions(self, *arguments):
        made = super()._conditions(*arguments)
        wait_for_gpu()
        self.marks["encode"] = time.perf_counter()
        return made

    def _latents_once(self, *arguments):
        self.latents = super()._latents_once(*arguments)
        wait_for_gpu()
        self.marks["denoise"] = time.perf_counter()
        return self.latents

    def _note(self, progress: EngineProgress) -> None:
        if progress.stage == "denoise":
            self.steps.append(time.perf_counter())

    def run(self, frames: list[RenderedFrame]) -> dict[str, float]:
        """Seconds of encode, denoise, decode, and of everything."""
        wait_for_gpu()
        started = time.perf_counter()
        count = sum(1 for _ in self.generate(frames, count=len(frames), watch=self._note))
        ended = time.perf_counter()
        assert count == len(frames)
        encode, denoise = self.marks["encode"], self.marks["denoise"]
        return {
            "encode": encode - started,
            "denoise": denoise - encode,
            "decode": ended - denoise,
            "total": ended - started,
        }


def _jobs(case: Case, folder: Path, original_pass: float | None) -> Iterator[Row]:
    """Whole jobs, from rendered frames to finished ones."""
    frames = _shot(case)
    original = None if original_pass is None else (yield from _original_job(case, folder, original_pass))
    latents = {}
    jobs = [
        ("ex4d-reference, bf16", wan_preset("ex4d-reference", precision="bf16")),
        ("fast, bf16", wan_preset("fast", loras=(), precision="bf16", fp8_attention=False)),
        ("ex4d-reference", wan_preset("ex4d-reference")),
        ("fast", wan_preset("fast", loras=())),
    ]
    kept: LoadedModels | None = None
    for name, settings in jobs:
        if kept is None or _choice(case, folder, settings) != kept.choice:
            if kept is not None:
                kept.unload()
            kept = LoadedModels(_choice(case, folder, settings))
            loading = _TimedEngine(_quick(settings), kept).run(frames)["total"]
            yield Row(
                f"loading, {settings.precision}", f"{loading:.1f} s", "a job of one step, all models loaded for it"
            )
        engine = _TimedEngine(settings if case.on_gpu else _quick(settings), kept)
        peak = _peak_reset(case)
        seconds = engine.run(frames)
        latents[name] = engine.latents.clone()
        stages = ", ".join(f"{stage} {seconds[stage]:.2f} s" for stage in ("encode", "denoise", "decode"))
        if name.startswith("ex4d"):
            remark = f"{_times(original, seconds['total'])}; target {TARGETS['job']} x"
        else:
            remark = f"{settings.steps} steps, no guidance; target {TARGETS['fast']:.0f} s"
        memory = f", {peak():.1f} GB" if case.on_gpu else ""
        yield Row(f"job, {name}", f"{seconds['total']:.2f} s", f"{_arithmetic(settings)}: {stages}{memory}; {remark}")
    for name, exact in (("ex4d-reference", "ex4d-reference, bf16"), ("fast", "fast, bf16")):
        changed = relative_l2(latents[name], latents[exact])
        yield Row(f"final latents, {name}", f"{changed:.4f}", "relative L2 to bf16, same weights and noise")
    kept.unload()


def _times(original: float | None, seconds: float) -> str:
    return "the original was not measured" if original is None else f"{original / seconds:.2f} x the original's"


def _arithmetic(settings: WanSettings) -> str:
    return f"{settings.precision}{', attention too' if settings.fp8_attention else ''}"


def _original_job(case: Case, folder: Path, original_pass: float) -> Iterator[Row]:
    """The original's job from its parts: 50 passes, and encoders and decoder as DiffSynth has them."""
    from ex4d.generate.wan.decoding import decode_in_order, encode_video
    from ex4d.generate.wan.encoders import encode_picture

    files = find_files(folder)
    vae = load_vae(files.vae, device=case.device)
    encoder = load_image_encoder(files.image_encoder, device=case.device, dtype=torch.bfloat16)
    video = torch.rand(1, 3, case.frames, case.side, case.side, device=case.device) * 2 - 1
    latents = torch.randn(1, 16, *case.grid, device=case.device)

    def precision():
        return torch.autocast(case.device.type, torch.bfloat16)

    def around() -> None:
        with torch.inference_mode(), precision():
            encode_picture(encoder, video[:, :, 0])
            for _ in range(3):
                encode_video(vae, video, case.device)
        for _ in decode_in_order(vae, latents, precision):
            pass

    seconds = median_seconds(around, 1)
    steps = WanSettings().steps
    total = 2 * steps * original_pass + seconds
    yield Row(
        "job, the original's way",
        f"{total:.1f} s",
        f"{2 * steps} passes as measured, encoders and decoder {seconds:.2f} s",
    )
    return total


def _memory_modes(case: Case, folder: Path) -> Iterator[Row]:
    """Time of a step and peak memory, with the process's memory capped."""
    if not case.on_gpu:
        for cap in CAPS:
            yield Row(f"memory, cap {cap} GB", "no GPU", "")
        return
    plain = None
    settings = wan_preset("ex4d-reference", precision="bf16", steps=4)
    for cap in (None, *CAPS):
        _set({VRAM_LIMIT_VARIABLE: None if cap is None else str(cap)})
        models = LoadedModels(_choice(case, folder, settings))
        loading, step, memory = _step(case, settings, models)
        plain = plain or step
        yield Row(
            f"memory, {'no cap' if cap is None else f'cap {cap} GB'}",
            f"{memory:.1f} GB",
            f"{step:.3f} s a step, {100 * (step / plain - 1):+.0f} %; bf16, {models.mode}; loaded in {loading:.0f} s",
        )
        models.unload()
        torch.cuda.set_per_process_memory_fraction(1.0, case.device)
    _set({VRAM_LIMIT_VARIABLE: None})


def _several_gpus(case: Case, folder: Path) -> Iterator[Row]:
    """One shot on more and more GPUs; two processes on the processor where there is none."""
    counts = [count for count in (2, 4, 8) if count <= torch.cuda.device_count()] if case.on_gpu else [2]
    if not counts:
        yield Row("several GPUs", "one GPU", "this machine has no more")
        return
    for name, settings in (
        ("guided", wan_preset("ex4d-reference", steps=4)),
        ("unguided", wan_preset("fast", loras=())),
    ):
        plain, exact = None, None
        for count in (1, *counts):
            peers = tuple(f"cuda:{number}" if case.on_gpu else "cpu" for number in range(1, count))
            models = LoadedModels(replace(_choice(case, folder, settings), peers=peers))
            loading, step, _ = _step(case, settings, models, latents := [])
            plain, exact = plain or step, exact if exact is not None else latents[0]
            remark = f"{plain / step:.2f} x one; relative L2 to one {relative_l2(latents[0], exact):.4f}"
            what = (
                f"{count} GPU{'s' if count > 1 else ''}, a step {name}" if case.on_gpu else f"{count} processes, {name}"
            )
            yield Row(what, f"{step:.3f} s", f"{remark}; {_arithmetic(settings)}; loaded in {loading:.0f} s")
            models.unload()


def _step(
    case: Case, settings: WanSettings, models: LoadedModels, latents: list[torch.Tensor] | None = None
) -> tuple[float, float, float]:
    """Seconds of loading and of a step (the first one, which warms up, left out), and gigabytes of memory at most."""
    started = time.perf_counter()
    _TimedEngine(_quick(settings), models).run(_shot(case))
    loading = time.perf_counter() - started
    engine = _TimedEngine(settings, models)
    peak = _peak_reset(case)
    engine.run(_shot(case))
    if latents is not None:
        latents.append(engine.latents.float().cpu())
    return loading, float(np.median(np.diff(engine.steps))), peak()


def _choice(case: Case, folder: Path, settings: WanSettings) -> ModelChoice:
    return ModelChoice(find_files(folder), (), str(case.device), settings.precision, settings.fp8_attention)


def _quick(settings: WanSettings) -> WanSettings:
    return replace(settings, steps=1)


def _peak_reset(case: Case) -> Callable[[], float]:
    """Start to watch memory; gives the gigabytes at most, once asked."""
    if not case.on_gpu:
        return lambda: 0.0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(case.device)
    return lambda: torch.cuda.max_memory_reserved(case.device) / 2**30


def _shot(case: Case) -> list[RenderedFrame]:
    """Coloured blocks; what is unseen at the left grows."""
    generator = np.random.default_rng(0)
    frames = []
    for index in range(case.frames):
        coarse = generator.integers(0, 256, (case.side // 8, case.side // 8, 3), dtype=np.uint8)
        mask = np.ones((case.side, case.side), bool)
        mask[:, : 3 * index] = False
        color = coarse.repeat(8, 0).repeat(8, 1) * mask[..., None]
        frames.append(RenderedFrame(index, color, mask, np.ones((case.side, case.side), np.float32)))
    return frames
