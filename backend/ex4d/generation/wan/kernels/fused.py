"""The transformer's operations between matmuls, fused: one Triton kernel each on a GPU, plain torch elsewhere.

Both versions compute in float32 and round once. Rows are tokens; a batch is one sample, as everywhere in this engine.
fp8 values (e4m3) have one float32 scale per row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from ex4d.generation.wan.kernels.attention import attention

try:
    from ex4d.generation.wan.kernels import triton_kernels as triton_kernels
except ImportError:  # no Triton for this system: the torch versions are slower, their results the same
    triton_kernels = None

# Triton's cross-attention reads this many keys at once.
KEY_STEP = 64 if triton_kernels is None else triton_kernels.KEY_STEP

FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max

# fp8 values (N, C) and their scales (N, 1).
Fp8Rows = tuple[torch.Tensor, torch.Tensor]
Rows = torch.Tensor | Fp8Rows


def _has_kernel(values: torch.Tensor) -> bool:
    return values.is_cuda and values.dtype == torch.bfloat16


def residual_norm(
    x: torch.Tensor,
    added: torch.Tensor | None,
    gate: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    epsilon: float,
    *,
    dtype: torch.dtype,
    one_plus_scale: bool = True,
    fp8: bool = False,
) -> Rows:
    """Add ``gate * added`` to ``x`` in place, then return the modulated layer norm of ``x`` (adaLN).

    ``x`` and ``added`` are (N, C), ``gate``, ``scale`` and ``shift`` (C,). Nothing is added without ``added``, and all
    of it without ``gate``. The norm is multiplied by ``1 + scale``, or by ``scale`` without ``one_plus_scale``. The
    result has type ``dtype``, or is `Fp8Rows` with ``fp8``.
    """
    types = (x.dtype, dtype, None if added is None else added.dtype)
    if triton_kernels is not None and x.is_cuda and torch.bfloat16 in types:
        result, scales = triton_kernels.norm(
            x, added, gate, scale, shift, epsilon, dtype=dtype, one_plus_scale=one_plus_scale, fp8=fp8
        )
        return result if scales is None else (result, scales)
    if added is not None:
        x.copy_(x.float() + (added.float() if gate is None else gate.float() * added.float()))
    result = modulated_norm(x, scale, shift, epsilon, one_plus_scale=one_plus_scale)
    return quantize_fp8_in_torch(result) if fp8 else result.to(dtype)


def modulated_norm(
    x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, epsilon: float, *, one_plus_scale: bool = True
) -> torch.Tensor:
    """The modulated layer norm of ``x`` (N, C) as `residual_norm` has it, in torch: float32."""
    normed = functional.layer_norm(x.float(), x.shape[-1:], eps=epsilon)
    return normed * (scale.float() + float(one_plus_scale)) + shift.float()


def qk_norm_rope(
    qkv: torch.Tensor,
    query_weight: torch.Tensor,
    key_weight: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    epsilon: float,
    head_dim: int,
    factors: torch.Tensor | None = None,
    key_means: torch.Tensor | None = None,
) -> torch.Tensor:
    """Apply RMS norm over all channels, then rotary embedding, to queries and keys.

    Args:
        qkv: (N, 3 C), queries, keys and values side by side; changed in place, unless ``factors`` are given.
        query_weight, key_weight: (C,) of the norms.
        angles: cosines and sines (N, head_dim / 2) float32, one for each pair of channels.
        factors: (3,) float32; returns queries, keys and values times these, rounded to fp8.
        key_means: with ``factors``, (C,) float32 to subtract from the keys first; see `key_sums`.
    """
    if triton_kernels is not None and _has_kernel(qkv):
        by = qkv.new_ones(2, dtype=torch.float32) if factors is None else factors
        return triton_kernels.qk_norm_rope(qkv, query_weight, key_weight, *angles, epsilon, head_dim, by, key_means)
    parts = []
    for part, weight in zip(qkv.chunk(3, dim=1), (query_weight, key_weight), strict=False):
        rotated = norm_rope(part, weight, angles, epsilon, head_dim)
        parts.append(rotated)
        if factors is None:
            part.copy_(rotated)
    if factors is None:
        return qkv
    if key_means is not None:
        parts[1] = parts[1] - key_means
    parts.append(qkv.chunk(3, dim=1)[2].float())
    scaled = [part * factor for part, factor in zip(parts, factors, strict=True)]
    return torch.cat(scaled, dim=1).clamp(-FP8_MAX, FP8_MAX).to(FP8)


def norm_rope(
    part: torch.Tensor,
    weight: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    epsilon: float,
    head_dim: int,
) -> torch.Tensor:
    """RMS norm, then rotary embedding, of queries or keys (N, C): float32."""
    cosine, sine = (table[:, None] for table in angles)
    normed = functional.rms_norm(part.float(), part.shape[-1:], weight.float(), epsilon)
    real, imaginary = normed.view(len(part), -1, head_dim // 2, 2).unbind(-1)
    return torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=-1).flatten(1)


def key_sums(
    qkv: torch.Tensor,
    key_weight: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    epsilon: float,
    head_dim: int,
) -> torch.Tensor:
    """Sum the keys of (N, 3 C) over all tokens, as `qk_norm_rope` has them: (C,) float32.

    A softmax over keys stays the same if all of them lose their mean, as in SageAttention (Zhang et al., 2025).
    """
    if triton_kernels is not None and _has_kernel(qkv):
        return triton_kernels.key_sums(qkv, key_weight, *angles, epsilon, head_dim)
    return norm_rope(qkv.chunk(3, dim=1)[1], key_weight, angles, epsilon, head_dim).sum(dim=0)


def value_absmax(qkv: torch.Tensor) -> torch.Tensor:
    """Find the largest magnitude among the values of (N, 3 C): (1,) float32."""
    if triton_kernels is not None and _has_kernel(qkv):
        return triton_kernels.value_absmax(qkv)
    return qkv.chunk(3, dim=1)[2].float().abs().amax().reshape(1)


@dataclass(frozen=True)
class CrossAttentionKV:
    """Keys and values of a cross-attention.

    Attributes:
        key: (K, C), padded with zeros to a multiple of `KEY_STEP`; includes the weight of the queries' norm.
        value: (K, C), padded likewise.
        count: number of keys without padding.
        repeats: how many equal keys the last one stands for.
    """

    key: torch.Tensor
    value: torch.Tensor
    count: int
    repeats: int = 1

    @staticmethod
    def of(key: torch.Tensor, value: torch.Tensor, repeats: int = 1) -> CrossAttentionKV:
        """Pad (count, C) keys and values."""
        padding = (0, 0, 0, -len(key) % KEY_STEP)
        return CrossAttentionKV(functional.pad(key, padding), functional.pad(value, padding), len(key), repeats)

    def expanded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values without padding, the last one repeated."""
        key, value = self.key[: self.count], self.value[: self.count]
        more = (self.repeats - 1, -1)
        return torch.cat([key, key[-1:].expand(more)]), torch.cat([value, value[-1:].expand(more)])


