"""Writes the file of shots for a farm, and each shot's request, as `ex4d batch` and its `again` read them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ex4d_core.durable_files import make_folder, put_in_place
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest
from ex4d_core.take_files import REQUEST_FILE

SHOTS_FILE = "shots.toml"
_REQUESTS = "requests"


@dataclass(frozen=True)
class FarmShot:
    """A shot for the farm.

    Attributes:
        name: of its take's folder.
        package: folder of its scene.
    """

    name: str
    package: Path
    scene: Scene
    request: ShotRequest


def ranges(name: str, request: ShotRequest, frame_start: int, frames: int) -> list[tuple[str, ShotRequest]]:
    """A shot in parts of so many frames, named by their Blender frames; whole where that is 0."""
    count = len(request.camera)
    if not 0 < frames < count:
        return [(name, request)]
    parts = []
    for first in range(0, count, frames):
        end = min(first + frames, count)
        parts.append((f"{name}_{frame_start + first:04}-{frame_start + end - 1:04}", request.part(first, end)))
    return parts


def write_shots(folder: Path, shots: Sequence[FarmShot]) -> Path:
    """Write a file of shots, and the request of each, into a folder; returns the file.

    Raises:
        OSError: it cannot be written.
    """
    tables = []
    for shot in shots:
        place = folder / _REQUESTS / shot.name
        make_folder(place)
        text = json.dumps(shot.request.described(shot.scene.manifest.name), indent=1, ensure_ascii=False)
        _write(place / REQUEST_FILE, text)
        shot.request.camera.save(place / "camera.npz")
        fields = {"name": shot.name, "scene": _relative(shot.package, folder), "again": _relative(place, folder)}
        tables.append(_table(fields))
    file = folder / SHOTS_FILE
    _write(file, "\n".join(tables))  # last, so that it names only what is there
    return file


def _table(fields: Mapping[str, str]) -> str:
    # JSON's texts are TOML's.
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items()]
    return "".join(["[[shot]]\n", *lines])


def _relative(path: Path, folder: Path) -> str:
    """From the folder, so that it may lie elsewhere on the farm; whole on another drive."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.as_posix()


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    put_in_place(partial, path)
