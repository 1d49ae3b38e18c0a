"""The transformer's operations between matmuls for training: `fused` in plain torch, with gradients, nothing in place.

Values and precision are those of `fused` without a kernel. `Block` chooses between the two when it is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from ex4d.generation.wan.kernels.fused import norm_rope

_Result = TypeVar("_Result")


def add_branch(x: torch.Tensor, added: torch.Tensor | None, gate: torch.Tensor | None) -> torch.Tensor:
    """The residual stream ``x`` (N, C) with ``gate * added`` in it, rounded once; all of it without ``gate``."""
    if added is None:
        return x
    return (x.float() + (added.float() if gate is None else gate.float() * added.float())).to(x.dtype)


def qk_norm_rope(
    qkv: torch.Tensor,
    query_weight: torch.Tensor,
    key_weight: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    epsilon: float,
    head_dim: int,
) -> torch.Tensor:
    """As `fused.qk_norm_rope` without factors, but (N, 3 C) stays as it was."""
    query, key, value = qkv.chunk(3, dim=1)
    rotated = [
        norm_rope(part, weight, angles, epsilon, head_dim).to(qkv.dtype)
        for part, weight in ((query, query_weight), (key, key_weight))
    ]
    return torch.cat([*rotated, value], dim=1)


def recomputed(function: Callable[..., _Result], *arguments: object, offload: bool) -> _Result:
    """Call a function, keeping only its arguments for the backward pass, which calls it again.

    Args:
        offload: keep them in the host's memory.
    """
    if not offload:
        return checkpoint(function, *arguments, use_reentrant=False)  # pyright: ignore[reportReturnType]
    with save_on_cpu(pin_memory=torch.cuda.is_available()):
        return checkpoint(function, *arguments, use_reentrant=False)  # pyright: ignore[reportReturnType]