def cross_attention(
    query: torch.Tensor, image: CrossAttentionKV | None, text: CrossAttentionKV, epsilon: float, head_dim: int
) -> torch.Tensor:
    """Sum the attention to the text and to the image, (N, C); the queries (N, C) are RMS-normed first."""
    if triton_kernels is not None and _has_kernel(query):
        return triton_kernels.cross_attention(query, image, text, epsilon, head_dim)
    return cross_attention_in_torch(query, image, text, epsilon, head_dim)


def cross_attention_in_torch(
    query: torch.Tensor, image: CrossAttentionKV | None, text: CrossAttentionKV, epsilon: float, head_dim: int
) -> torch.Tensor:
    """As `cross_attention` without a kernel."""
    normed = functional.rms_norm(query.float(), query.shape[-1:], eps=epsilon).to(query.dtype)
    attended = attention(normed, *text.expanded(), head_dim)
    return attended if image is None else attended + attention(normed, *image.expanded(), head_dim)


def quantize_fp8(x: torch.Tensor, *, gelu: bool = False) -> Fp8Rows:
    """Quantize rows (N, C), or their GELU (tanh approximation), to fp8 with scales (N, 1)."""
    if triton_kernels is not None and _has_kernel(x):
        return triton_kernels.quantize_fp8(x, gelu=gelu)
    return quantize_fp8_in_torch(functional.gelu(x.float(), approximate="tanh") if gelu else x)


def quantize_fp8_in_torch(values: torch.Tensor) -> Fp8Rows:
    """As `quantize_fp8` without a kernel, for weights and CPUs."""
    values = values.float()
    scale = values.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / FP8_MAX
    return (values / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale
