"""Rendered frames: `RenderedFrame`, one frame as numpy arrays, and `RenderedBatch`, several as tensors on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class RenderedFrame:
    """One frame of a shot as the footage shows it.

    Attributes:
        index: from 0, of the shot.
        color: (H, W, 3) uint8 sRGB, black where nothing was seen.
        mask: (H, W) bool, true = seen.
        depth: (H, W) float32 along the new camera's z, scene units; infinite where there is no surface at all.
        source_centre: (3,) float64, where this image shows the source camera's centre: homogeneous, in pixels; zeros
            where both centres are one. None if it is not known.
    """

    index: int
    color: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    source_centre: np.ndarray | None = None


@dataclass(frozen=True)
class RenderedBatch:
    """Several frames of a render, on one device.

    Attributes:
        color: (T, H, W, 3) uint8, sRGB, black where unseen.
        mask: (T, H, W) bool, true where the footage was seen.
        depth: (T, H, W) float32, along the new camera's z, of the nearest surface of any kind; infinite where there
            is none. None unless it was asked for.
    """

    color: torch.Tensor
    mask: torch.Tensor
    depth: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> RenderedBatch:
        """The same frames on a device; from a GPU to the CPU by way of page-locked memory, several times as fast."""
        if torch.device(device).type != "cpu" or self.color.device.type != "cuda":
            return self.map(lambda values: values.to(device))
        copies = self.map(page_locked_copy)
        torch.cuda.current_stream(self.color.device).synchronize()
        return copies

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> RenderedBatch:
        """The batch with a function applied to each of its tensors."""
        depth = None if self.depth is None else change(self.depth)
        return RenderedBatch(change(self.color), change(self.mask), depth)


def page_locked_copy(values: torch.Tensor) -> torch.Tensor:
    """A copy in page-locked memory, under way on the current stream when this returns."""
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return copy.copy_(values, non_blocking=True)


def force_first_frame(batch: RenderedBatch, source: torch.Tensor) -> RenderedBatch:
    """Replace frame 0 by the source frame, all of it seen, as EX-4D does; for the "reference" convention only.

    Args:
        batch: a render of the source image's own size.
        source: (H, W, 3) uint8, the first source frame.

    Raises:
        ValueError: the sizes differ.
    """
    if tuple(source.shape) != tuple(batch.color.shape[1:]):
        raise ValueError(
            f"the source frame has shape {tuple(source.shape)}, the rendered frames {tuple(batch.color.shape[1:])}: "
            "render at the source image's size"
        )
    color, mask = batch.color.clone(), batch.mask.clone()
    color[0] = source.to(color.device)
    mask[0] = True
    return RenderedBatch(color, mask, batch.depth)
