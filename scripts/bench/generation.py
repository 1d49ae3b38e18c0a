"""Benchmark of the engine wan beside DiffSynth's own code and the original EX-4D's use of it: `ex4d bench generate`.

Measures rates, one pass of the transformer with each option and its effect on the result, whole jobs by stage, and
memory modes under a cap, with random weights of the published sizes in files written for it. Without a GPU all runs at
toy size, which only shows that it runs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from bench import PARTS
from bench.attention_sizes import measure_attention
from bench.decoding import measure_decoding
from bench.fewer_passes import measure_fewer_passes
from bench.files import measure_files
from bench.live import measure_live
from bench.loading import measure_cold_starts, measure_switches
from bench.measuring import Row, median_seconds, wait_for_gpu
from bench.passes import (
    Case,
    measure_attention_errors,
    measure_passes,
    measure_rates,
    minimum_seconds,
    relative_l2,
)
from bench.peer import measure_peers
from bench.random_weights import write_models
from ex4d.generation.engine import GenerationProgress
from ex4d.generation.wan.encode_cache import encodes
from ex4d.generation.wan.loaded_networks import LoadedNetworks, networks_for
from ex4d.generation.wan.network_choice import NetworkChoice
from ex4d.generation.wan.networks import load_image_encoder, load_vae
from ex4d.generation.wan.wan_engine import WanEngine
from ex4d.raster import RenderedFrame
from ex4d.weights.wan_files import find_wan_files
from ex4d_core.wan_settings import WanSettings, wan_preset

# Targets on one H200.
TARGETS = {"job": 2.3, "fast": 5.0}
CAPS = (24, 12)
# Presets that are measured under caps, of which None is no cap. A card of 24 GB has this much beside a desktop.
_CAPPED = {"ex4d-reference": (None, *CAPS), "standard": (23,)}


def measure_generation(
    folder: Path | None = None, parts: Sequence[str] = PARTS, gigabytes: float = 0.0
) -> Iterator[Row]:
    """Yield all rows, each as soon as it is measured.

    Args:
        folder: where the random weights are written (52 GB on a GPU machine) and removed again; a temporary one by
            default.
        parts: of `PARTS` and `FURTHER_PARTS`.
        gigabytes: see `measure_cold_starts`.
    """
    if "files" in parts:
        yield from measure_files()
        if set(parts) == {"files"}:
            return
    case = Case.of_this_machine()
    size = f"{case.frames} frames, {case.side}x{case.side}, {case.tokens:,} tokens"
    yield Row("case", "14B" if case.on_gpu else "toy", f"{size}, random weights")
    if not case.on_gpu:
        yield Row("GPU rows", "no GPU", "PyTorch finds no CUDA device on this machine; the times below are meaningless")
    yield from _without_files(case, parts)
    if not set(parts) & set(PARTS):
        return
    with tempfile.TemporaryDirectory(prefix="ex4d-bench-", dir=folder) as place, mock.patch.dict(os.environ):
        # An empty cache, so that no earlier run makes this one faster.
        os.environ["XDG_CACHE_HOME"] = str(Path(place) / "cache")
        if "cold" in parts:
            cold = Path(place) / "cold"
            yield from measure_cold_starts(case, cold, _shot(case), gigabytes)
            shutil.rmtree(cold)
        if set(parts) == {"cold"}:
            return
        started = time.perf_counter()
        models = write_models(Path(place) / "models", full_size=case.on_gpu, device=case.device)
        yield Row("weights written", f"{time.perf_counter() - started:.0f} s", "not part of any job")
        original = None
        if "passes" in parts:
            # First, since torch's own choice of attention is lost once another was set.
            original = yield from measure_passes(case, models)
            yield from measure_attention_errors(case)
            yield from _limits(case)
        if "jobs" in parts:
            yield from _jobs(case, models, original)
        if "memory" in parts:
            yield from _memory_modes(case, models)
        if "gpus" in parts:
            yield from _several_gpus(case, models)
        if "decode" in parts:
            yield from measure_decoding(case, models)
        if "live" in parts:
            yield from measure_live(case, models)
        if "switch" in parts:
            yield from measure_switches(case, models)


def _without_files(case: Case, parts: Sequence[str]) -> Iterator[Row]:
    """Measure the parts that make their own weights."""
    if "fewer" in parts:
        yield from measure_fewer_passes(case.device)
    if "attention" in parts:
        yield from measure_attention(case)
    if "peer" in parts:
        yield from measure_peers(case)


def _limits(case: Case) -> Iterator[Row]:
    """Measure the GPU's rates, and what a pass would take if it did nothing else."""
    if not case.on_gpu:
        return
    rates = measure_rates(case)
    for what, rate in rates.items():
        yield Row(what, f"{rate / 1e12:.0f} TFLOP/s", "in a row for half a second, at the transformer's own sizes")
    for what, seconds in minimum_seconds(case, rates).items():
        yield Row(f"minimum of a pass, {what}", f"{seconds:.3f} s", "arithmetic alone at the rates above")


