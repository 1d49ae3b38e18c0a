"""Linear layers of the transformer's blocks: in the weights' type, or in fp8 with one scale per row of both operands.

Layers that read the same rows become one, since one large matmul is faster than three smaller ones. Which products in
fp8 there are depends on GPU and torch; see `Fp8Products`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional

from ex4d.generation.wan.errors import GenerationError
from ex4d.generation.wan.kernels.fused import Fp8Rows, quantize_fp8_in_torch

# How a GPU computes with fp8 weights, the fastest first: products of fp8 rows that apply their scales themselves; such
# products with the scales applied to the result, where torch has none with a scale per row (sm_120, earlier releases);
# and fp8 for storage alone, with products in bfloat16 (Ampere).
Fp8Products = Literal["scaled rows", "scaled results", "stored weights"]
FP8_PRODUCTS: tuple[Fp8Products, ...] = get_args(Fp8Products)


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

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, products: Fp8Products = "scaled rows"):
        super().__init__()
        self.products = products
        rounded, scale = quantize_fp8_in_torch(weight)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.scale = nn.Parameter(scale.T.contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.to(torch.bfloat16), requires_grad=False)

    def forward(self, rows: Fp8Rows) -> torch.Tensor:
        """Map (N, in) fp8 with scales (N, 1) to (N, out) bfloat16."""
        values, scale = rows
        if self.products == "scaled results":
            return self._scaled_afterwards(values, scale)
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

    def _scaled_afterwards(self, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """The product of fp8 rows as they are, times the scales of both operands."""
        if values.is_cuda:
            one = torch.ones((), device=values.device)
            product = torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
                values, self.weight.T, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
            ).float()
        else:
            with torch.autocast(values.device.type, enabled=False):
                product = functional.linear(values.float(), self.weight.float()).bfloat16().float()
        return (product * scale * self.scale + self.bias.float()).to(torch.bfloat16)


class Fp8Weights(nn.Module):
    """A linear layer whose weight is stored in fp8 with a scale per row, and used in bfloat16: half of its memory."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        rounded, scale = quantize_fp8_in_torch(weight)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = nn.Parameter(bias.to(torch.bfloat16), requires_grad=False)

    def forward(self, rows: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
        """Map (N, in) to (N, out), with GELU (tanh approximation) of the result."""
        weight = self.weight.to(rows.dtype) * self.scale.to(rows.dtype)
        result = functional.linear(rows, weight, self.bias.to(rows.dtype))
        return functional.gelu(result, approximate="tanh") if gelu else result


@lru_cache(maxsize=16)
def fp8_products(device: torch.device) -> Fp8Products | None:
    """The best use of fp8 that this GPU and this torch have, found by trying; None for none. A CPU imitates it.

    Raises:
        GenerationError: the GPU has no memory left to try, which says nothing about its products.
    """
    if device.type != "cuda":
        return FP8_PRODUCTS[0]
    try:
        return next((products for products in FP8_PRODUCTS if _has(products, device)), None)
    except torch.OutOfMemoryError as error:
        raise GenerationError(
            f"{device} has no memory left to try its products in fp8: end other programs on it, or choose another "
            "device"
        ) from error


def _has(products: Fp8Products, device: torch.device) -> bool:
    """Whether a GPU computes such a product of ones."""
    weight, bias = torch.ones(64, 64, device=device), torch.zeros(64, device=device)
    try:
        if products == "stored weights":
            Fp8Weights(weight, bias)(weight.bfloat16())
        else:
            Fp8Linear(weight, bias, products)(quantize_fp8_in_torch(weight))
    except torch.OutOfMemoryError:  # a RuntimeError, too
        raise
    except (RuntimeError, ValueError, AttributeError):
        return False
    return True


def arithmetic_in_words(products: Fp8Products | None) -> str:
    """What the precision "fp8" is, for people."""
    if products is None:
        return "bf16 (no fp8 here)"
    return {
        "scaled rows": "fp8",
        "scaled results": "fp8, scales applied to results",
        "stored weights": "bf16, weights stored in fp8",
    }[products]


class JoinedLinear(nn.Module):
    """Layers that read the same rows, each as it is and with a LoRA of its own; their results stand side by side."""

    def __init__(self, layers: Sequence[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, rows: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
        """Map (N, in) to (N, out), with GELU (tanh approximation) of the result."""
        results = [layer(rows) for layer in self.layers]
        result = results[0] if len(results) == 1 else torch.cat(results, dim=1)
        return functional.gelu(result, approximate="tanh") if gelu else result


def join_linear(layers: Sequence[nn.Module]) -> JoinedLinear:
    """Let ``layers`` stay apart, so that each can be trained; see `merge_linear` for inference."""
    return JoinedLinear(layers)


def merge_linear(layers: Sequence[nn.Linear], *, fp8: Fp8Products | None) -> Linear | Fp8Linear | Fp8Weights:
    """Merge ``layers`` into one whose outputs stand side by side."""
    weights, biases = [layer.weight.detach() for layer in layers], [layer.bias.detach() for layer in layers]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    bias = biases[0] if len(biases) == 1 else torch.cat(biases)
    if fp8 is None:
        return Linear(weight, bias)
    return Fp8Weights(weight, bias) if fp8 == "stored weights" else Fp8Linear(weight, bias, fp8)
