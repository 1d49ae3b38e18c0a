"""Triton kernels for the transformer's operations between matmuls, one pass over memory each; `fused` calls them.

A program handles one token's row of channels in registers, so every value is read once and written once. The widths
are not powers of two; channels beyond them are masked.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from ex4d.generation.wan.kernels.fused import CrossAttentionKV

_FP8 = torch.float8_e4m3fn
_FP8_MAX = tl.constexpr(448.0)
# A row of zeros still needs a scale.
_LEAST = tl.constexpr(1e-12)
_LOG2_E = 1.4426950408889634

# Programs that add up keys together: a few for each processor of a large GPU.
_SUM_PROGRAMS = 512

# Queries and keys that the cross-attention handles at once; the fastest of eleven pairs on an H200.
_QUERY_ROWS, KEY_STEP = 64, 64


@triton.jit
def _store_row(out, scales, row, channel, inside, value, width: tl.constexpr, fp8: tl.constexpr):
    """Store a row as it is, or in fp8 with the row's scale."""
    if fp8:
        scale = tl.maximum(tl.max(tl.abs(value), axis=0), _LEAST) / _FP8_MAX
        tl.store(scales + row, scale)
        value = value * (1.0 / scale)
    tl.store(out + row.to(tl.int64) * width + channel, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _norm_kernel(
    x, added, gate, scale, shift, out, scales, epsilon,
    width: tl.constexpr, block: tl.constexpr, has_added: tl.constexpr, has_gate: tl.constexpr,
    one_plus_scale: tl.constexpr, fp8: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    channel = tl.arange(0, block)
    inside = channel < width
    start = row.to(tl.int64) * width
    value = tl.load(x + start + channel, mask=inside, other=0.0).to(tl.float32)
    if has_added:
        more = tl.load(added + start + channel, mask=inside, other=0.0).to(tl.float32)
        if has_gate:
            more = more * tl.load(gate + channel, mask=inside, other=0.0)
        rounded = (value + more).to(x.dtype.element_ty)
        tl.store(x + start + channel, rounded, mask=inside)
        value = rounded.to(tl.float32)
    mean = tl.sum(value, axis=0) / width
    centred = tl.where(inside, value - mean, 0.0)
    deviation = tl.rsqrt(tl.sum(centred * centred, axis=0) / width + epsilon)
    factor = tl.load(scale + channel, mask=inside, other=0.0).to(tl.float32) + one_plus_scale
    offset = tl.load(shift + channel, mask=inside, other=0.0).to(tl.float32)
    result = centred * deviation * factor + offset
    _store_row(out, scales, row, channel, inside, result, width, fp8)


@triton.jit
def _qk_norm_rope_kernel(
    qkv, out, query_weight, key_weight, cosines, sines, factors, key_means, epsilon,
    width: tl.constexpr, block: tl.constexpr, head: tl.constexpr, centred: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    which = tl.program_id(1)
    channel = tl.arange(0, block)
    inside = channel < width
    start = row.to(tl.int64) * 3 * width + which * width
    value = tl.load(qkv + start + channel, mask=inside, other=0.0).to(tl.float32)
    if which < 2:
        deviation = tl.rsqrt(tl.sum(value * value, axis=0) / width + epsilon)
        weights = query_weight if which == 0 else key_weight
        value = value * deviation * tl.load(weights + channel, mask=inside, other=0.0).to(tl.float32)
        real, imaginary = tl.split(tl.reshape(value, (block // 2, 2)))
        angle = row.to(tl.int64) * (head // 2) + tl.arange(0, block // 2) % (head // 2)
        cosine = tl.load(cosines + angle)
        sine = tl.load(sines + angle)
        value = tl.reshape(tl.join(real * cosine - imaginary * sine, real * sine + imaginary * cosine), (block,))
        if centred and which == 1:
            value = value - tl.load(key_means + channel, mask=inside, other=0.0)
    value = value * tl.load(factors + which)
    tl.store(out + start + channel, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _key_sums_kernel(
    qkv, out, key_weight, cosines, sines, epsilon, tokens,
    width: tl.constexpr, block: tl.constexpr, head: tl.constexpr,
):  # fmt: skip
    """Each program adds up every so many-th key; no atomics, so that the sum is the same every time."""
    program = tl.program_id(0)
    channel = tl.arange(0, block)
    inside = channel < width
    weight = tl.load(key_weight + channel, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((block,), tl.float32)
    step = tl.num_programs(0)
    key = program.to(tl.int64) * 3 * width + width + channel
    angle = program.to(tl.int64) * (head // 2) + tl.arange(0, block // 2) % (head // 2)
    for _ in range(program, tokens, step):
        value = tl.load(qkv + key, mask=inside, other=0.0).to(tl.float32)
        value = value * tl.rsqrt(tl.sum(value * value, axis=0) / width + epsilon) * weight
        real, imaginary = tl.split(tl.reshape(value, (block // 2, 2)))
        cosine = tl.load(cosines + angle)
        sine = tl.load(sines + angle)
        total += tl.reshape(tl.join(real * cosine - imaginary * sine, real * sine + imaginary * cosine), (block,))
        key += step * 3 * width
        angle += step * (head // 2)
    tl.store(out + program * width + channel, total, mask=inside)


@triton.jit
def _absmax_kernel(qkv, out, width: tl.constexpr, block: tl.constexpr):
    channel = tl.arange(0, block)
    start = tl.program_id(0).to(tl.int64) * 3 * width + 2 * width
    value = tl.load(qkv + start + channel, mask=channel < width, other=0.0).to(tl.float32)
    tl.atomic_max(out, tl.max(tl.abs(value), axis=0))


@triton.jit
def _quantize_kernel(
    x, out, scales, width: tl.constexpr, block: tl.constexpr, gelu: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    channel = tl.arange(0, block)
    inside = channel < width
    value = tl.load(x + row.to(tl.int64) * width + channel, mask=inside, other=0.0).to(tl.float32)
    if gelu:  # its tanh approximation, which is x times a sigmoid
        inner = 1.5957691216057308 * (value + 0.044715 * value * value * value)
        value = value * tl.sigmoid(inner)
    _store_row(out, scales, row, channel, inside, value, width, True)


@triton.jit
def _deviation_kernel(x, out, epsilon, width: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0)
    channel = tl.arange(0, block)
    value = tl.load(x + row.to(tl.int64) * width + channel, mask=channel < width, other=0.0).to(tl.float32)
    tl.store(out + row, tl.rsqrt(tl.sum(value * value, axis=0) / width + epsilon))


@triton.jit
def _attend(
    query, factor, keys, values, count, last_bias, head_start, width: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr, head: tl.constexpr,
):  # fmt: skip
    """Online softmax over all keys (Milakov and Gimelshein, 2018), in powers of two."""
    channel = tl.arange(0, head)
    largest = tl.full((rows,), float("-inf"), tl.float32)
    total = tl.zeros((rows,), tl.float32)
    result = tl.zeros((rows, head), tl.float32)
    for begin in range(0, count, columns):
        number = begin + tl.arange(0, columns)
        present = number < count
        # No mask: keys and values are padded to whole steps.
        places = number[:, None] * width + head_start + channel[None, :]
        key = tl.load(keys + places)
        value = tl.load(values + places)
        score = tl.dot(query, tl.trans(key)) * factor[:, None]
        score = score + tl.where(number == count - 1, last_bias, 0.0)[None, :]
        score = tl.where(present[None, :], score, float("-inf"))
        larger = tl.maximum(largest, tl.max(score, axis=1))
        shrink = tl.exp2(largest - larger)
        weight = tl.exp2(score - larger[:, None])
        total = total * shrink + tl.sum(weight, axis=1)
        result = tl.dot(weight.to(value.dtype), value, acc=result * shrink[:, None])
        largest = larger
    return result / total[:, None]


@triton.jit
def _cross_attention_kernel(
    query, deviations, image_keys, image_values, text_keys, text_values, out,
    tokens, image_count, text_count, last_bias, scale, width: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr, head: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    head_start = tl.program_id(1) * head
    inside = row < tokens
    places = row[:, None].to(tl.int64) * width + head_start + tl.arange(0, head)[None, :]
    queries = tl.load(query + places, mask=inside[:, None], other=0.0)
    factor = tl.load(deviations + row, mask=inside, other=0.0) * scale
    result = _attend(
        queries, factor, text_keys, text_values, text_count, last_bias, head_start, width, rows, columns, head
    )
    if image_count > 0:
        result += _attend(
            queries, factor, image_keys, image_values, image_count, 0.0, head_start, width, rows, columns, head
        )
    tl.store(out + places, result.to(out.dtype.element_ty), mask=inside[:, None])


def norm(
    x: torch.Tensor,
    added: torch.Tensor | None,
    gate: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    epsilon: float,
    *,
    dtype: torch.dtype,
    one_plus_scale: bool,
    fp8: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """See `fused.residual_norm`; ``x`` is changed in place."""
    tokens, width = x.shape
    out = torch.empty_like(x, dtype=_FP8 if fp8 else dtype)
    scales = x.new_empty(tokens, 1, dtype=torch.float32) if fp8 else x
    _norm_kernel[(tokens,)](
        x, x if added is None else added, x if gate is None else gate, scale, shift, out, scales, epsilon,
        width=width, block=triton.next_power_of_2(width), has_added=added is not None, has_gate=gate is not None,
        one_plus_scale=float(one_plus_scale), fp8=fp8, num_warps=_warps(width),
    )  # fmt: skip
    return out, scales if fp8 else None


def qk_norm_rope(
    qkv: torch.Tensor,
    query_weight: torch.Tensor,
    key_weight: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    epsilon: float,
    head: int,
    factors: torch.Tensor,
    key_means: torch.Tensor | None = None,
) -> torch.Tensor:
    """See `fused.qk_norm_rope`; three ``factors`` give a new fp8 tensor, with two queries and keys change in place."""
    tokens, width = qkv.shape[0], qkv.shape[1] // 3
    out = torch.empty_like(qkv, dtype=_FP8) if len(factors) == 3 else qkv
    _qk_norm_rope_kernel[(tokens, len(factors))](
        qkv, out, query_weight, key_weight, cosines, sines, factors, factors if key_means is None else key_means,
        epsilon, width=width, block=triton.next_power_of_2(width), head=head, centred=key_means is not None,
        num_warps=_warps(width),
    )  # fmt: skip
    return out


def key_sums(
    qkv: torch.Tensor,
    key_weight: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    epsilon: float,
    head: int,
) -> torch.Tensor:
    """See `fused.key_sums`."""
    tokens, width = qkv.shape[0], qkv.shape[1] // 3
    programs = min(tokens, _SUM_PROGRAMS)
    out = qkv.new_empty(programs, width, dtype=torch.float32)
    _key_sums_kernel[(programs,)](
        qkv, out, key_weight, cosines, sines, epsilon, tokens,
        width=width, block=triton.next_power_of_2(width), head=head, num_warps=_warps(width),
    )  # fmt: skip
    return out.sum(dim=0)


def value_absmax(qkv: torch.Tensor) -> torch.Tensor:
    """See `fused.value_absmax`."""
    tokens, width = qkv.shape[0], qkv.shape[1] // 3
    out = qkv.new_zeros(1, dtype=torch.float32)
    _absmax_kernel[(tokens,)](qkv, out, width=width, block=triton.next_power_of_2(width), num_warps=_warps(width))
    return out


def quantize_fp8(x: torch.Tensor, *, gelu: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """See `fused.quantize_fp8`."""
    tokens, width = x.shape
    out, scales = torch.empty_like(x, dtype=_FP8), x.new_empty(tokens, 1, dtype=torch.float32)
    _quantize_kernel[(tokens,)](
        x, out, scales, width=width, block=triton.next_power_of_2(width), gelu=gelu, num_warps=_warps(width)
    )
    return out, scales


def cross_attention(
    query: torch.Tensor, image: CrossAttentionKV | None, text: CrossAttentionKV, epsilon: float, head: int
) -> torch.Tensor:
    """See `fused.cross_attention`."""
    tokens, width = query.shape
    deviations = query.new_empty(tokens, dtype=torch.float32)
    _deviation_kernel[(tokens,)](
        query, deviations, epsilon, width=width, block=triton.next_power_of_2(width), num_warps=_warps(width)
    )
    out = torch.empty_like(query)
    of_image = image or text
    _cross_attention_kernel[(triton.cdiv(tokens, _QUERY_ROWS), width // head)](
        query, deviations, of_image.key, of_image.value, text.key, text.value, out,
        tokens, image.count if image else 0, text.count, math.log2(text.repeats), head**-0.5 * _LOG2_E,
        width=width, rows=_QUERY_ROWS, columns=KEY_STEP, head=head, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


def _warps(width: int) -> int:
    """Return 4 for the published widths: of 2 to 32 on an H200, the fastest or nearly so for every kernel."""
    return max(1, min(4, triton.next_power_of_2(width) // 1024))


@triton.jit
def _channel_norm_kernel(
    x, gamma, out, pixels, factor, width: tl.constexpr, block: tl.constexpr, rows: tl.constexpr, silu: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    channel = tl.arange(0, block)
    inside = (row < pixels)[:, None] & (channel < width)[None, :]
    places = row[:, None].to(tl.int64) * width + channel[None, :]
    value = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(value * value, axis=1))
    value = value * (factor / tl.maximum(length, 1e-12))[:, None]
    value = value * tl.load(gamma + channel, mask=channel < width, other=0.0).to(tl.float32)[None, :]
    if silu:
        value = value * tl.sigmoid(value)
    tl.store(out + places, value.to(out.dtype.element_ty), mask=inside)


def channel_norm(x: torch.Tensor, gamma: torch.Tensor, *, silu: bool) -> torch.Tensor:
    """Norm over channels of (B, C, ...) with channels last in memory; see `vae.FusedRMSNorm`."""
    width = x.shape[1]
    pixels = x.numel() // width
    out = torch.empty_like(x)
    block = triton.next_power_of_2(width)
    rows = max(1, 4096 // block)
    _channel_norm_kernel[(triton.cdiv(pixels, rows),)](
        x, gamma, out, pixels, width**0.5, width=width, block=block, rows=rows, silu=silu, num_warps=4
    )
    return out
