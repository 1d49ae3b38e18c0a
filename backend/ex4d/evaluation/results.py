"""What methods made: finds the result of each task, and says what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ex4d.evaluation.clips import Frames, Task
from ex4d.evaluation.errors import EvaluationError
from ex4d.media.sequences import is_sequence

MOVIES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")
MASK_ENDING = ".mask"  # of a folder of images, or before a movie's own
TAKE, MASK = "take.mp4", "mask.mp4"  # of a take's folder, as `ex4d generate` writes it
_BLACK, _FROZEN = 4.0, 0.05  # mean of all values, and mean change from frame to frame, of 255


@dataclass(frozen=True)
class Method:
    """Somebody's results.

    Attributes:
        name: of its rows.
        folder: with one result a task, named as the task: a movie, a folder of images, or a take's folder. Its masks
            are beside it, as NAME.mask, or in the take's folder.
        failed: of tasks by name, why there is no result.
    """

    name: str
    folder: Path
    failed: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def parse(text: str) -> Method:
        """Of NAME=FOLDER.

        Raises:
            EvaluationError: it is not that, or there is no such folder.
        """
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder:
            raise EvaluationError(f"results are given as NAME=FOLDER, not {text!r}")
        if not is_method(name):
            raise EvaluationError(f"a method's name must be usable as a folder's, not {name!r}")
        if not Path(folder).is_dir():
            raise EvaluationError(f"the results of {name} are not at {folder}: there is no such folder")
        return Method(name, Path(folder))

    def find(self, task: Task) -> Path | None:
        """The result of a task; None if there is none.

        Raises:
            EvaluationError: there are several.
        """
        return self._one_of(task, self.folder / task.name, TAKE)

    def find_masks(self, task: Task) -> Path | None:
        """The masks that belong to the result of a task, white where it calls the footage seen; None if there are none.

        Raises:
            EvaluationError: there are several.
        """
        place = self.folder / task.name
        if (place / TAKE).is_file():
            return place / MASK if (place / MASK).is_file() else None
        return self._one_of(task, place.with_name(f"{place.name}{MASK_ENDING}"), MASK)

    def _one_of(self, task: Task, place: Path, in_folder: str) -> Path | None:
        """A movie of that name, a folder of images, or a movie in a folder."""
        found = [place.parent / f"{place.name}{ending}" for ending in MOVIES]
        found = [path for path in found if path.is_file()]
        if place.is_dir():
            movie = place / in_folder
            found += [movie] if movie.is_file() else [place] if is_sequence(place) else []
        if len(found) > 1:
            raise EvaluationError(f"{self.name} has two files of {place.name}: {found[0].name} and {found[1].name}")
        return found[0] if found else None


def is_method(name: str) -> bool:
    """Whether a method can be called so: folders are called by it."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def doubts(frames: Frames, asked_to_move: bool) -> Iterator[str]:
    """What is suspicious about a result as a whole: it is measured nevertheless."""
    means, changes, before = [], [], None
    for frame in frames:
        means.append(float(frame.mean()))
        if before is not None:
            changes.append(float(np.abs(frame.astype(np.int16) - before).mean()))
        before = frame.astype(np.int16)
    if max(means) < _BLACK:
        yield "it is black"
    elif asked_to_move and changes and max(changes) < _FROZEN:
        yield "it is frozen, though its camera should move"
