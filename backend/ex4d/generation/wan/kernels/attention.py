"""Scaled dot-product attention, and the order in which torch tries its attention backends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

# cuDNN's is the fastest where it runs (`ex4d bench generate` measures it); the others are fallbacks.
_BACKENDS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@contextmanager
def fastest_attention() -> Iterator[None]:
    """Let torch use cuDNN's attention where it can."""
    with sdpa_kernel(_BACKENDS, set_priority=True):
        yield


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Attend with (N, C) queries to (K, C) keys and values, heads side by side, without copies: (N, C)."""
    query, key, value = (part.unflatten(1, (-1, head_dim)).transpose(0, 1)[None] for part in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1).flatten(1)
