"""What every engine does: take the rendered frames of a shot and give back finished ones, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from backend.render import RenderedFrame
from ex4d_core.shot import RequestError, ShotRequest


class Engine(Protocol):
    """Invents what the footage never saw.

    Attributes:
        name: as in `ex4d_core.shot.ENGINES`.
        licence: what the results rest on, for people.
    """

    name: str
    licence: str

    def generate(self, frames: Iterable[RenderedFrame]) -> Iterator[np.ndarray]:
        """Finished frames (H, W, 3) uint8 sRGB, one for each rendered frame, in order, each as soon as it exists."""
        ...


def create_engine(request: ShotRequest) -> Engine:
    """The engine that a request asks for.

    Raises:
        RequestError: this backend has no such engine.
    """
    from backend.generate.preview import PreviewEngine

    if request.engine == PreviewEngine.name:
        return PreviewEngine(request.preview)
    raise RequestError(f"this backend has no engine {request.engine!r}; it has: {PreviewEngine.name}")
