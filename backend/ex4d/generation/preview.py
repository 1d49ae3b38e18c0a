"""The preview engine: the render with its unseen regions filled smoothly or marked; takes seconds on any machine.

Holes are filled by pull-push (Gortler et al., The Lumigraph, 1996): averages of seen pixels at ever coarser levels flow
back into the holes. Two additions: a moving camera uncovers background, so farther pixels have larger weights, and
those at a hole's near side hardly any (`far_sides.py`); and where a hole persists its colour is smoothed over time,
since its rim flickers with the mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.nn.functional import interpolate, pad

from ex4d.generation.engine import EngineState, ProgressCallback, UnroundedCallback
from ex4d.generation.far_sides import far_side_weights
from ex4d.raster import RenderedFrame
from ex4d.raster.stereo_frames import eyes_of
from ex4d_core.shot import PreviewSettings

# Weight of the nearest surface of a frame when holes are filled; the farthest has 1.
_FOREGROUND_WEIGHT = 0.001
# Smoothing over time starts at averages over 8 pixels; at finer levels it would smear edges.
_FIRST_SMOOTHED_LEVEL = 3
# Weight of the previous frame in a hole's colour: half of it is gone after about 2 frames.
_PREVIOUS_WEIGHT = 0.75
# What is shown where nothing was ever seen: mid grey of 8 bits, and in scene-linear light.
_GREY, _GREY_LIGHT = 127.5, 0.18
# A cell with at least this visible fraction takes its own average, not that of the coarser level.
_ENOUGH_VISIBLE = 1 / 16


# Where holes are marked, remembered areas are mixed with this colour, half of each, so that all three states show.
REMEMBERED_COLOR = (0, 160, 255)


class PreviewEngine:
    """The `Engine` that fills or marks holes; see the module."""

    name = "preview"
    licence = "free for any use: no model, only the footage"
    precision = "float32"
    enlarging = ""

    def __init__(self, settings: PreviewSettings | None = None):
        self.settings = settings or PreviewSettings()

    def generate(
        self,
        frames: Iterable[RenderedFrame],
        *,
        count: int | None = None,
        on_progress: ProgressCallback | None = None,
        done: int = 0,
        state: EngineState | None = None,
        on_unrounded: UnroundedCallback | None = None,
    ) -> Iterator[np.ndarray]:
        """Yield each rendered frame at once, all that was seen or remembered unchanged; see `Engine.generate`.

        In stereo each eye is filled alone, by its own surroundings.

        A pixel of which a part was seen shows the filling in the rest of it, so that edges are as soft as in the mask.

        Filling depends on the frames before. It takes a fraction of the time that rendering does, so frames that are
        done are filled again for the next ones, and no state is kept.

        Deep colours are filled on their own by the same rules, also where holes are marked in 8 bits.
        """
        fillers: dict[int, HoleFiller] = {}
        deep_fillers: dict[int, HoleFiller] = {}
        for index, frame in enumerate(frames):
            eyes = eyes_of(frame)
            if on_unrounded is not None:
                deep = [deep_fillers.setdefault(place, HoleFiller()).fill_deep(eye) for place, eye in enumerate(eyes)]
                if index >= done:
                    on_unrounded(deep[0] if len(deep) == 1 else np.hstack(deep))
            images = [self._image(eye, fillers.setdefault(place, HoleFiller())) for place, eye in enumerate(eyes)]
            if index >= done:
                yield images[0] if len(images) == 1 else np.hstack(images)

    def _image(self, frame: RenderedFrame, filler: HoleFiller) -> np.ndarray:
        """One eye's image of a frame."""
        color = frame.color
        if self.settings.holes == "mark":
            filling = np.array(self.settings.hole_color, dtype=np.uint8)
            if frame.remembered is not None:
                color = marked(torch.from_numpy(color), torch.from_numpy(frame.remembered)).numpy()
        else:
            filling = filler.fill_frame(frame)
        return _over(frame, color, filling)


