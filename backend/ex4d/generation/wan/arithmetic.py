"""What the precision of a take is on a device: as it was asked for, or the next best, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ex4d.generation.wan.kernels.fp8_attention import why_no_fp8_attention
from ex4d.generation.wan.kernels.matmul import FP8_PRODUCTS, Fp8Products, arithmetic_in_words, fp8_products
from ex4d_core.wan_settings import Precision, WanSettings


@dataclass(frozen=True)
class Arithmetic:
    """The transformer's, on one device.

    Attributes:
        precision: what was asked for.
        products: what that is there with "fp8"; None where it has none, and with any other precision.
        fp8_attention: whether self-attention is in fp8, too.
        no_attention: why it is not though it was asked for; "" if it is, or was not.
    """

    precision: Precision
    products: Fp8Products | None = None
    fp8_attention: bool = False
    no_attention: str = ""

    @property
    def words(self) -> str:
        """For people; "fp8", "bf16" and "float32" where it is just that."""
        if self.precision != "fp8":
            return self.precision
        words = arithmetic_in_words(self.products)
        return f"{words}, attention in {'fp8' if self.fp8_attention else 'bf16'}" if self._attention_asked else words

    def shortfalls(self, device: str) -> list[str]:
        """A sentence for each thing that was asked for and is another on the device of this name."""
        sentences = []
        if self.precision == "fp8" and self.products != FP8_PRODUCTS[0]:
            sentences.append(
                f"{device} does not multiply in fp8 with a scale per row, so that the precision fp8 is: "
                f"{arithmetic_in_words(self.products)}"
            )
        if self.no_attention:
            sentences.append(f"self-attention is in bf16 instead of fp8 on {device}: {self.no_attention}")
        return sentences

    @property
    def _attention_asked(self) -> bool:
        return self.fp8_attention or bool(self.no_attention)


def arithmetic_on(device: torch.device, precision: Precision, *, fp8_attention: bool = False) -> Arithmetic:
    """What a precision is on a device, with self-attention in fp8 too if that is asked for; found by trying.

    Raises:
        GenerationError: the device has no memory left to try it.
    """
    if precision != "fp8":
        return Arithmetic(precision)
    products = fp8_products(device)
    if not fp8_attention:
        return Arithmetic(precision, products)
    if products not in ("scaled rows", "scaled results"):
        return Arithmetic(precision, products, no_attention="it needs products in fp8")
    reason = why_no_fp8_attention(device)
    return Arithmetic(precision, products, not reason, reason)


def settings_as_run(settings: WanSettings, device: str) -> tuple[WanSettings, list[str]]:
    """Settings with the arithmetic that a device has for them, and the `Arithmetic.shortfalls`.

    Raises:
        GenerationError: as in `arithmetic_on`.
    """
    made = arithmetic_on(torch.device(device), settings.precision, fp8_attention=settings.fp8_attention)
    precision = "bf16" if settings.precision == "fp8" and made.products is None else settings.precision
    run = replace(settings, precision=precision, fp8_attention=settings.fp8_attention and not made.no_attention)
    return run, made.shortfalls(device)
