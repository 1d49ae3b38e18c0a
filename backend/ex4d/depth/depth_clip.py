"""`DepthClip`, the depth of some footage, and `DepthEstimator`, the interface of everything that provides one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, Protocol

import numpy as np

from ex4d.media import FootageInfo, read_frames
from ex4d_core.cameras import CameraPath
from ex4d_core.depth_mapping import DepthMapping, mapping_of_range
from ex4d_core.errors import Ex4dError

# Called with frames done and frames in all; what it raises ends the work.
FrameProgress = Callable[[int, int], None]


class DepthError(Ex4dError):
    """Depth cannot be used for this footage. The message names the file, the value, and what to do."""


@dataclass(frozen=True, eq=False)
class DepthClip:
    """Depth for every frame of some footage, one frame in memory at a time.

    Iterating yields (height, width) float32 depth along z in scene units, finite and above 0, once per frame; every
    new iteration starts again from frame 0. Estimated depth is refined along the edges of the footage, which iterating
    therefore decodes; a caller that holds the frames anyway uses `with_frames`, which decodes nothing.

    Attributes:
        footage: what the depth is of.
        intrinsics: (T, 3, 3) float64 in pixels, principal point measured with pixel centres at +0.5, or None where
            the source has no camera.
        scale: "metric" when depths are true to scale with each other and over time, "relative" when they are known
            up to a factor (and, for most estimators, an offset) only.
        source: what provided the depth, for display.
        licence: under which conditions a result that rests on it may be used, for display.
        read: starts a new iteration over what is stored: depth, or with `mapping` relative disparity; (H, W), or, with
            `refine`, (h, w) of any size.
        refine: depth (h, w) and its frame (H, W, 3) uint8 to final depth (H, W); None where that is stored.
        mapping: how stored relative disparity becomes depth; None where depth is stored.
        notes: sentences for the artist about what was found in the footage, such as cuts.
        camera: the moving camera that filmed it, where the source finds it out: one pose for each frame in the unit of
            the depth, for images of the footage's size, with `intrinsics`; the first frame's camera is the world. None
            where the source has no poses.

    Raises:
        DepthError: while iterating, when a frame turns out to be damaged or to hold invalid values.
    """

    footage: FootageInfo
    intrinsics: np.ndarray | None
    scale: Literal["metric", "relative"]
    source: str
    licence: str
    read: Callable[[], Iterator[np.ndarray]]
    refine: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    notes: tuple[str, ...] = ()
    camera: CameraPath | None = None
    mapping: DepthMapping | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.refine is None:
            return self.unrefined()
        frames = read_frames(self.footage.path, count=len(self))
        return (depth for _, depth in self.with_frames(frames))

    def __len__(self) -> int:
        return self.footage.frames

    def with_frames(self, frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs every frame of the footage, (H, W, 3) uint8, with its final depth, (H, W) float32.

        Args:
            frames: all frames of the footage in order, as `read_frames` yields them; they are taken one at a time.
        """
        for frame, stored in zip(frames, self.read(), strict=True):
            depth = self._depth(stored)
            yield frame, depth if self.refine is None else self.refine(depth, frame)

    def _depth(self, stored: np.ndarray) -> np.ndarray:
        return stored if self.mapping is None else self.mapping.depth(stored)

    def unrefined(self) -> Iterator[np.ndarray]:
        """Depth (h, w) of every frame as it is before `refine`, in whatever size it is stored."""
        return map(self._depth, self.read())

    def first(self, frames: int) -> DepthClip:
        """The first frames alone."""
        return replace(
            self,
            footage=replace(self.footage, frames=frames),
            intrinsics=None if self.intrinsics is None else self.intrinsics[:frames],
            camera=None if self.camera is None else self.camera.frames(0, frames),
            read=lambda: islice(self.read(), frames),
        )

    def as_disparity(self) -> DepthClip:
        """The same depth, stored as relative disparity with a mapping; read once for that where it is not so yet.

        Raises:
            DepthError: a frame is damaged or holds invalid values.
        """
        if self.mapping is not None:
            return self
        nearest, farthest = np.inf, 0.0
        for depth in self:
            nearest, farthest = min(nearest, float(depth.min())), max(farthest, float(depth.max()))
        mapping = mapping_of_range(nearest, farthest)
        if self.refine is None:
            return replace(self, mapping=mapping, read=lambda: map(mapping.disparity, self.read()))
        # What is stored becomes depth together with its frame.
        return replace(self, mapping=mapping, read=lambda: map(mapping.disparity, iter(self)), refine=None)


def ignore_frame_progress(done: int, total: int) -> None:
    """For callers that show no progress."""


class DepthEstimator(Protocol):
    """Anything that provides depth for footage: files, or a model."""

    @property
    def name(self) -> str:
        """Its name on the command line."""
        ...

    @property
    def licence(self) -> str:
        """The licence of what it provides, for display."""
        ...

    def estimate(self, footage: FootageInfo, progress: FrameProgress = ignore_frame_progress) -> DepthClip:
        """Depth for all of `footage.frames` frames at `footage.width` x `footage.height`.

        Args:
            footage: of `ex4d.media.probe`.
            progress: called with frames done and frames in all; what it raises ends the work.

        Raises:
            DepthError: no depth can be provided for this footage.
        """
        ...
