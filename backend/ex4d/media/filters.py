"""FFmpeg's filters, as far as footage needs them: three-dimensional colour tables, and deinterlacing."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import av.error
import av.filter
import numpy as np


class ColourTable:
    """Applies a table of colours to frames, interpolated between the four nearest entries (filter `lut3d`)."""

    def __init__(self, table: np.ndarray) -> None:
        """Keep a table (N, N, N, 3) by red, green and blue; values in [0, 1]."""
        self._table = table
        self._graph: _Graph | None = None

    def applied(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame with its colours replaced; all frames have one size and one RGB format."""
        if self._graph is None:
            # The filter reads its table from a file, once, when the graph is configured.
            with tempfile.TemporaryDirectory(prefix="ex4d-") as folder:
                file = Path(folder) / "table.cube"
                entries = self._table.shape[0]
                rows = self._table.transpose(2, 1, 0, 3).reshape(-1, 3)  # red changes fastest in .cube files
                with file.open("w", encoding="ascii") as stream:
                    stream.write(f"LUT_3D_SIZE {entries}\n")
                    np.savetxt(stream, rows, fmt="%.6f")
                self._graph = _Graph(frame, "lut3d", file=str(file), interp="tetrahedral")
        self._graph.push(frame)
        return next(self._graph.pulled())


def deinterlaced(frames: Iterator[tuple[int, av.VideoFrame]]) -> Iterator[tuple[int, av.VideoFrame]]:
    """One progressive frame for each interlaced one (filter `bwdif`), with the number that came with it."""
    graph = None
    numbers: deque[int] = deque()
    for number, frame in frames:
        graph = graph or _Graph(frame, "bwdif", mode="send_frame", parity="auto", deint="interlaced")
        numbers.append(number)
        graph.push(frame)
        for result in graph.pulled():
            yield numbers.popleft(), result
    if graph:
        graph.push(None)
        for result in graph.pulled():
            if numbers:
                yield numbers.popleft(), result


class _Graph:
    """A single filter between a source and a sink."""

    def __init__(self, frame: av.VideoFrame, name: str, **options: str) -> None:
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        self._graph.link_nodes(source, self._graph.add(name, **options), self._graph.add("buffersink")).configure()

    def push(self, frame: av.VideoFrame | None) -> None:
        self._graph.vpush(frame)

    def pulled(self) -> Iterator[av.VideoFrame]:
        with suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                yield self._graph.vpull()
