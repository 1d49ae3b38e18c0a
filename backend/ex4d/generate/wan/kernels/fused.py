"""What the transformer does between its matrix products, fused: one Triton kernel each on a GPU, plain torch elsewhere.

Both ways compute in float32 and round once. Rows are tokens; a batch is one sample, as everywhere in this engine.
Values in 8 bits (e4m3) come with one float32 scale for each row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

try:
    from ex4d.generate.wan.kernels import triton_kernels
except ImportError:  # no Triton for this system: the torch versions are slower, not different
    triton_kernels = None

# Keys of a cross-attention come in pieces of so many.
KEY_STEP = 64 if triton_kernels is None else triton_kernels.KEY_STEP

FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max

# A matrix, or its values in 8 bits and their scales (N, 1).
Rows = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


def _with_triton(values: torch.Tensor) -> bool:
    return values.is_cuda and triton_kernels is not None and values.dtype == torch.bfloat16


def residual_norm(
    x: torch.Tensor,
    added: torch.Tensor | None,
    gate: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    epsilon: float,
    *,
    dtype: torch.dtype,
    one_more: bool = True,
    eight_bit: bool = False,
) -> Rows:
    """Add ``gate`` times ``added`` to ``x`` in place, then the layer norm of it, modulated.

    Args:
        x, added: (N, C); nothing is added without ``added``, and all of it without ``gate``.
        gate, scale, shift: (C,).
        dtype: of what is returned.
        one_more: modulate by 1 + scale, not by scale.
        eight_bit: return 8 bits and scales, not ``dtype``.
    """
    if x.is_cuda and triton_kernels is not None and torch.bfloat16 in (x.dtype, dtype, getattr(added, "dtype", None)):
        made, scales = triton_kernels.norm(
            x, added, gate, scale, shift, epsilon, dtype=dtype, one_more=one_more, eight_bit=eight_bit
        )
        return (made, scales) if eight_bit else made
    if added is not None:
        x.copy_(x.float() + (added.float() if gate is None else gate.float() * added.float()))
    normed = functional.layer_norm(x.float(), x.shape[-1:], eps=epsilon)
    made = normed * (scale.float() + float(one_more)) + shift.float()
    return quantized_in_torch(made) if eight_bit else made.to(dtype)


def rotate_heads(
    qkv: torch.Tensor,
    query_weight: torch.Tensor,
    key_weight: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    epsilon: float,
    head: int,
    factors: torch.Tensor | None = None,
) -> torch.Tensor:
    """RMS norm over all channels, then rotary embedding, of queries and keys.

    Args:
        qkv: (N, 3 C), queries, keys and values side by side; changed in place, unless ``factors`` are given.
        query_weight, key_weight: (C,) of the norms.
        angles: cosines and sines (N, head / 2) float32, one for each pair of channels.
        factors: (3,) float32; queries, keys and values times these, rounded to 8 bits, are returned.
    """
    if _with_triton(qkv):
        by = qkv.new_ones(2, dtype=torch.float32) if factors is None else factors
        return triton_kernels.rotate(qkv, query_weight, key_weight, *angles, epsilon, head, by)
    cosine, sine = (table[:, None] for table in angles)
    parts = []
    for part, weight in zip(qkv.chunk(3, dim=1), (query_weight, key_weight), strict=False):
        normed = functional.rms_norm(part.float(), part.shape[-1:], weight.float(), epsilon)
        real, imaginary = normed.view(len(part), -1, head // 2, 2).unbind(-1)
        turned = torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=-1).flatten(1)
        parts.append(turned)
        if factors is None:
            part.copy_(turned)
    if factors is None:
        return qkv
    parts.append(qkv.chunk(3, dim=1)[2].float())
    scaled = [part * factor for part, factor in zip(parts, factors, strict=True)]
    return torch.cat(scaled, dim=1).clamp(-FP8_MAX, FP8_MAX).to(FP8)


def largest_value(qkv: torch.Tensor) -> torch.Tensor:
    """The largest magnitude among the values of (N, 3 C): (1,) float32."""
    if _with_triton(qkv):
        return triton_kernels.largest_value(qkv)
    return qkv.chunk(3, dim=1)[2].float().abs().amax().reshape(1)


@dataclass(frozen=True)
class CrossKeys:
    """What a cross-attention attends to.

    Attributes:
        key, value: (K, C), padded with zeros to a multiple of `KEY_STEP`. The queries' norm weight is in the keys.
        count: how many of them there are.
        repeats: the last one stands for so many equal ones.
    """

    key: torch.Tensor
    value: torch.Tensor
    count: int
    repeats: int = 1

    @staticmethod
    def of(key: torch.Tensor, value: torch.Tensor, repeats: int = 1) -> CrossKeys:
        """From (count, C) keys and values."""
        padding = (0, 0, 0, -len(key) % KEY_STEP)
        return CrossKeys(functional.pad(key, padding), functional.pad(value, padding), len(key), repeats)

    def expanded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, each as often as it counts."""
        key, value = self.key[: self.count], self.value[: self.count]
        return tuple(torch.cat([part, part[-1:].expand(self.repeats - 1, -1)]) for part in (key, value))


def cross_attention(
    query: torch.Tensor, picture: CrossKeys | None, text: CrossKeys, epsilon: float, head: int
) -> torch.Tensor:
    """Attention to the text plus attention to the picture, (N, C); queries (N, C) are RMS-normed on the way."""
    if _with_triton(query):
        return triton_kernels.cross_attention(query, picture, text, epsilon, head)
    normed = functional.rms_norm(query.float(), query.shape[-1:], eps=epsilon).to(query.dtype)
    made = attention(normed, *text.expanded(), head)
    return made if picture is None else made + attention(normed, *picture.expanded(), head)


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, head: int) -> torch.Tensor:
    """Torch's attention on (N, C) queries and (K, C) keys and values with heads side by side, copying none."""
    heads = (part.unflatten(1, (-1, head)).transpose(0, 1)[None] for part in (query, key, value))
    return functional.scaled_dot_product_attention(*heads)[0].transpose(0, 1).flatten(1)


def quantized(x: torch.Tensor, *, gelu: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (N, C) in 8 bits and their scales (N, 1), of ``x`` or of GELU (in tanh's form) of it."""
    if _with_triton(x):
        return triton_kernels.quantize(x, gelu=gelu)
    return quantized_in_torch(functional.gelu(x.float(), approximate="tanh") if gelu else x)


def quantized_in_torch(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`quantized` without a kernel, for weights and processors."""
    values = values.float()
    scale = values.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / FP8_MAX
    return (values / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale
