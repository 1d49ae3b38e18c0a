"""Linear layers of the transformer's blocks: in the weights' type, or in fp8 with one scale per row of both operands.

Layers that read the same rows become one, since one large matmul is faster than three smaller ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional

from ex4d.generation.wan.kernels.fused import Fp8Rows, quantize_fp8_in_torch


class Linear(nn.Module):
    """A linear layer that can apply GELU (tanh approximation) to its result, on CUDA in the matmul's epilogue."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, rows: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
        """Map (N, in) to (N, out)."""
        if not gelu:
            return functional.linear(rows, self.weight, self.bias)
        if rows.is_cuda:
            weight = self.weight.T
            return torch._addmm_activation(self.bias, rows, weight, use_gelu=True)  # pyright: ignore[reportPrivateImportUsage]
        return functional.gelu(functional.linear(rows, self.weight, self.bias), approximate="tanh")


class Fp8Linear(nn.Module):
    """A linear layer with an fp8 weight and fp8 input; without CUDA it computes the same from the rounded values."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        rounded, scale = quantize_fp8_in_torch(weight)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.scale = nn.Parameter(scale.T.contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.to(torch.bfloat16), requires_grad=False)

    def forward(self, rows: Fp8Rows) -> torch.Tensor:
        """Map (N, in) fp8 with scales (N, 1) to (N, out) bfloat16."""
        values, scale = rows
        if values.is_cuda:
            return torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
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
            result = functional.linear(values.float() * scale, self.weight.float() * self.scale.T, self.bias.float())
        return result.to(torch.bfloat16)


@lru_cache(maxsize=16)
def supports_fp8_matmul(device: torch.device) -> bool:
    """Whether this GPU and this torch have fp8 matmul with a scale per row; a CPU imitates it."""
    if device.type != "cuda":
        return True
    layer = Fp8Linear(torch.ones(64, 64, device=device), torch.zeros(64, device=device))
    try:
        layer(quantize_fp8_in_torch(torch.ones(64, 64, device=device)))
    except (RuntimeError, ValueError):
        return False
    return True


def merge_linear(layers: Sequence[nn.Linear], *, fp8: bool) -> Linear | Fp8Linear:
    """Merge ``layers`` into one whose outputs stand side by side."""
    weights, biases = [layer.weight.detach() for layer in layers], [layer.bias.detach() for layer in layers]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    bias = biases[0] if len(biases) == 1 else torch.cat(biases)
    return Fp8Linear(weight, bias) if fp8 else Linear(weight, bias)
