"""`FrameStore`, frames of equal shape in a temporary file: memory does not grow with the length of a clip."""

from __future__ import annotations

import math
from collections.abc import Iterator
from tempfile import TemporaryFile

import numpy as np


class FrameStore:
    """Float32 arrays of one shape in a temporary file, which the operating system removes.

    Attributes:
        lowest: smallest value in any frame; infinity without a frame.
        highest: largest value in any frame.
    """

    def __init__(self) -> None:
        self.lowest, self.highest = math.inf, -math.inf
        self._file, self._count = TemporaryFile(), 0  # noqa: SIM115 (lives as long as this)
        self._shape: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self._count

    def append(self, frame: np.ndarray) -> None:
        """Adds a frame, which must have the shape of those before."""
        frame = np.ascontiguousarray(frame, np.float32)
        if self._count and frame.shape != self._shape:
            raise ValueError(f"a frame of shape {frame.shape} does not fit among frames of shape {self._shape}")
        self._shape = frame.shape
        self._file.seek(self._count * frame.nbytes)
        self._file.write(frame.data)
        self.lowest, self.highest = min(self.lowest, float(frame.min())), max(self.highest, float(frame.max()))
        self._count += 1

    def __iter__(self) -> Iterator[np.ndarray]:
        size = 4 * math.prod(self._shape)
        for index in range(self._count):
            self._file.seek(index * size)
            yield np.frombuffer(bytearray(self._file.read(size)), np.float32).reshape(self._shape)
