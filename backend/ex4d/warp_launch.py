"""Launches Warp kernels on PyTorch tensors, in order with PyTorch's own work on the same device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import warp as wp

from ex4d.warp_start import start_warp

Kernel = wp.Kernel | Callable[..., None]  # Warp's stubs type a decorated function as itself.


def launch(kernel: Kernel, shape: Sequence[int], device: torch.device, *inputs: Any) -> None:
    """Launch a kernel with one thread for each element of a shape; tensors are passed as Warp's arrays.

    Args:
        kernel: of Warp.
        shape: its threads.
        device: of the tensors; on CUDA the launch is queued behind the work on PyTorch's current stream.
        inputs: of the kernel. Tensors are contiguous, and of bool are seen as uint8.
    """
    start_warp()
    where = wp.device_from_torch(device)
    stream = wp.stream_from_torch(torch.cuda.current_stream(device)) if where.is_cuda else None
    wp.launch(kernel, dim=tuple(shape), inputs=[_array(one) for one in inputs], device=where, stream=stream)


def launch_rows(kernel: Kernel, shape: Sequence[int], device: torch.device, *inputs: Any) -> None:
    """Launch a kernel whose threads are (frame, row, span of columns) for all pixels of (T, H, W).

    A CPU walks along a row in one thread, which saves computing its position at every step.

    Args:
        kernel: takes the span, a number of columns, before its other inputs.
        shape: frames, rows and columns.
        device: as of `launch`.
        inputs: as of `launch`, without the span.
    """
    frames, height, width = shape
    span = 1 if device.type == "cuda" else width
    launch(kernel, (frames, height, -(-width // span)), device, span, *inputs)


def _array(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return wp.from_torch(value.view(torch.uint8) if value.dtype == torch.bool else value)
