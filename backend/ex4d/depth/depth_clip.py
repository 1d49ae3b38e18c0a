"""What a source of depth promises: between footage and the mesh, whoever measured, rendered or estimated it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, Protocol

import numpy as np

from ex4d.media import FootageInfo
from ex4d_core.errors import Ex4dError


class DepthError(Ex4dError, ValueError):
    """Depth cannot be used for this footage. The message names the file, the value that is wrong, and the remedy."""


@dataclass(frozen=True, eq=False)
class DepthClip:
    """Depth for every frame of some footage, one frame in memory at a time.

    Iterating yields (height, width) float32 depth along z in scene units, finite and above 0, once per frame; every
    new iteration starts again from frame 0.

    Attributes:
        frames, height, width: as the footage.
        intrinsics: (T, 3, 3) float64 in pixels, principal point measured with pixel centres at +0.5, or None where
            the source knows nothing of the camera.
        scale: "metric" when depths are true to scale with each other and over time, "relative" when they are known
            up to a factor (and, for most estimators, an offset) only.
        source: what made the depth, for display.
        licence: under which conditions a result that rests on it may be used, for display.
        read: starts a new iteration.
        notes: sentences for the artist about what was found in the footage, such as cuts.

    Raises:
        DepthError: while iterating, when a frame turns out to be damaged or to hold impossible values.
    """

    frames: int
    height: int
    width: int
    intrinsics: np.ndarray | None
    scale: Literal["metric", "relative"]
    source: str
    licence: str
    read: Callable[[], Iterator[np.ndarray]]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.read()

    def __len__(self) -> int:
        return self.frames

    def first(self, frames: int) -> DepthClip:
        """The first frames alone."""
        intrinsics = None if self.intrinsics is None else self.intrinsics[:frames]
        return replace(self, frames=frames, intrinsics=intrinsics, read=lambda: islice(self.read(), frames))


def ignore_progress(done: int, total: int) -> None:
    """For callers who do not watch."""


class DepthEstimator(Protocol):
    """Anything that gives depth for footage: files from elsewhere, or a model."""

    @property
    def name(self) -> str: ...

    @property
    def licence(self) -> str: ...

    def estimate(self, footage: FootageInfo, progress: Callable[[int, int], None] = ignore_progress) -> DepthClip:
        """Depth for all of `footage.frames` frames at `footage.width` x `footage.height`.

        Args:
            progress: told frames done and frames in all; what it raises ends the work.

        Raises:
            DepthError: no depth can be given for this footage.
        """
        ...
