"""Tensors that are stored packed (8 bits with a scale, GGUF's blocks) or under other shapes, and computed when used.

A transformer of 16 billion weights would not fit into most machines' memory if all of it were unpacked at once, so
a `PackedTensor` is unpacked when it is moved to its device.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ex4d.weights.errors import CheckpointError

# Endings of a scale beside the weight that it belongs to, and of what only a runtime that multiplies in 8 bits needs.
_SCALES = (".scale_weight", ".weight_scale")
_ACTIVATION_SCALES = (".scale_input", ".input_scale")
_FORMAT = ".comfy_quant"
# Marks a file of 8-bit weights with scales.
_MARKER = "scaled_fp8"
_FP8_FORMATS = ("float8_e4m3fn", "float8_e5m2")


class PackedTensor:
    """A tensor that is computed when it is moved to a device.

    Attributes:
        shape: of the unpacked tensor.
        dtype: of the unpacked tensor.
        packing: what it is stored as, for people: "fp8 with scales", "Q4_K"; "" if only its shape differs.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        unpack: Callable[[torch.device | str], torch.Tensor],
        packing: str = "",
    ):
        self.shape = torch.Size(shape)
        self.dtype = dtype
        self.packing = packing
        self._unpack = unpack

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def is_floating_point(self) -> bool:
        """Whether it holds real numbers."""
        return self.dtype.is_floating_point

    def to(self, device: torch.device | str) -> torch.Tensor:
        """Unpack it on a device."""
        return self._unpack(device)


# A tensor as files have it.
StoredTensor = torch.Tensor | PackedTensor


def packing_of(tensor: StoredTensor) -> str:
    """What a tensor is stored as, for people: "fp16", "fp8 with scales", "Q4_K"."""
    if isinstance(tensor, PackedTensor) and tensor.packing:
        return tensor.packing
    names = {torch.float8_e4m3fn: "fp8", torch.float8_e5m2: "fp8", torch.bfloat16: "bf16", torch.float16: "fp16"}
    return names.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))


def reshaped(tensor: StoredTensor, shape: Sequence[int]) -> StoredTensor:
    """A tensor in another shape."""
    return PackedTensor(shape, tensor.dtype, lambda device: tensor.to(device).reshape(shape), packing_of(tensor))


def transposed(tensor: StoredTensor) -> StoredTensor:
    """A matrix with rows and columns exchanged."""
    shape = tuple(reversed(tensor.shape))
    return PackedTensor(shape, tensor.dtype, lambda device: tensor.to(device).T.contiguous(), packing_of(tensor))


def stacked(tensors: Sequence[StoredTensor]) -> StoredTensor:
    """Tensors below each other, along their first dimension."""
    first = tensors[0]
    shape = (sum(tensor.shape[0] for tensor in tensors), *first.shape[1:])

    def unpack(device: torch.device | str) -> torch.Tensor:
        # float32: 8-bit types cannot be joined.
        return torch.cat([tensor.to(device).float() for tensor in tensors])

    return PackedTensor(shape, torch.float32, unpack, packing_of(first))


def with_scales(tensors: Mapping[str, torch.Tensor], source: Path) -> dict[str, StoredTensor]:
    """Join 8-bit weights with the scales beside them, in ComfyUI's styles of both ages.

    Scales of activations are left out: products here choose their own.

    Raises:
        CheckpointError: a scale without its weight or of another shape, or another packing than 8-bit floats.
    """
    result: dict[str, StoredTensor] = {}
    scales: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        if key.endswith(_FORMAT):
            _require_fp8(key, tensor, source)
        elif key.endswith(_SCALES):
            scales[key.rpartition(".")[0] + ".weight"] = tensor
        elif key.rpartition(".")[2] != _MARKER and not key.endswith(_ACTIVATION_SCALES):
            result[key] = tensor
    for key, scale in scales.items():
        weight = tensors.get(key)
        if weight is None:
            raise CheckpointError(f"{source} has a scale for {key}, but no {key}; the file is incomplete")
        # Files carry a scale of 1 beside weights that were left in 16 bits, too.
        result[key] = _scaled(weight, scale, f"{source} has a scale for {key}")
    return result


def _require_fp8(key: str, description: torch.Tensor, source: Path) -> None:
    """Check what ComfyUI's description of a layer, JSON as bytes, says about its packing."""
    try:
        name = json.loads(bytes(description.to(torch.uint8).flatten().tolist())).get("format")
    except (ValueError, AttributeError):
        name = None
    if name not in _FP8_FORMATS:
        raise CheckpointError(
            f"{source} has {key.removesuffix(_FORMAT)} packed as {name}: expected {' or '.join(_FP8_FORMATS)}. Use the "
            "model's file in fp16, fp8 or GGUF"
        )


def _scaled(weight: torch.Tensor, scale: torch.Tensor, what: str) -> PackedTensor:
    """A weight times its scale: one number, or one for each row."""
    if scale.numel() not in (1, weight.shape[0] if weight.ndim else 1):
        raise CheckpointError(
            f"{what} of shape {tuple(scale.shape)}, and its weight is {tuple(weight.shape)}: expected one number, or "
            "one for each row"
        )
    rows = (-1, *(1 for _ in weight.shape[1:])) if scale.numel() > 1 else ()

    def unpack(device: torch.device | str) -> torch.Tensor:
        return weight.to(device).float() * scale.to(device).float().reshape(rows)

    return PackedTensor(weight.shape, torch.float32, unpack, f"{packing_of(weight)} with scales")
