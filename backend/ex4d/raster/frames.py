"""Rendered frames: `RenderedFrame`, one frame as numpy arrays, and `RenderedBatch`, several as tensors on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch


@dataclass(frozen=True)
class RenderedFrame:
    """One frame of a shot as the footage shows it.

    Attributes:
        index: from 0, of the shot.
        color: (H, W, 3) uint8 sRGB, black where nothing was seen or remembered.
        mask: (H, W) bool, true = seen.
        depth: (H, W) float32 along the new camera's z, scene units; infinite where there is no surface at all.
        source_centre: (3,) float64, where this image shows the source camera's centre: homogeneous, in pixels; zeros
            where both centres are one. None if it is not known.
        alpha: (H, W) uint8, as `RenderedBatch` has it.
        remembered: (H, W) bool, true = not seen now, but known from other frames of the clip: colour and depth are
            theirs. None where the clip's memory was not asked for.
        pixel_aspect: width of a pixel by its height, by the camera's focal lengths.
        deep_color: (H, W, 3) float16, as `RenderedBatch` has it.
    """

    index: int
    color: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    source_centre: np.ndarray | None = None
    alpha: np.ndarray | None = None
    remembered: np.ndarray | None = None
    pixel_aspect: float = 1.0
    deep_color: np.ndarray | None = None

    @property
    def soft_mask(self) -> np.ndarray:
        """(H, W) uint8, the share of each pixel that was seen, of 255."""
        return self.mask.astype(np.uint8) * 255 if self.alpha is None else self.alpha

    @property
    def visible_fraction(self) -> float:
        """The share of the frame that the footage saw, 0 to 1."""
        return float(self.mask.mean() if self.alpha is None else self.alpha.mean() / 255)

    @property
    def known(self) -> np.ndarray:
        """(H, W) bool, true = seen or remembered, at least half of the pixel."""
        return self._or_remembered(self.mask)

    @property
    def whole(self) -> np.ndarray:
        """(H, W) bool, true where all of the pixel was seen or remembered: the colour is not of an edge's one side."""
        return self._or_remembered(self.mask if self.alpha is None else self.alpha == 255)

    def _or_remembered(self, mask: np.ndarray) -> np.ndarray:
        return mask if self.remembered is None else mask | self.remembered


@dataclass(frozen=True)
class RenderedBatch:
    """Several frames of a render, on one device.

    Attributes:
        color: (T, H, W, 3) uint8, sRGB, black where nothing of the pixel was seen or remembered. With several samples,
            the mean of those that were seen, so alpha says how much of it to blend over something else; where
            remembered, the colour of all of the pixel.
        mask: (T, H, W) bool, true where the footage was seen: at least half of the pixel.
        depth: (T, H, W) float32, along the new camera's z, of the nearest surface of any kind, in seen pixels with
            several samples of the nearest that was seen; infinite where nothing was seen. None unless it was asked for.
        alpha: (T, H, W) uint8, the share of the pixel's samples that were seen, of 255; None with one sample, where
            the mask says all.
        remembered: (T, H, W) bool, see `RenderedFrame`; None unless it was asked for.
        deep_color: (T, H, W, 3) float16, as colour, in the colour space of `DepthSurface.deep_color`; None without one.
        drawn: (T, H, W) bool, the mask before it was held steady; None where it was not.
    """

    color: torch.Tensor
    mask: torch.Tensor
    depth: torch.Tensor | None = None
    alpha: torch.Tensor | None = None
    remembered: torch.Tensor | None = None
    drawn: torch.Tensor | None = None
    deep_color: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> RenderedBatch:
        """The same frames on a device; from a GPU to the CPU by way of page-locked memory, several times as fast."""
        if torch.device(device).type != "cpu" or self.color.device.type != "cuda":
            return self.map(lambda values: values.to(device))
        copies = self.map(page_locked_copy)
        torch.cuda.current_stream(self.color.device).synchronize()
        return copies

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> RenderedBatch:
        """The batch with a function applied to each of its tensors."""
        names = _filled_names(self)
        return RenderedBatch(**{name: change(getattr(self, name)) for name in names})


def joined(parts: Sequence[RenderedBatch]) -> RenderedBatch:
    """Batches, all with the same optional tensors, as one; none is copied if there is but one."""
    if len(parts) == 1:
        return parts[0]
    names = _filled_names(parts[0])
    return RenderedBatch(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def _filled_names(batch: RenderedBatch) -> list[str]:
    return [field.name for field in fields(batch) if getattr(batch, field.name) is not None]


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
    assert batch.alpha is None, "the reference convention has one sample"
    if tuple(source.shape) != tuple(batch.color.shape[1:]):
        raise ValueError(
            f"the source frame has shape {tuple(source.shape)}, the rendered frames {tuple(batch.color.shape[1:])}: "
            "render at the source image's size"
        )
    color, mask = batch.color.clone(), batch.mask.clone()
    color[0] = source.to(color.device)
    mask[0] = True
    return replace(batch, color=color, mask=mask)
