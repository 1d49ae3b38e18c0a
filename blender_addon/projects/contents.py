"""What the open file shows of scenes and takes on disk: which folders, and every path that leads into them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import bpy

from ..footage.properties import RECONSTRUCTIONS
from ..jobs.records import own_scenes, records_of
from ..passes.properties import PASSES
from ..paths import from_blend, to_blend
from ..saving import own_paths
from ..scenes.link import link_of
from ..sequencer.strip_api import all_strips_in
from ..takes.properties import TAKES
from .folders import former_folders, project_folder

Kind = Literal["scenes", "takes"]


@dataclass(frozen=True)
class UsedFolder:
    """A scene, a take or passes that the open file lists or shows; ``kind`` is also the folder that it belongs into."""

    folder: Path
    kind: Kind


def used_folders() -> list[UsedFolder]:
    """The folders of all scenes, takes and passes of the open file; those of linked data belong to their own file."""
    found: dict[Path, UsedFolder] = {}
    kinds: tuple[tuple[str, Kind], ...] = ((TAKES, "takes"), (PASSES, "takes"), (RECONSTRUCTIONS, "scenes"))
    for collection, kind in kinds:
        for _, record in records_of(collection):
            folder = from_blend(record.folder)
            found.setdefault(folder, UsedFolder(folder, kind))
    for candidate in bpy.data.objects:
        link = link_of(candidate)
        if link.folder and candidate.library is None and candidate.override_library is None:
            folder = from_blend(link.folder)
            found.setdefault(folder, UsedFolder(folder, "scenes"))
    return list(found.values())


def folders_to_move() -> list[UsedFolder]:
    """Folders that were put elsewhere before the open file was saved, and now can move beside it; [] while unsaved."""
    saved = bpy.data.filepath
    if not saved:
        return []
    beside = Path(saved).parent
    places = (project_folder(), *former_folders())
    return [
        one
        for one in used_folders()
        if one.folder.parent != beside / one.kind and any(one.folder.is_relative_to(place) for place in places)
    ]


def rebase(old: Path, new: Path) -> None:
    """Let every path of the open file that leads into the folder ``old`` lead into ``new``."""
    for owner, name in _paths():
        text = getattr(owner, name)
        if not text or text.startswith("<"):  # a built-in font, an image without a file
            continue
        path = from_blend(text)
        if path.is_relative_to(old):
            ending = "/" if text.endswith(("/", "\\")) else ""
            setattr(owner, name, to_blend(new / path.relative_to(old)) + ending)


def _paths() -> Iterator[tuple[Any, str]]:
    """Every path of the open file's own data that may lead into a scene or a take."""
    yield from own_paths()
    for datablocks in (bpy.data.images, bpy.data.movieclips, bpy.data.sounds, bpy.data.cache_files):
        for one in datablocks:
            if one.library is None:
                yield one, "filepath"
    for candidate in bpy.data.objects:
        if candidate.library is None and candidate.override_library is None:
            for modifier in candidate.modifiers:
                if isinstance(modifier, bpy.types.MeshCacheModifier):
                    yield modifier, "filepath"
    for scene in own_scenes():
        if scene.sequence_editor is not None:
            for strip in all_strips_in(scene.sequence_editor):
                if strip.type in ("MOVIE", "IMAGE"):
                    yield strip, "filepath" if strip.type == "MOVIE" else "directory"
