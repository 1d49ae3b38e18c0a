"""Writes and reads .safetensors files of tens of gigabytes: a tensor at a time, and by several threads.

The library safetensors writes from a copy of all tensors in the host's memory, and reads with one thread through a
mapping. Here each tensor is copied from its device when its turn comes, and threads read chunks of the file into
page-locked memory, from which the GPU copies them while the next ones are read. The format is the library's own:
a header of JSON behind its length in 8 bytes, then the tensors' bytes.
"""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from ex4d.weights.errors import CheckpointError

# Reads on flight: NVMe and network disks reach their rate with several. Two buffers of a chunk belong to each.
THREADS = 8
CHUNK_BYTES = 16 * 2**20
# Far above a header with the names of every tensor.
_LONGEST_HEADER = 100 * 2**20

_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}


@dataclass(frozen=True)
class _Place:
    """Where a file has a tensor.

    Attributes:
        dtype, shape: the tensor's.
        start, size: in bytes; the start from the beginning of the file.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    size: int


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], go_on: Callable[[], bool] = lambda: True) -> bool:
    """Write a new file, with one tensor at a time in the host's memory.

    Args:
        path: must not exist.
        tensors: of real numbers, on any device.
        go_on: asked before each tensor; false ends the work.

    Returns:
        Whether all of it was written.

    Raises:
        OSError: the file is there already, or the disk is full.
    """
    # As safetensors orders them: the largest types first, so that each tensor is aligned and there are no gaps.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))
    header, end = {}, 0
    for key, tensor in ordered.items():
        start, end = end, end + tensor.nbytes
        header[key] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "xb") as file, _own_stream(ordered.values()):
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in ordered.values():
            if not go_on():
                return False
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return True


def _own_stream(tensors: Iterable[torch.Tensor]) -> AbstractContextManager[object]:
    """Copy from a GPU beside its other work, once what computes these tensors is done."""
    device = next((tensor.device for tensor in tensors if tensor.is_cuda), None)
    if device is None:
        return nullcontext()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.default_stream(device))
    return torch.cuda.stream(stream)


def read_tensors(
    path: Path,
    device: torch.device | str | Callable[[str], torch.device | str],
    on_tensor: Callable[[int, int], None] | None = None,
    *,
    threads: int = THREADS,
    chunk_bytes: int = CHUNK_BYTES,
) -> dict[str, torch.Tensor]:
    """Read all tensors of a file onto a device, by several threads.

    Args:
        path: written by `write_tensors` or by safetensors.
        device: of all tensors, or of each by its name.
        on_tensor: called with how many tensors are read, and of how many; what it raises ends the work.
        threads: how many read at once.
        chunk_bytes: at most this much at a time.

    Raises:
        CheckpointError: the file is damaged, cut off or missing.
    """
    places = _places(path)
    choose = device if callable(device) else lambda key: device
    tensors = {key: torch.empty(place.shape, dtype=place.dtype, device=choose(key)) for key, place in places.items()}
    with closing(_Readers(path, chunk_bytes)) as readers, ThreadPoolExecutor(threads, "read-weights") as pool:
        chunks: dict[str, list[Future[None]]] = {
            key: [pool.submit(readers.read, tensors[key], *chunk) for chunk in _chunks(place, chunk_bytes)]
            for key, place in places.items()
        }
        try:
            for done, futures in enumerate(chunks.values(), start=1):
                _wait_for(futures, path)
                if on_tensor is not None:
                    on_tensor(done, len(chunks))
        finally:
            pool.shutdown(cancel_futures=True)
    return tensors


def _wait_for(futures: Sequence[Future[None]], path: Path) -> None:
    try:
        for future in futures:
            future.result()
    except (OSError, EOFError) as error:
        raise CheckpointError(f"{path} cannot be read: {error or 'it is cut off'}") from error


def _chunks(place: _Place, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield (position in the file, first and last byte of the tensor) of each chunk."""
    for first in range(0, place.size, size):
        yield place.start + first, first, min(first + size, place.size)


class _Readers:
    """What each thread keeps between its chunks: the open file and, for a GPU, buffers and a stream."""

    def __init__(self, path: Path, chunk_bytes: int):
        self._path, self._chunk_bytes = path, chunk_bytes
        self._own = threading.local()
        self._files: list[BinaryIO] = []
        self._copiers: list[_Copier] = []

    def read(self, target: torch.Tensor, position: int, first: int, last: int) -> None:
        """Read bytes ``first`` to ``last`` of a tensor.

        Raises:
            EOFError: the file ends before.
        """
        own = self._own
        if not hasattr(own, "file"):
            own.file = open(self._path, "rb", buffering=0)  # noqa: SIM115 (closed in `close`)
            self._files.append(own.file)
        with torch.inference_mode():
            flat = target.reshape(-1).view(torch.uint8)[first:last]
            if target.device.type == "cpu":
                _read_into(own.file, position, flat.numpy().data)
                return
            if getattr(own, "copier", None) is None:
                own.copier = _Copier(target.device, self._chunk_bytes)
                self._copiers.append(own.copier)
            own.copier.copy(own.file, position, flat)

    def close(self) -> None:
        """Close the files, and wait until the GPU has all that was read."""
        for copier in self._copiers:
            copier.wait()
        for file in self._files:
            file.close()


class _Copier:
    """Two page-locked buffers: the GPU copies from one while the other is filled."""

    def __init__(self, device: torch.device, size: int):
        self._device = device
        self._buffers = [torch.empty(size, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        self._copied: list[torch.cuda.Event | None] = [None, None]
        self._stream = torch.cuda.Stream(device)
        # The targets' memory may have been another tensor's, which queued work still uses.
        self._stream.wait_stream(torch.cuda.default_stream(device))
        self._turn = 0

    def copy(self, file: BinaryIO, position: int, target: torch.Tensor) -> None:
        """Read into a buffer, and start its copy to bytes on the GPU."""
        turn, self._turn = self._turn, 1 - self._turn
        if (event := self._copied[turn]) is not None:
            event.synchronize()
        buffer = self._buffers[turn][: len(target)]
        _read_into(file, position, buffer.numpy().data)
        with torch.cuda.stream(self._stream):
            target.copy_(buffer, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._stream)
        self._copied[turn] = event

    def wait(self) -> None:
        """Wait for the last copies."""
        self._stream.synchronize()


def _read_into(file: BinaryIO, position: int, target: memoryview) -> None:
    file.seek(position)
    while len(target):
        count = file.readinto(target)  # pyright: ignore[reportAttributeAccessIssue] (of unbuffered files)
        if not count:
            raise EOFError
        target = target[count:]


def _places(path: Path) -> dict[str, _Place]:
    """Where a file has its tensors, from its header.

    Raises:
        CheckpointError: as in `read_tensors`.
    """
    try:
        with open(path, "rb") as file:
            total = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(total, _LONGEST_HEADER):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        places = {}
        for key, entry in header.items():
            if key == "__metadata__":
                continue
            first, last = entry["data_offsets"]
            dtype, shape = _TYPES[entry["dtype"]], tuple(entry["shape"])
            size = torch.Size(shape).numel() * dtype.itemsize
            if last - first != size or first < 0 or 8 + length + last > total:
                raise ValueError(f"{key} lies outside of it")
            places[key] = _Place(dtype, shape, 8 + length + first, size)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, struct.error, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as weights: {error}") from error
    return places
