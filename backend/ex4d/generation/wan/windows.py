"""The windows of a shot: how it is split while it is being rendered, and what a window hands over to the next one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Any

import torch

from ex4d.generation.wan.color_hold import ColorMap
from ex4d.raster import RenderedFrame
from ex4d_core.final_sizes import round_up_frames, window_lengths
from ex4d_core.wan_settings import WanSettings


@dataclass(frozen=True)
class Window:
    """Some consecutive frames of a shot.

    Attributes:
        number: from 0.
        frames: 4n + 1, the last one repeated where the shot ends earlier.
        known: how many of the first frames the window before has generated.
        new: how many frames after these are new; the rest is padding.
    """

    number: int
    frames: tuple[RenderedFrame, ...]
    known: int
    new: int

    @property
    def start(self) -> int:
        """The index of the first frame in the shot."""
        return self.frames[0].index


def lengths_of_windows(count: int | None, settings: WanSettings) -> Iterable[int]:
    """Frames of each window of a shot of ``count`` frames, and of those that follow if there are more after all."""
    further = repeat(settings.window)
    return further if count is None else chain(window_lengths(count, settings), further)


def split_into_windows(frames: Iterable[RenderedFrame], lengths: Iterable[int], overlap: int) -> Iterator[Window]:
    """Split a shot while it is being rendered, into windows that share ``overlap`` frames, 4n + 1.

    Frames are read only as far as the next window needs them.

    Args:
        lengths: frames of each window, those that it shares included.
    """
    stream = iter(frames)
    tail: tuple[RenderedFrame, ...] = ()
    for number, length in enumerate(lengths):
        new = tuple(islice(stream, length - len(tail)))
        if not new:
            return
        real = tail + new
        padding = (real[-1],) * (round_up_frames(len(real)) - len(real))
        yield Window(number, real + padding, len(tail), len(new))
        if len(real) < length:
            return
        tail = real[-overlap:]


@dataclass(frozen=True)
class WindowEnd:
    """What a window hands over, in the host's memory, since the next window needs the GPU's.

    Attributes:
        frames: (overlap, 3, H, W) float32 in [-1, 1], the last frames as they were yielded, at the working size.
        latents: (1, 16, F, h, w) of these frames, as they were denoised: the first one has frames from before, too.
            None with conditioning "original".
        decoded: the frames before their colours were held; None where they are the same.
        color: what the first window did to the footage's colours; None where nothing of it was seen.
    """

    frames: torch.Tensor
    latents: torch.Tensor | None = None
    decoded: torch.Tensor | None = None
    color: ColorMap | None = None

    def to_state(self) -> dict[str, Any]:
        """As tensors by name, for `EngineState`."""
        state = {"tail": self.frames, "latents": self.latents, "decoded": self.decoded}
        if self.color is not None:
            state |= {"color_matrix": self.color.matrix, "color_offset": self.color.offset}
        return {name: value for name, value in state.items() if value is not None}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> WindowEnd:
        """What `to_state` gave."""
        color = ColorMap(state["color_matrix"], state["color_offset"]) if "color_matrix" in state else None
        return WindowEnd(state["tail"], state.get("latents"), state.get("decoded"), color)
