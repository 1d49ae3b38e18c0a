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
from ex4d_core import __version__
from ex4d_core.durable_files import put_in_place

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
        path = self._folder / f"{_hash(measure, sorted(wanted), *_identity(inputs))}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        found = compute()
        _write(path, json.dumps(found).encode())
        return found

    def features(self, frames: Frames, name: str, compute: Callable[[], np.ndarray]) -> Path:
        """The .npy file of a video's features."""
        path = self._folder / f"{_hash('features', name, frames.digest())}.npy"
        if not path.is_file():
            found = compute()
            arriving = path.with_suffix(".arriving.npy")
            np.save(arriving, found)
            put_in_place(arriving, path)
        return path


def _identity(inputs: ResultInputs) -> list[Any]:
    """All that figures depend on."""
    camera = inputs.task.camera
    parts: list[Any] = [inputs.result.digest(), inputs.source.digest()]
    parts.append(None if inputs.truth is None else inputs.truth.digest())
    for array in (inputs.seen, inputs.render, inputs.rendered):
        parts.append(None if array is None else hashlib.sha256(array.tobytes()).hexdigest())
    parts += [] if camera is None else [hashlib.sha256(camera.world_to_camera.tobytes()).hexdigest()]
    parts += [] if camera is None else [hashlib.sha256(camera.intrinsics.tobytes()).hexdigest()]
    return parts


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps([_FORMAT, __version__, *parts]).encode()).hexdigest()[:32]


def _write(path: Path, data: bytes) -> None:
    arriving = path.with_suffix(".arriving")
    arriving.write_bytes(data)
    put_in_place(arriving, path)