class _TimedEngine(WanEngine):
    """Records when its stages and steps end, and the latents."""

    def __init__(self, settings: WanSettings, networks: LoadedNetworks):
        super().__init__(settings, networks)
        self.marks: dict[str, float] = {}
        self.latents = torch.empty(0)
        self.steps: list[float] = []
        encode = self.encoder.encode

        def timed_encode(*args: Any, **kwargs: Any) -> Any:
            encoded = encode(*args, **kwargs)
            wait_for_gpu()
            self.marks["encode"] = time.perf_counter()
            return encoded

        self.encoder.encode = timed_encode

    def _generate_latents(self, *args: Any, **kwargs: Any) -> Any:
        self.latents, hold = super()._generate_latents(*args, **kwargs)
        wait_for_gpu()
        self.marks["denoise"] = time.perf_counter()
        return self.latents, hold

    def _record(self, progress: GenerationProgress) -> None:
        if progress.stage == "denoise" and not progress.parts:
            self.steps.append(time.perf_counter())

    def run(self, frames: list[RenderedFrame]) -> dict[str, float]:
        """Return the seconds of encode, denoise, decode, and in total; what an earlier job encoded is forgotten."""
        encodes.clear()
        wait_for_gpu()
        started = time.perf_counter()
        count = sum(1 for _ in self.generate(frames, count=len(frames), on_progress=self._record))
        ended = time.perf_counter()
        assert count == len(frames)
        encode, denoise = self.marks["encode"], self.marks["denoise"]
        total = ended - started
        return {"encode": encode - started, "denoise": denoise - encode, "decode": ended - denoise, "total": total}


def _jobs(case: Case, folder: Path, original_pass: float | None) -> Iterator[Row]:
    """Measure whole jobs, from rendered frames to final ones."""
    frames = _shot(case)
    original = None if original_pass is None else (yield from _original_job(case, folder, original_pass))
    latents, networks = {}, None
    jobs = [
        ("ex4d-reference", wan_preset("ex4d-reference")),
        ("fast, bf16", wan_preset("fast", loras=(), precision="bf16", fp8_attention=False)),
        ("standard", wan_preset("standard")),
        ("fast", wan_preset("fast", loras=())),
    ]
    for name, settings in jobs:
        one_step, last = replace(settings, steps=1), networks
        networks = networks_for(_choice(case, folder, settings))
        if networks is not last:
            loading = _TimedEngine(one_step, networks).run(frames)["total"]
            yield Row(f"loading, {settings.precision}", f"{loading:.1f} s", "a job of one step that loads all networks")
        engine = _TimedEngine(settings if case.on_gpu else one_step, networks)
        peak = _peak_reset(case)
        seconds = engine.run(frames)
        latents[name] = engine.latents.clone()
        stages = ", ".join(f"{stage} {seconds[stage]:.2f} s" for stage in ("encode", "denoise", "decode"))
        if name in ("ex4d-reference", "standard"):
            ratio = "no original" if original is None else f"{original / seconds['total']:.2f} x the original's"
            remark = f"{ratio}; target {TARGETS['job']} x"
        else:
            remark = f"{settings.steps} steps, no guidance; target {TARGETS['fast']:.0f} s"
        memory = f", {peak():.1f} GB" if case.on_gpu else ""
        yield Row(f"job, {name}", f"{seconds['total']:.2f} s", f"{_arithmetic(settings)}: {stages}{memory}; {remark}")
    for name, exact in (("standard", "ex4d-reference"), ("fast", "fast, bf16")):
        difference = relative_l2(latents[name], latents[exact])
        yield Row(f"final latents, {name}", f"{difference:.4f}", "relative L2 to bf16, same weights and noise")
    if networks is not None:
        networks.unload()


def _arithmetic(settings: WanSettings) -> str:
    return f"{settings.precision}{', attention too' if settings.fp8_attention else ''}"


