"""Reads GGUF files, as ComfyUI-GGUF and llama.cpp write them; the package `gguf` has the format and its arithmetic."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from ex4d.installation import install_command
from ex4d.weights.errors import CheckpointError
from ex4d.weights.packed import PackedTensor

ENDING = ".gguf"

# Shapes that GGUF itself could not hold, beside the tensors.
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
# What a damaged file has been seen to raise inside the package.
_DAMAGE = (ValueError, LookupError, OSError, OverflowError, UnicodeDecodeError, TypeError, MemoryError)


def read_gguf(path: Path) -> dict[str, PackedTensor]:
    """The tensors of a GGUF file, mapped from the disk and unpacked when they are used; raises as the next one."""
    return read_titled_gguf(path)[1]


def read_titled_gguf(path: Path) -> tuple[str, dict[str, PackedTensor]]:
    """What a GGUF file calls itself, "" if nothing, and its tensors.

    Raises:
        CheckpointError: the file is damaged, or packed in a way that the package cannot unpack, or the package is
            missing.
    """
    try:
        from gguf import GGUFReader  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise CheckpointError(
            f"{path} is a GGUF file, which needs the package gguf: {install_command('wan')}"
        ) from error
    try:
        reader = GGUFReader(path)
        shapes = {
            key.removeprefix(_ORIGINAL_SHAPE): field.contents()
            for key, field in reader.fields.items()
            if key.startswith(_ORIGINAL_SHAPE)
        }
        title = reader.fields.get("general.name")
        return str(title.contents()) if title else "", {
            tensor.name: _packed(tensor, shapes.get(tensor.name), path) for tensor in reader.tensors
        }
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path} cannot be read as GGUF, it may be cut off: {str(error).strip() or type(error).__name__}. Download "
            "it again"
        ) from error


def _packed(tensor: Any, shape: list[int] | None, path: Path) -> PackedTensor:
    from gguf.quants import dequantize  # pyright: ignore[reportMissingImports]

    # GGUF counts dimensions from the innermost.
    of_tensor = tuple(shape) if shape else tuple(int(side) for side in reversed(tensor.shape))
    data, packing = tensor.data, tensor.tensor_type

    def unpack(device: torch.device | str) -> torch.Tensor:
        try:
            values = dequantize(data, packing)
        except NotImplementedError as error:
            raise CheckpointError(
                f"{path} is packed as {packing.name}, which the package gguf cannot unpack: use a file of Q4 to Q8"
            ) from error
        with warnings.catch_warnings():  # float32 tensors are the mapped file itself, which is copied before it is used
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(values).reshape(of_tensor).to(device)

    return PackedTensor(of_tensor, torch.float32, unpack, packing.name)
