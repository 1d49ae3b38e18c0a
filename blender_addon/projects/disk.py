"""Finds scenes and takes on disk, counts their files, and deletes exactly those; other files in a folder stay."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.errors import RequestError
from ex4d_core.remote_job import PACKAGE_FILES
from ex4d_core.safe_files import is_link
from ex4d_core.scene_manifest import MANIFEST
from ex4d_core.take_files import ALL_TAKE_FILES, ESTIMATE_FILE

from ..jobs.tracker import tracker
from ..paths import from_blend, in_words
from ..scenes.link import link_of
from ..takes.requests import REQUEST_FILE, deep_names
from .contents import UsedFolder
from .folders import former_folders, project_folder

# What Blender writes beside a movie that has proxies.
_PROXIES = "BL_proxy"
_TAKE_NAMES = {*ALL_TAKE_FILES, ESTIMATE_FILE, REQUEST_FILE}
_FRAME = re.compile(r"frame_\d{5,}\.png")


@dataclass(frozen=True)
class Files:
    """Files that belong together.

    Attributes:
        folders: that they are in, each a scene package or a take.
        paths: of the files.
        bytes: of all of them.
    """

    folders: tuple[Path, ...]
    paths: tuple[Path, ...]
    bytes: int

    def __str__(self) -> str:
        """How many they are, and how large, for people."""
        return iface_("{count} files, {size}").format(count=len(self.paths), size=in_words(self.bytes))


def files_of(folders: Iterable[Path]) -> Files:
    """The files of scenes and takes that lie in some folders; links, and what is not the add-on's, are left out."""
    kept, paths = [], []
    for folder in folders:
        if kind_of(folder):
            kept.append(folder)
            deep = deep_names(folder)
            paths += [path for path in sorted(folder.rglob("*")) if _is_known(path, folder, deep)]
    size = 0
    for path in paths:
        with suppress(FileNotFoundError):  # a take under way renames its files meanwhile
            size += path.lstat().st_size
    return Files(tuple(kept), tuple(paths), size)


def kind_of(folder: Path) -> str:
    """What lies in a folder: "scenes" for a scene package, "takes" for a take, "" for anything else, and for links."""
    if is_link(folder):
        return ""
    if (folder / REQUEST_FILE).is_file():
        return "takes"
    return "scenes" if (folder / MANIFEST).is_file() else ""


def delete(files: Files) -> None:
    """Delete files, and their folders if nothing else is in them.

    Raises:
        RequestError: a job under way writes into one of the folders.
        OSError: one cannot be deleted; those before it are.
    """
    busy = tracker.folders().intersection(files.folders)
    if busy:
        raise RequestError(f"a job under way writes into {min(busy)}; cancel it first")
    for path in files.paths:
        path.unlink(missing_ok=True)
    for folder in files.folders:
        inside = sorted((path for path in folder.rglob("*") if path.is_dir() and not is_link(path)), reverse=True)
        for one in (*inside, folder):
            with suppress(OSError):  # not empty: it holds what is not ours
                one.rmdir()


def work_in(places: Iterable[Path]) -> list[UsedFolder]:
    """Scenes and takes in project folders, as this version and the earlier ones put them there."""
    found = []
    for place in places:
        for parent in (place, place / "takes", place / "scenes"):
            with suppress(OSError):  # it does not exist, or may not be read
                for folder in sorted(parent.iterdir()):
                    kind = kind_of(folder)
                    if kind == "takes" or (kind == "scenes" and parent != place):
                        found.append(UsedFolder(folder, "takes" if kind == "takes" else "scenes"))
    return found


def unsaved_work() -> list[Path]:
    """Scenes and takes of files that were not saved when they were made."""
    return [one.folder for one in work_in(dict.fromkeys((project_folder(), *former_folders())))]


def old_work() -> list[Path]:
    """`unsaved_work` that neither the open file nor a job under way needs.

    Raises:
        RequestError: a .blend is saved in the project folder, whose files cannot be told from old ones.
    """
    blend = next(iter(sorted(project_folder().glob("*.blend"))), None)
    if blend is not None:
        raise RequestError(
            f"{blend.name} is saved in the project folder {blend.parent}, so its files cannot be told from old ones; "
            "open it, and delete files in its lists of takes and scenes"
        )
    needed = {from_blend(one.folder, scene.library) for scene in bpy.data.scenes for one in scene.ex4d_takes}
    needed |= {from_blend(one.folder, scene.library) for scene in bpy.data.scenes for one in scene.ex4d_passes}
    needed |= {from_blend(one.folder, scene.library) for scene in bpy.data.scenes for one in scene.ex4d_reconstructions}
    needed |= {from_blend(link_of(one).folder, one.library) for one in bpy.data.objects if link_of(one).folder}
    needed |= tracker.folders()
    return [one for one in unsaved_work() if one not in needed]


def _is_known(path: Path, folder: Path, deep: frozenset[str]) -> bool:
    """Whether a file in a scene's or a take's folder is the add-on's, or a proxy of it that Blender made."""
    if is_link(path) or not path.is_file():
        return False
    if path.relative_to(folder).parts[0] == _PROXIES:
        return True
    name = path.name.removesuffix(".partial")
    known = name in (*PACKAGE_FILES, *_TAKE_NAMES, *deep) or _FRAME.fullmatch(name) is not None
    return path.parent == folder and known