def _original_job(case: Case, folder: Path, original_pass: float) -> Generator[Row, None, float]:
    """Measure the original's job by its parts: 50 passes, and encoders and decoder as DiffSynth has them."""
    from ex4d.generation.wan.decoding import decode_in_order, encode_video
    from ex4d.generation.wan.encoders import encode_image

    files = find_wan_files(folder)
    vae = load_vae(files.vae, device=case.device)
    encoder = load_image_encoder(files.image_encoder, device=case.device, dtype=torch.bfloat16)
    video = torch.rand(1, 3, case.frames, case.side, case.side, device=case.device) * 2 - 1
    latents = torch.randn(1, 16, *case.grid, device=case.device)

    precision = partial(torch.autocast, case.device.type, torch.bfloat16)

    def encode_and_decode() -> None:
        with torch.inference_mode(), precision():
            encode_image(encoder, video[:, :, 0])
            for _ in range(3):
                encode_video(vae, video, case.device)
        for _ in decode_in_order(vae, latents, precision):
            pass

    seconds = median_seconds(encode_and_decode, 1)
    steps = WanSettings().steps
    total = 2 * steps * original_pass + seconds
    yield Row("job, the original", f"{total:.1f} s", f"{2 * steps} passes, encoders and decoder {seconds:.2f} s")
    return total


def _memory_modes(case: Case, folder: Path) -> Iterator[Row]:
    """Measure a step's time and peak memory, with the process's memory capped."""
    if not case.on_gpu:
        for cap in (cap for caps in _CAPPED.values() for cap in caps if cap is not None):
            yield Row(f"memory, cap {cap} GB", "no GPU", "")
        return
    for preset, caps in _CAPPED.items():
        settings = wan_preset(preset, steps=4)
        plain = None
        for cap in caps:
            networks = LoadedNetworks(replace(_choice(case, folder, settings), vram_limit_gb=cap))
            loading, step, memory, _ = _step(case, settings, networks)
            plain = plain or step
            more = f", {100 * (step / plain - 1):+.0f} %" if cap and step != plain else ""
            yield Row(
                f"memory, {'no cap' if cap is None else f'cap {cap} GB'}",
                f"{memory:.1f} GB",
                f"{step:.3f} s a step{more}; {settings.precision}, {networks.mode}; loaded in {loading:.0f} s",
            )
            networks.unload()
            torch.cuda.set_per_process_memory_fraction(1.0, case.device)


def _several_gpus(case: Case, folder: Path) -> Iterator[Row]:
    """Measure one shot on more and more GPUs; without a GPU, in two processes on the CPU."""
    counts = [count for count in (2, 4, 8) if count <= torch.cuda.device_count()] if case.on_gpu else [2]
    if not counts:
        yield Row("several GPUs", "one GPU", "this machine has no more")
        return
    for name, settings in (
        ("guided", wan_preset("standard", steps=4)),
        ("unguided", wan_preset("fast", loras=())),
    ):
        plain, exact = None, None
        for count in (1, *counts):
            further = tuple(f"cuda:{number}" if case.on_gpu else "cpu" for number in range(1, count))
            networks = LoadedNetworks(replace(_choice(case, folder, settings), further_devices=further))
            loading, step, _, latents = _step(case, settings, networks)
            plain, exact = plain or step, latents if exact is None else exact
            remark = f"{plain / step:.2f} x one; relative L2 to one {relative_l2(latents, exact):.4f}"
            remark += f"; {_arithmetic(settings)}; loaded in {loading:.0f} s"
            what = "GPU" if case.on_gpu else "CPU process"
            yield Row(f"{count} {what}, a step {name}", f"{step:.3f} s", remark)
            networks.unload()


def _step(case: Case, settings: WanSettings, networks: LoadedNetworks) -> tuple[float, float, float, torch.Tensor]:
    """Return seconds of loading and of a step (without the first, which warms up), peak gigabytes, and the latents."""
    started = time.perf_counter()
    _TimedEngine(replace(settings, steps=1), networks).run(_shot(case))
    loading = time.perf_counter() - started
    engine = _TimedEngine(settings, networks)
    peak = _peak_reset(case)
    engine.run(_shot(case))
    return loading, float(np.median(np.diff(engine.steps))), peak(), engine.latents.float().cpu()


def _choice(case: Case, folder: Path, settings: WanSettings) -> NetworkChoice:
    return NetworkChoice(find_wan_files(folder), (), str(case.device), settings.precision, settings.fp8_attention)


def _peak_reset(case: Case) -> Callable[[], float]:
    """Reset the peak memory, and return a function that reads it in gigabytes."""
    if not case.on_gpu:
        return lambda: 0.0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(case.device)
    return lambda: torch.cuda.max_memory_reserved(case.device) / 2**30


def _shot(case: Case) -> list[RenderedFrame]:
    """Create coloured blocks with an unseen strip at the left that grows."""
    generator = np.random.default_rng(0)
    frames = []
    for index in range(case.frames):
        coarse = generator.integers(0, 256, (case.side // 8, case.side // 8, 3), dtype=np.uint8)
        mask = np.ones((case.side, case.side), bool)
        mask[:, : 3 * index] = False
        color = coarse.repeat(8, 0).repeat(8, 1) * mask[..., None]
        frames.append(RenderedFrame(index, color, mask, np.ones((case.side, case.side), np.float32)))
    return frames
