"""What was measured before: figures and features by content, so that an interrupted or extended evaluation goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.evaluation.clips import Frames
from ex4d.evaluation.inputs import ResultInputs
from ex4d.media.media_errors import atomic_write
from ex4d_core import __version__

# Counted up when a measure gives other figures for the same pictures.
_FORMAT = 1


class MeasuredCache:
    """A folder of small files, one a measure and result; never wrong, as their names say all that they depend on."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def figures(
        self, inputs: ResultInputs, measure: str, wanted: frozenset[str], compute: Callable[[], dict[str, float]]
    ) -> dict[str, float]:
        """What a measure found, or finds now; what it raises is not kept."""
        path = self._folder / f"{_hash(measure, sorted(wanted), *inputs.identity)}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        found = compute()
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(found), encoding="utf-8")
        return found

    def features(self, frames: Frames, name: str, compute: Callable[[], np.ndarray]) -> Path:
        """The .npy file of a video's features."""
        path = self._folder / f"{_hash('features', name, frames.digest())}.npy"
        if not path.is_file():
            found = compute()
            with atomic_write(path) as partial, partial.open("wb") as stream:
                np.save(stream, found)
        return path


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps([_FORMAT, __version__, *parts]).encode()).hexdigest()[:32]