def marked(color: torch.Tensor, remembered: torch.Tensor) -> torch.Tensor:
    """(H, W, 3) uint8 colours with `REMEMBERED_COLOR` mixed in where a (H, W) bool mask is true."""
    tint = torch.tensor(REMEMBERED_COLOR, dtype=torch.uint8, device=color.device)
    return torch.where(remembered[..., None], color // 2 + tint // 2, color)


def _over(frame: RenderedFrame, color: np.ndarray, filling: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: a frame's colours over a filling, by the share of each pixel that was seen or remembered."""
    return _mixed(frame, color, filling, 0.5)


def _mixed(frame: RenderedFrame, color: np.ndarray, filling: np.ndarray, rounding: float) -> np.ndarray:
    """As `_over`, of any type; ``rounding`` is added where two colours are mixed."""
    image = np.where(frame.whole[..., None], color, filling)
    if frame.alpha is not None:
        edge = (frame.alpha > 0) & ~frame.whole
        share = frame.alpha[edge][:, None].astype(np.float32) / 255
        image[edge] = share * color[edge] + (1 - share) * image[edge] + rounding
    return image


class HoleFiller:
    """Pull-push over a sequence of frames of one size; fill each frame once, in order."""

    def __init__(self) -> None:
        self._previous: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def fill_frame(self, frame: RenderedFrame) -> np.ndarray:
        """As `fill`, for a frame of arrays."""
        color, mask, depth = (torch.from_numpy(values) for values in (frame.color, frame.whole, frame.depth))
        return self.fill(color, mask, depth, frame.source_centre).numpy()

    def fill_deep(self, frame: RenderedFrame) -> np.ndarray:
        """(H, W, 3) float32: a frame's deep colours, with its holes filled as `fill` does, but nothing rounded."""
        assert frame.deep_color is not None, "rendered with deep colours"
        color = frame.deep_color.astype(np.float32)
        mask, depth = torch.from_numpy(frame.whole), torch.from_numpy(frame.depth)
        filled = self._filled(torch.from_numpy(color), mask, depth, frame.source_centre, _GREY_LIGHT)
        return _mixed(frame, color, _enlarged(filled, *mask.shape).numpy(), 0.0)

    def fill(
        self, color: torch.Tensor, mask: torch.Tensor, depth: torch.Tensor, source_centre: np.ndarray | None = None
    ) -> torch.Tensor:
        """Compute the colours of a frame without holes, on the tensors' device.

        Computed at half the resolution: that takes a third of the time and is not visible in something so smooth.

        Args:
            color: (H, W, 3) uint8.
            mask: (H, W) bool, true = seen or remembered, all of the pixel: at an edge the colour is that of its near
                side.
            depth: (H, W) float32.
            source_centre: (3,), see `RenderedFrame.source_centre`; without it all sides of a hole count alike.

        Returns:
            (H, W, 3) uint8; mid grey if nothing was ever seen.
        """
        filled = self._filled(color, mask, depth, source_centre, _GREY)
        if not filled.is_cuda:
            # A tenth of the time, since torch has a uint8 channels-last kernel for this; not on CUDA.
            filled = filled.add_(0.5).clamp_(0, 255).to(torch.uint8, memory_format=torch.channels_last)
        filled = _enlarged(filled, *mask.shape)
        return filled if filled.dtype == torch.uint8 else filled.add_(0.5).clamp_(0, 255).to(torch.uint8)

    def _filled(
        self,
        color: torch.Tensor,
        mask: torch.Tensor,
        depth: torch.Tensor,
        source_centre: np.ndarray | None,
        grey: float,
    ) -> torch.Tensor:
        """(1, 3, h, w) float32, the colours without holes at half the resolution; ``grey`` if nothing was ever seen."""
        weight = _background_weight(mask, depth)
        if source_centre is not None and not mask.all():
            weight *= far_side_weights(mask, depth, source_centre)
        half = _downsample(torch.cat([color.permute(2, 0, 1) * weight, weight[None]])[None])
        return self._push(_pull(half), grey)

    def _push(self, pyramid: list[torch.Tensor], grey: float) -> torch.Tensor:
        """Go from coarse to fine: each cell has the average of its seen pixels, or the coarser level's colour."""
        filled = torch.full_like(pyramid[-1][:, :3], grey)
        for level in range(len(pyramid) - 1, -1, -1):
            weight = pyramid[level][:, 3:]
            size = weight.shape[-2:]
            if filled.shape[-2:] != size:
                filled = interpolate(filled, scale_factor=2, mode="bilinear")[..., : size[0], : size[1]]
            trust = (weight / _ENOUGH_VISIBLE).clamp_(max=1)
            filled = torch.lerp(filled, pyramid[level][:, :3] / weight.clamp_min(1e-6), trust)
            if level >= _FIRST_SMOOTHED_LEVEL:
                filled = self._smooth_over_time(level, filled, 1 - trust)
        return filled

    def _smooth_over_time(self, level: int, filled: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """Blend with the previous frame where both have a hole; elsewhere it would show through as a ghost."""
        if level in self._previous:
            previous, previous_hole = self._previous[level]
            filled = torch.lerp(filled, previous, _PREVIOUS_WEIGHT * hole * previous_hole)
        self._previous[level] = filled, hole
        return filled


def _enlarged(half: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(H, W, 3) of twice the size of (1, 3, h, w), cut to what is asked for."""
    return interpolate(half, scale_factor=2, mode="bilinear")[0, :, :height, :width].permute(1, 2, 0)


def _pull(finest: torch.Tensor) -> list[torch.Tensor]:
    """Average (1, 4, h, w) of weighted colour and weight over ever larger cells, down to a single one."""
    pyramid = [finest]
    while max(pyramid[-1].shape[-2:]) > 1:
        pyramid.append(_downsample(pyramid[-1]))
    return pyramid


def _downsample(level: torch.Tensor) -> torch.Tensor:
    """Average 2x2 cells, with zeros outside: (1, C, ceil(h / 2), ceil(w / 2))."""
    height, width = level.shape[-2:]
    if height % 2 or width % 2:
        level = pad(level, (0, width % 2, 0, height % 2))
    rows = level[..., 0::2, :] + level[..., 1::2, :]  # a pooling layer takes ten times as long
    return (rows[..., 0::2] + rows[..., 1::2]).mul_(0.25)


def _background_weight(mask: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Compute (H, W) float32 weights in [0, 1]: 0 for holes, larger for surfaces farther back in the depth range."""
    if not mask.any():
        return mask.float()
    disparity = depth.reciprocal()  # 0 where there is no surface
    near = disparity.mul(mask).max()
    far = disparity.masked_fill(~mask, torch.inf).min()
    if near - far <= 1e-6 * near:
        return mask.float()
    farness = (near - disparity).div_(near - far).square_()
    return farness.mul_(1 - _FOREGROUND_WEIGHT).add_(_FOREGROUND_WEIGHT).mul_(mask)
