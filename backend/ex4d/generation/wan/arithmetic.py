"""What the precision "fp8" is on a device: asked for, used, and why not more, in words for people.

The command doctor, the log, progress, Blender's panels and a take's request.json say the same, so that nobody takes a
fall-back for what was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch

from ex4d.generation.wan.kernels.fp8_attention import supports_fp8_attention
from ex4d.generation.wan.kernels.matmul import Fp8Products, arithmetic_in_words, fp8_products
from ex4d.installation import install_command
from ex4d_core.wan_settings import Precision

# The tokens of 49 frames of 512x512, until a shot says otherwise, and the published transformer's width and heads.
_TYPICAL_TOKENS, _WIDTH, _HEAD_CHANNELS = 13_312, 5120, 128


@dataclass(frozen=True)
class Arithmetic:
    """What was asked for, and what a device has of it.

    Attributes:
        device: in words.
        precision: asked for.
        attention_asked: with "fp8", self-attention in fp8 too.
        products: the device's use of fp8; None for none.
        attention_here: whether the device has self-attention in fp8.
        frontend: whether cuDNN's frontend, which has it, is installed.
    """

    device: str
    precision: Precision
    attention_asked: bool = False
    products: Fp8Products | None = None
    attention_here: bool = False
    frontend: bool = True

    @property
    def attention(self) -> bool:
        """Whether self-attention is computed in fp8."""
        rows_in_fp8 = self.products in ("scaled rows", "scaled results")
        return self.precision == "fp8" and self.attention_asked and self.attention_here and rows_in_fp8

    def __str__(self) -> str:
        if self.precision != "fp8":
            return self.precision
        words = arithmetic_in_words(self.products)
        if not self.attention_asked or not words.startswith("fp8"):
            return words
        return f"{words}, attention too" if self.attention else f"{words}, attention in bf16"

    @property
    def lacking(self) -> str:
        """A sentence about what is used instead of what was asked for, and why; "" if nothing is lacking.

        A command that fixes it comes last, after "with: ".
        """
        if self.precision != "fp8" or (self.products == "scaled rows" and self.attention >= self.attention_asked):
            return ""
        asked = "fp8, attention too" if self.attention_asked else "fp8"
        if self.products != "scaled rows":
            why = "it has no matrix products of fp8 with a scale per row"
        elif self.frontend:
            why = "cuDNN has no attention in fp8 for it"
        else:
            why = f"cuDNN's frontend is not installed; install it with: {install_command('fp8')}"
        return f"{self.device} computes in {self}, instead of {asked}: {why}"


def arithmetic_of(
    device: torch.device,
    precision: Precision,
    *,
    attention: bool = False,
    tokens: int = _TYPICAL_TOKENS,
    width: int = _WIDTH,
) -> Arithmetic:
    """What a device makes of a precision, found by trying.

    Args:
        attention: self-attention in fp8 is asked for, too.
        tokens, width: of the transformer.
    """
    if precision != "fp8":
        return Arithmetic(str(device), precision)
    here = attention and supports_fp8_attention(tokens, width, _HEAD_CHANNELS, device)
    frontend = find_spec("cudnn") is not None
    return Arithmetic(str(device), precision, attention, fp8_products(device), here, frontend)
