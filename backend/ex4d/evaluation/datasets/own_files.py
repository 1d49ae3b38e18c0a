"""Reads data sets' own files, and writes chosen frames and cameras of them into a work folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from ex4d.evaluation.errors import EvaluationError
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import Ex4dError


def work_folder(dataset: Path, work: Path) -> Path:
    """Where a loader keeps what it writes: of one data set only, as clips of others may have the same names."""
    place = sha256(str(dataset.resolve()).encode()).hexdigest()[:16]
    return work / "datasets" / place


@contextmanager
def stored(path: Path, title: str) -> Iterator[None]:
    """Turn whatever is wrong with the values of a file into an error that names it.

    Raises:
        EvaluationError: a value is missing, of another type, or no camera.
    """
    try:
        yield
    except EvaluationError:
        raise
    except (OSError, KeyError, IndexError, TypeError, ValueError, Ex4dError) as error:
        what = f"{type(error).__name__}: {error}"
        raise EvaluationError(f"{path}: not as {title} has it ({what}). Fetch the file again.") from error


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        EvaluationError: unreadable.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: not a readable JSON file ({error}). Fetch it again.") from error


def chosen_frames(files: Sequence[Path], folder: Path) -> Path:
    """A folder with these images and no others: links to them, or copies where links are not allowed.

    Args:
        files: in an order that their names keep.
        folder: for them alone; others in it are removed.

    Raises:
        EvaluationError: one is not there.
    """
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise EvaluationError(f"{missing} is not there: the data set is not whole. Fetch it again.")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {file.name: file.resolve() for file in files}
    for old in folder.iterdir():
        if old.resolve() != wanted.get(old.name):
            old.unlink()
    for name, file in wanted.items():
        link = folder / name
        if not link.exists():
            with suppress(OSError):  # Windows allows links to few
                link.symlink_to(file)
                continue
            shutil.copyfile(file, link)
    return folder


def saved_camera(camera: CameraPath, path: Path) -> Path:
    """The file of a camera, which `ex4d.reconstruct` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    camera.save(path)
    return path
