"""Benchmark of each self-attention at 832x480 and 1280x720 of 81 frames: `ex4d bench generate --part attention`.

First one layer's attention alone, on two kinds of made-up tokens: noise, in which everything matters alike, the worst
case of what leaves pairs out, and a smooth field, in which near tokens resemble each other as those of a video do. Then
whole passes of the transformer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import torch
from torch.nn import functional

from bench.measuring import Row, median_seconds
from bench.passes import Case, relative_l2
from bench.transformer_inputs import GRIDS, TOY_GRIDS, TransformerInputs
from ex4d.generation.wan.errors import WanUnavailableError
from ex4d.generation.wan.kernels import fp8_attention, fused
from ex4d.generation.wan.kernels.attention import attention, fastest_attention
from ex4d.generation.wan.kernels.attention_choice import choose_attention, require_attention
from ex4d.generation.wan.kernels.sparse_attention import SparseAttention
from ex4d.generation.wan.memory import free_memory
from ex4d.generation.wan.transformer import Transformer
from ex4d_core.wan_settings import AttentionName

_HEAD_DIM = 128
# Of the smooth field, in tokens along each axis, and its noise.
_CORRELATED, _NOISE = 4, 0.3
_TIMESTEP = torch.tensor(500.0)
CHOICES: tuple[AttentionName, ...] = get_args(AttentionName)


def measure_attention(case: Case) -> Iterator[Row]:
    """Yield a row for each attention and size, alone and in a pass."""
    grids = GRIDS if case.on_gpu else TOY_GRIDS
    width = 5120 if case.on_gpu else 256
    for size, (frames, height, across) in grids.items():
        grid = (frames, height // 2, across // 2)
        yield from _alone(case, size, grid, width)
    weights = TransformerInputs.of_case(case)
    for fp8 in (False, True):
        dit = weights.dit()
        transformer = Transformer(dit, list(dit.blocks), fp8=fp8)
        for size, latents in grids.items():
            yield from _passes(weights, transformer, f"{size}, {'fp8' if fp8 else 'bf16'}", latents)
        del dit, transformer
        free_memory()


def _alone(case: Case, size: str, grid: tuple[int, int, int], width: int) -> Iterator[Row]:
    noise, smooth = (_tokens(grid, width, case.device, smooth=smooth) for smooth in (False, True))
    with torch.inference_mode(), fastest_attention():
        exact = [attention(*tokens, _HEAD_DIM) for tokens in (noise, smooth)]
        dense = median_seconds(lambda: attention(*noise, _HEAD_DIM), 3)
        yield Row(
            f"attention, {size}, dense", f"{1000 * dense:.1f} ms", f"{len(noise[0]):,} tokens, {width // 128} heads"
        )
        if fp8_attention.supports_fp8_attention(len(noise[0]), width, _HEAD_DIM, case.device):
            factors = torch.full((3,), 64.0, device=case.device)
            packed = [(torch.cat(tokens, dim=1) * 64).clamp(-448, 448).to(fused.FP8) for tokens in (noise, smooth)]
            seconds = median_seconds(lambda: fp8_attention.fp8_attention(packed[0], factors, _HEAD_DIM), 3)
            made = [fp8_attention.fp8_attention(part, factors, _HEAD_DIM) for part in packed]
            errors = [
                relative_l2(rows.float() * scales, right) for (rows, scales), right in zip(made, exact, strict=True)
            ]
            yield _row(size, "dense, fp8", seconds, dense, errors)
        for name in CHOICES[1:]:
            try:
                require_attention(name, case.device)
            except WanUnavailableError as error:
                yield Row(f"attention, {size}, {name}", "not available", str(error))
                continue
            attend = choose_attention(name, grid, case.device)
            assert attend is not None
            seconds = median_seconds(lambda attend=attend: attend(*noise, _HEAD_DIM), 3)
            errors = [
                relative_l2(attend(*tokens, _HEAD_DIM), right)
                for tokens, right in zip((noise, smooth), exact, strict=True)
            ]
            more = f"; {100 * attend.density:.0f} % of the pairs" if isinstance(attend, SparseAttention) else ""
            yield _row(size, name, seconds, dense, errors, more)


def _row(size: str, name: str, seconds: float, dense: float, errors: list[float], more: str = "") -> Row:
    of_noise, of_smooth = errors
    remark = f"{dense / seconds:.2f} x as fast as dense; relative L2 of noise {of_noise:.4f}, of a smooth field "
    return Row(f"attention, {size}, {name}", f"{1000 * seconds:.1f} ms", f"{remark}{of_smooth:.4f}{more}")


def _tokens(
    grid: tuple[int, int, int], width: int, device: torch.device, *, smooth: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values (N, C), bfloat16 on a GPU; in a smooth field queries and keys are alike."""
    generator = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def field() -> torch.Tensor:
        coarse = [max(2, -(-side // _CORRELATED)) for side in grid] if smooth else grid
        values = torch.randn(1, width, *coarse, generator=generator, device=device)
        if smooth:
            values = functional.interpolate(values, size=grid, mode="trilinear", align_corners=True)
            values = values / values.std()
            values = values + _NOISE * torch.randn(values.shape, generator=generator, device=device)
        return values[0].flatten(1).T.to(dtype).contiguous()

    query = field()
    return query, query.clone() if smooth else field(), field()


def _passes(
    weights: TransformerInputs, transformer: Transformer, what: str, grid: tuple[int, int, int]
) -> Iterator[Row]:
    conditioning, noise = weights.window(grid)
    dense, exact = 0.0, None
    for name in CHOICES:
        try:
            require_attention(name, weights.device)
        except WanUnavailableError:
            continue  # said above
        with torch.inference_mode(), torch.autocast(weights.device.type, torch.bfloat16), fastest_attention():
            prepared = transformer.prepare(conditioning, name)

            def once(prepared=prepared) -> torch.Tensor:
                return transformer.velocities(noise, _TIMESTEP, prepared, (0,))[0]

            result = once()
            seconds = median_seconds(once, 1)
        dense, exact = dense or seconds, result if exact is None else exact
        remark = f"{dense / seconds:.2f} x as fast as dense; relative L2 {relative_l2(result, exact):.4f} to it"
        yield Row(f"pass, {what}, {name}", f"{seconds:.3f} s", f"{remark}, random weights")
