"""The interface of all engines, and their progress reports."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ex4d.raster import RenderedFrame
from ex4d_core.durable_files import put_in_place
from ex4d_core.stages import StageDetails


@dataclass(frozen=True)
class GenerationProgress:
    """Progress of an engine before it yields frames.

    Attributes:
        stage: `LOAD_STAGE`; `ENCODE_STAGE`; `WARM_UP_STAGE` until the first step is done; `DENOISE_STAGE`; and
            `DECODE_STAGE` before some frames come.
        done, total: number of tensors, of layers, or of denoising steps of the whole shot.
        eta_seconds: time left in this stage, from the steps so far; None while unknown.
        image: (h, w, 3) uint8, a small estimate of the result after a denoising step; None otherwise.
        part, parts: in the middle of a denoising step, how many of its parts are computed, and of how many; else 0, 0.
        arithmetic: what the engine computes in on this machine, for people; "" where that does not matter.
    """

    stage: str
    done: int
    total: int
    eta_seconds: float | None = None
    image: np.ndarray | None = None
    part: int = 0
    parts: int = 0
    arithmetic: str = ""

    @property
    def details(self) -> StageDetails:
        """The stage, in the form in which it is told to clients."""
        return StageDetails(self.stage, self.arithmetic, self.part, self.parts)


# Called after every step and several times in it; an exception that it raises ends the generation there, or on several
# GPUs after that step.
ProgressCallback = Callable[[GenerationProgress], None]
# Called with a frame (H, W, 3) float32; see `Engine.generate`.
UnroundedCallback = Callable[[np.ndarray], None]


class EngineState:
    """What an engine needs of its finished frames to continue an interrupted shot, in one file."""

    def __init__(self, path: Path) -> None:
        """Keep the state in a file, which need not exist yet."""
        self.path = path

    def save(self, values: Mapping[str, Any]) -> None:
        """Replace the state by tensors and numbers, by name; an interruption leaves the one before."""
        partial = self.path.with_name(self.path.name + ".partial")
        torch.save(dict(values), partial)
        put_in_place(partial, self.path)

    def load(self) -> Mapping[str, Any]:
        """What was saved last, on the CPU; empty if nothing was, or if it is damaged."""
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except (EOFError, OSError, RuntimeError, ValueError, pickle.UnpicklingError):
            return {}


class Engine(Protocol):
    """Paints the regions of a shot that the footage never showed.

    Attributes:
        name: one of `ex4d_core.shot.ENGINES`.
        licence: which licences the results depend on, as a text for users.
        enlarging: how it enlarges frames that it makes smaller than the take, as a text for users; "" if it never does.
    """

    name: str
    licence: str
    enlarging: str

    @property
    def precision(self) -> str:
        """Of its arithmetic as it is on this machine, for people: one of `ex4d_core.shot.PRECISIONS`, or more words."""
        ...

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
        """Yield one final frame (H, W, 3) uint8 sRGB for each rendered frame, in order, as soon as it exists.

        Args:
            frames: all frames of the shot.
            count: number of frames, for progress only.
            on_progress: called after every step.
            done: so many first frames were finished by an earlier run and are not yielded; the others are the same as
                if all were generated at once.
            state: where to keep what a later run needs to continue, and where an earlier run has kept it.
            on_unrounded: called with each frame, before it is yielded, as (H, W, 3) float32 that is not rounded to 8
                bits. Of the engine wan, sRGB in [0, 1]; of a preview, the rendered frames' deep colours, which they
                then must have, in their own space, and as bright as they are.
        """
        ...
