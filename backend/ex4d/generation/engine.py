"""The interface of all engines, and their progress reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ex4d.raster import RenderedFrame


@dataclass(frozen=True)
class GenerationProgress:
    """Progress of an engine before it yields frames.

    Attributes:
        stage: `LOAD_STAGE`; `WARM_UP_STAGE` until the first step is done; "denoise".
        done, total: number of tensors, or of denoising steps of the whole shot.
        eta_seconds: time left in this stage, from the steps so far; None while unknown.
        image: (h, w, 3) uint8, a small estimate of the result; None before the first denoising step.
    """

    stage: str
    done: int
    total: int
    eta_seconds: float | None = None
    image: np.ndarray | None = None


# Called after every step; an exception that it raises ends the generation within that step.
ProgressCallback = Callable[[GenerationProgress], None]


class Engine(Protocol):
    """Paints the regions of a shot that the footage never showed.

    Attributes:
        name: one of `ex4d_core.shot.ENGINES`.
        licence: which licences the results depend on, as a text for users.
    """

    name: str
    licence: str

    def generate(
        self, frames: Iterable[RenderedFrame], *, count: int | None = None, on_progress: ProgressCallback | None = None
    ) -> Iterator[np.ndarray]:
        """Yield one final frame (H, W, 3) uint8 sRGB for each rendered frame, in order, as soon as it exists.

        ``count``, the number of frames, is used for progress only.
        """
        ...
