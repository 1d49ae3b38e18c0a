"""Copies and fills tensors in the calling thread.

PyTorch shares such work among threads of its own. Where each core draws a frame already, they only wait for each other,
and go on waiting for a while when nothing is left to do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def copied(values: torch.Tensor) -> torch.Tensor:
    """A contiguous copy."""
    copy = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    overwrite(copy, values)
    return copy


def overwrite(target: torch.Tensor, values: torch.Tensor) -> None:
    """Copy values into a tensor of the same shape, dtype and device."""
    if target.device.type == "cpu":
        np.copyto(target.numpy(), values.numpy())
    else:
        target.copy_(values)


def filled(shape: Sequence[int], value: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A new tensor with one value everywhere."""
    tensor = torch.empty(tuple(shape), dtype=dtype, device=device)
    if device.type == "cpu":
        tensor.numpy().fill(value)
    else:
        tensor.fill_(value)
    return tensor
