"""`StoredDepth`, what depth files hold before it becomes depth along z at the footage's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from ex4d.depth.resampling import DepthResampler
from ex4d.media import FootageInfo

Values = Literal["depth", "distance", "disparity"]


@dataclass(frozen=True, eq=False)
class StoredDepth:
    """What depth files hold.

    Attributes:
        size: (width, height) of a frame.
        read: starts a new iteration over the frames (h, w), in the type they are stored in.
        values: what they are.
        scale: of the values.
        intrinsics: (T, 3, 3) in pixels of the footage, or None.
        world_to_camera: (T, 4, 4), or None.
        notes: sentences for the artist.
        tool: that wrote them, for people; "" where nothing tells.
    """

    size: tuple[int, int]
    read: Callable[[], Iterator[np.ndarray]]
    values: Values
    scale: float = 1.0
    intrinsics: np.ndarray | None = None
    world_to_camera: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    tool: str = ""

    @cached_property
    def range(self) -> tuple[float, float]:
        """Smallest and largest finite value; the files are read once for it."""
        lowest, highest = np.inf, -np.inf
        for frame in self.read():
            finite = frame[np.isfinite(frame)]
            if finite.size:
                lowest, highest = min(lowest, float(finite.min())), max(highest, float(finite.max()))
        return lowest, highest


def resampled(stored: StoredDepth, path: Path, footage: FootageInfo) -> StoredDepth:
    """The same at the footage's size, with a note; ``path`` names the files."""
    target = footage.width, footage.height
    resample = DepthResampler(stored.size, target)
    note = (
        f"the depth in {path.name} is {stored.size[0]}x{stored.size[1]} and is resampled to the footage's "
        f"{target[0]}x{target[1]}: across edges the nearest value is taken, so that no depths come in between"
    )
    return replace(stored, size=target, read=lambda: map(resample, stored.read()), notes=(*stored.notes, note))
