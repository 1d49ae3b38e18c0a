"""Matrix products of the transformer's blocks: as they are, or in 8 bits with one scale for each row of both sides.

Several layers that read the same rows become one, since one large product is faster than three smaller ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional

from ex4d.generate.wan.kernels.fused import Rows, quantized_in_torch


class Linear(nn.Module):
    """A linear layer that can apply GELU (tanh's form) to its result, in the product itself where CUDA can."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, rows: Rows, *, gelu: bool = False) -> torch.Tensor:
        """(N, in) to (N, out)."""
        if not gelu:
            return functional.linear(rows, self.weight, self.bias)
        if rows.is_cuda:
            return torch._addmm_activation(self.bias, rows, self.weight.T, use_gelu=True)
        return functional.gelu(functional.linear(rows, self.weight, self.bias), approximate="tanh")


class Fp8Linear(nn.Module):
    """A linear layer whose weight is in 8 bits, and whose input must be.

    Elsewhere than on CUDA it computes the same from the rounded values, for tests.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        rounded, scale = quantized_in_torch(weight)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.scale = nn.Parameter(scale.T.contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.to(torch.bfloat16), requires_grad=False)

    def forward(self, rows: Rows) -> torch.Tensor:
        """(N, in) in 8 bits with scales (N, 1) to (N, out) bfloat16."""
        values, scale = rows
        if values.is_cuda:
            return torch._scaled_mm(
                values,
                self.weight.T,
                scale_a=scale,
                scale_b=self.scale,
                bias=self.bias,
                out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )
        # Autocast would round the scaled values once more.
        with torch.autocast(values.device.type, enabled=False):
            made = functional.linear(values.float() * scale, self.weight.float() * self.scale.T, self.bias.float())
        return made.to(torch.bfloat16)


@lru_cache(maxsize=16)
def has_8_bit_products(device: torch.device) -> bool:
    """Whether this GPU and this torch multiply in 8 bits with a scale for each row; a processor imitates it."""
    if device.type != "cuda":
        return True
    layer = Fp8Linear(torch.ones(64, 64, device=device), torch.zeros(64, device=device))
    try:
        layer(quantized_in_torch(torch.ones(64, 64, device=device)))
    except (RuntimeError, ValueError):
        return False
    return True


def linear_of(layers: Sequence[nn.Linear], *, fp8: bool) -> Linear | Fp8Linear:
    """One layer for all of ``layers``, their results side by side."""
    weights, biases = [layer.weight.detach() for layer in layers], [layer.bias.detach() for layer in layers]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    bias = biases[0] if len(biases) == 1 else torch.cat(biases)
    return Fp8Linear(weight, bias) if fp8 else Linear(weight, bias)
