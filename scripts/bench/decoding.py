"""Benchmarks the VAE's decoder: on one GPU, and spread over several GPUs (`ex4d bench generate --part decode`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from bench.measuring import Row, median_seconds
from bench.passes import Case
from ex4d.generation.wan.decoding import decode_in_order
from ex4d.generation.wan.kernels.vae import optimize_vae
from ex4d.generation.wan.networks import load_vae
from ex4d.generation.wan.spread_decoder import SpreadDecoder
from ex4d.weights.wan_files import find_wan_files

# Frames, width and height; on a CPU a toy.
_CLIPS = ((49, 512, 512), (81, 832, 480), (81, 1280, 720))
_TOY = ((9, 32, 32),)
_REPEATS = 3


def measure_decoding(case: Case, models: Path) -> Iterator[Row]:
    """Rows for each size of clip."""
    dtype = torch.bfloat16 if case.on_gpu else torch.float32
    vae = load_vae(find_wan_files(models).vae, device=case.device, dtype=dtype)
    optimize_vae(vae)
    precision = partial(torch.autocast, case.device.type, torch.bfloat16, enabled=case.on_gpu)
    for frames, width, height in _CLIPS if case.on_gpu else _TOY:
        latents = torch.randn(1, 16, (frames - 1) // 4 + 1, height // 8, width // 8, device=case.device)
        clip = f"{frames} frames of {width}x{height}"
        repeats = _REPEATS if case.on_gpu else 1
        exact, plain = _decoded(partial(decode_in_order, vae, latents, precision), repeats)
        yield Row(f"decode, {clip}", f"{plain:.3f} s", "one device")
        for count in (2, 4, 8):
            if case.on_gpu and count > torch.cuda.device_count():
                break
            devices = [torch.device("cuda", number) if case.on_gpu else case.device for number in range(count)]
            spread, ahead = SpreadDecoder(vae.model, devices), count - 1
            made, seconds = _decoded(partial(decode_in_order, vae, latents, precision, ahead=ahead), repeats)
            spread.gather()
            remark = f"{plain / seconds:.2f} x one; {'the same frames' if torch.equal(made, exact) else 'OTHER FRAMES'}"
            where = "GPUs" if case.on_gpu else "parts on one CPU"
            yield Row(f"decode, {count} {where}, {clip}", f"{seconds:.3f} s", remark)


def _decoded(decode: Callable[[], Iterator[torch.Tensor]], repeats: int) -> tuple[torch.Tensor, float]:
    """The frames, on the CPU, and the median seconds of making them."""
    made = torch.cat([frames.cpu() for frames in decode()])
    return made, median_seconds(lambda: [frames.sum() for frames in decode()], repeats)
