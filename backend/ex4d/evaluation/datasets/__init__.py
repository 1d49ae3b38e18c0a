"""Data sets by their layout on the disk: each loader knows one, and lists its clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ex4d.evaluation.clips import EvaluationClip
from ex4d.evaluation.datasets import dycheck, kubric_4d, parallel_domain_4d, plain_folder, true_scenes, vista4d
from ex4d.evaluation.errors import EvaluationError


@dataclass(frozen=True)
class Layout:
    """One way in which data sets lie on the disk.

    Attributes:
        name: as ``--layout`` takes it.
        title: for people.
        matches: whether a folder looks like it.
        clips: those of a folder, in order; what they need in other files is written into a second one.
    """

    name: str
    title: str
    matches: Callable[[Path], bool]
    clips: Callable[[Path, Path], list[EvaluationClip]]


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("dycheck", dycheck.TITLE, dycheck.matches, dycheck.clips),
        Layout("kubric-4d", kubric_4d.TITLE, kubric_4d.matches, kubric_4d.clips),
        Layout("parallel-domain-4d", parallel_domain_4d.TITLE, parallel_domain_4d.matches, parallel_domain_4d.clips),
        Layout("vista4d", vista4d.TITLE, vista4d.matches, vista4d.clips),
        Layout("true-scenes", true_scenes.TITLE, true_scenes.matches, true_scenes.clips),
        # The last, as it looks into all folders below.
        Layout("folder", "a folder a clip", plain_folder.matches, lambda folder, _: plain_folder.clips(folder)),
    )
}


def load_clips(folder: Path, work: Path, layout: str | None = None) -> tuple[Layout, list[EvaluationClip]]:
    """The clips of a data set.

    Args:
        work: a folder for what clips need in other files than the data set's.
        layout: of `LAYOUTS`; None for the first that the folder looks like.

    Raises:
        EvaluationError: no such folder, layout, or clips.
    """
    if not folder.is_dir():
        raise EvaluationError(f"there is no data set at {folder}")
    known = "; ".join(f"{one.name}: {one.title}" for one in LAYOUTS.values())
    if layout is not None and layout not in LAYOUTS:
        raise EvaluationError(f"there is no layout {layout!r}: --layout takes one of these ({known})")
    found = LAYOUTS[layout] if layout else next((one for one in LAYOUTS.values() if one.matches(folder)), None)
    if found is None:
        raise EvaluationError(f"{folder} has no known layout: name it with --layout ({known})")
    clips = found.clips(folder, work)
    if not clips:
        raise EvaluationError(f"{folder} has no clips of the layout {found.name} ({found.title})")
    name, count = Counter(one.name for one in clips).most_common(1)[0]
    if count > 1:
        raise EvaluationError(f"{folder} has {count} clips of the name {name}")
    return found, clips
