"""Data sets by their layout on the disk: each loader knows one, and lists its clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ex4d.evaluation.clips import EvaluationClip
from ex4d.evaluation.datasets import plain_folder
from ex4d.evaluation.errors import EvaluationError


@dataclass(frozen=True)
class Layout:
    """One way in which data sets lie on the disk.

    Attributes:
        name: as ``--layout`` takes it.
        title: for people.
        matches: whether a folder looks like it.
        clips: those of a folder, in order.
    """

    name: str
    title: str
    matches: Callable[[Path], bool]
    clips: Callable[[Path], list[EvaluationClip]]


LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (Layout("folder", "a folder a clip", plain_folder.matches, plain_folder.clips),)
}


def load_clips(folder: Path, layout: str | None = None) -> tuple[Layout, list[EvaluationClip]]:
    """The clips of a data set.

    Args:
        layout: of `LAYOUTS`; None for the one that the folder looks like.

    Raises:
        EvaluationError: no such folder, layout, or clips.
    """
    if not folder.is_dir():
        raise EvaluationError(f"there is no data set at {folder}")
    known = "; ".join(f"{one.name}: {one.title}" for one in LAYOUTS.values())
    if layout is not None and layout not in LAYOUTS:
        raise EvaluationError(f"there is no layout {layout!r}: --layout takes one of these ({known})")
    found = [one for one in LAYOUTS.values() if one.matches(folder)] if layout is None else [LAYOUTS[layout]]
    if len(found) != 1:
        what = f"fits the layouts {', '.join(one.name for one in found)}" if found else "has no known layout"
        raise EvaluationError(f"{folder} {what}: name it with --layout ({known})")
    clips = found[0].clips(folder)
    if not clips:
        raise EvaluationError(f"{folder} has no clips of the layout {found[0].name} ({found[0].title})")
    twice = {one.name for one in clips if [other.name for other in clips].count(one.name) > 1}
    if twice:
        raise EvaluationError(f"{folder} has two clips of the name {sorted(twice)[0]}")
    return found[0], clips
