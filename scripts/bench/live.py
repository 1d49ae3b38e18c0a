"""Benchmarks live drafts with random weights: `ex4d bench generate --part live`.

A draft is 17 frames of 512x288 in four steps with a distilled LoRA, as Blender's *Watch* asks for them; the render and
the wire are not in it. Without a GPU all runs at toy size, which only shows that it runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.measuring import Row, median_seconds, wait_for_gpu
from bench.passes import Case
from bench.random_weights import write_fast_lora, write_tiny_decoder
from ex4d.generation.wan.encode_cache import encodes
from ex4d.generation.wan.wan_engine import WanEngine, create_wan_engine
from ex4d.machine import MachineSettings
from ex4d.raster import RenderedFrame
from ex4d_core.live_draft import DRAFT_FRAMES
from ex4d_core.wan_settings import wan_preset

# Seconds of a draft; the second is of a card of the Ada kind with 24 GB.
TARGETS = {"H200": 1.0, "Ada, 24 GB": 2.0}
_SIZE, _TOY_SIZE, _TOY_FRAMES = (512, 288), (64, 32), 5
_REPEATS = 5
# Dense operations a second in 8 bits that the makers state: NVIDIA H200 SXM and GeForce RTX 4090.
_H200_RATE, _ADA_RATE = 1979e12, 660e12


def measure_live(case: Case, models: Path) -> Iterator[Row]:
    """Rows for the first draft, those that follow, and what decoding and encoding take of them.

    Args:
        models: random weights; the LoRA and the tiny decoder are written beside them.
    """
    write_fast_lora(models, full_size=case.on_gpu)
    write_tiny_decoder(models / "taew2_1.safetensors", full_size=case.on_gpu)
    (width, height), count = (_SIZE, DRAFT_FRAMES) if case.on_gpu else (_TOY_SIZE, _TOY_FRAMES)
    changes = {} if case.on_gpu else {"steps": 1, "precision": "float32"}  # a CPU imitates fp8, slowly
    repeats = _REPEATS if case.on_gpu else 1
    engine = create_wan_engine(wan_preset("live", **changes), str(case.device), MachineSettings(models))
    small = WanEngine(replace(engine.settings, tiny_decoder=False), engine.networks, tiny_decoder=engine.tiny_decoder)
    started = time.perf_counter()
    _draft(engine, width, height, count, 0)
    yield Row("live, the first draft", f"{time.perf_counter() - started:.1f} s", "loads all networks and compiles")
    what = f"{count} frames of {width}x{height}, {engine.settings.steps} steps, {engine.precision}"
    seconds = {}
    moved = iter(range(1, 1000))
    for name, one in (("tiny decoder", engine), ("VAE", small)):
        seconds[name] = median_seconds(lambda one=one: _draft(one, width, height, count, next(moved)), repeats)
    target = ", ".join(f"{seconds:.0f} s on {card}" for card, seconds in TARGETS.items())
    yield Row("live, a draft of another camera", f"{seconds['tiny decoder']:.3f} s", f"{what}; target {target}")
    share = seconds["VAE"] / seconds["tiny decoder"]
    yield Row("live, decoded by the VAE", f"{seconds['VAE']:.3f} s", f"{share:.2f} x as long")
    same = median_seconds(lambda: _draft(engine, width, height, count, 0), repeats)
    yield Row("live, the same camera and another seed", f"{same:.3f} s", "nothing is encoded again")
    encodes.clear()
    if case.on_gpu:
        ratio = _H200_RATE / _ADA_RATE
        remark = f"estimate: {ratio:.1f} x the measured time, by the cards' stated rates in 8 bits"
        yield Row("live, on Ada with 24 GB", f"{ratio * seconds['tiny decoder']:.1f} s", remark)
    engine.networks.unload()


def _draft(engine: WanEngine, width: int, height: int, count: int, camera: int) -> None:
    frames = _moved(width, height, count, camera)
    assert sum(1 for _ in engine.generate(frames, count=count)) == count
    wait_for_gpu()


def _moved(width: int, height: int, count: int, camera: int) -> list[RenderedFrame]:
    """What a camera sees of coloured blocks: frame 0 of all cameras is the same, as the source view is."""
    blocks = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    image = blocks.repeat(8, 0).repeat(8, 1)
    frames = []
    for index in range(count):
        by = min(index * (camera + 1), width - 8)
        mask = np.ones((height, width), bool)
        mask[:, :by] = False
        color = np.roll(image, by, axis=1) * mask[..., None]
        frames.append(RenderedFrame(index, color, mask, np.ones((height, width), np.float32)))
    return frames
