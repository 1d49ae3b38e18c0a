"""Launches Warp kernels on PyTorch tensors, in order with PyTorch's own work on the same device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import warp as wp

from ex4d.devices import cpu_cores
from ex4d.kernels import BLOCK_THREADS, load_module

Kernel = wp.Kernel | Callable[..., None]  # Warp's stubs type a decorated function as itself.


def launch(kernel: Kernel, shape: Sequence[int], device: torch.device, *inputs: Any) -> None:
    """Launch a kernel with one thread for each element of a shape; tensors are passed as Warp's arrays.

    Args:
        kernel: of Warp.
        shape: its threads.
        device: of the tensors; on CUDA the launch is queued behind the work on PyTorch's current stream.
        inputs: of the kernel. Tensors are contiguous, and of bool are seen as uint8.
    """
    assert isinstance(kernel, wp.Kernel), "a decorated function"
    load_module(kernel.module, device)
    where = wp.device_from_torch(device)
    stream = wp.stream_from_torch(torch.cuda.current_stream(device)) if where.is_cuda else None
    arrays = [_array(one) for one in inputs]
    wp.launch(kernel, dim=tuple(shape), inputs=arrays, device=where, stream=stream, block_dim=BLOCK_THREADS)


def launch_rows(kernel: Kernel, shape: Sequence[int], device: torch.device, *inputs: Any, cuda_span: int = 1) -> None:
    """Launch a kernel whose threads are (frame, row, span of columns) for all pixels of (T, H, W).

    A CPU walks along a row in one thread, which saves computing its position at every step, and each of its cores
    takes frames.

    Args:
        kernel: takes the span, a number of columns, before its other inputs.
        shape: frames, rows and columns.
        device: as of `launch`.
        inputs: as of `launch`, without the span; tensors have as many frames.
        cuda_span: columns of a GPU's thread: more than one where most threads find nothing to do.
    """
    frames, height, width = shape
    if device.type == "cuda":
        launch(kernel, (frames, height, -(-width // cuda_span)), device, cuda_span, *inputs)
        return

    def launch_frame(frame: int) -> None:
        own = (one[frame : frame + 1] if isinstance(one, torch.Tensor) else one for one in inputs)
        launch(kernel, (1, height, 1), device, width, *own)

    if frames == 1:
        launch_frame(0)
        return
    assert isinstance(kernel, wp.Kernel), "a decorated function"
    load_module(kernel.module, device)  # not in several threads at once
    with ThreadPoolExecutor(min(cpu_cores(), frames)) as pool:
        list(pool.map(launch_frame, range(frames)))


def _array(value: Any) -> Any:
    """A tensor as Warp's launches take it, as which it is described in less time than as an array of Python's."""
    if not isinstance(value, torch.Tensor):
        return value
    return wp.from_torch(value.view(torch.uint8) if value.dtype == torch.bool else value, return_ctype=True)
