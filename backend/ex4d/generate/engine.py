"""What every engine does: take the rendered frames of a shot and give back finished ones, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ex4d.raster import RenderedFrame
from ex4d_core.shot import RequestError, ShotRequest


@dataclass(frozen=True)
class EngineProgress:
    """Where an engine is before frames come out of it.

    Attributes:
        stage: `LOAD_STAGE`; `WARM_UP_STAGE` until the first step is done; "denoise".
        done, total: tensors or steps.
        seconds_left: of this stage, by the steps so far; None where nobody knows.
        picture: (h, w, 3) uint8, a small picture of what is coming; None before there is one.
    """

    stage: str
    done: int
    total: int
    seconds_left: float | None = None
    picture: np.ndarray | None = None


# Told of every step; what it raises ends the work, within that step.
Watch = Callable[[EngineProgress], None]


class Engine(Protocol):
    """Invents what the footage never saw.

    Attributes:
        name: as in `ex4d_core.shot.ENGINES`.
        licence: what the results rest on, for people.
    """

    name: str
    licence: str

    def generate(
        self, frames: Iterable[RenderedFrame], *, count: int | None = None, watch: Watch | None = None
    ) -> Iterator[np.ndarray]:
        """Finished frames (H, W, 3) uint8 sRGB, one for each rendered frame, in order, each as soon as it exists.

        Args:
            count: how many frames there will be, where that is known; for progress only.
            watch: told of every step that comes before frames do.
        """
        ...


def create_engine(request: ShotRequest, device: str = "auto") -> Engine:
    """The engine that a request asks for.

    Args:
        device: "auto", "cpu", or "cuda" with an optional number; "cuda:0+1" has the engine wan use both.

    Raises:
        RequestError: this backend has no such engine.
        RuntimeError: this machine cannot run it; each engine has its own kinds.
    """
    if request.engine == "preview":
        from ex4d.generate.preview import PreviewEngine

        return PreviewEngine(request.preview)
    if request.engine == "wan":
        from ex4d.generate.wan.wan_engine import create_wan_engine

        return create_wan_engine(request.wan, device)
    raise RequestError(f"this backend has no engine {request.engine!r}; it has: preview, wan")
