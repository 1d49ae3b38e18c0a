"""Moves scenes and takes to another folder, with everything in the open file that leads to them.

Undo, Revert and older copies of a .blend bring paths of before a move back; so moves are remembered, and such paths
are changed again whenever that has happened (`follow_moves`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import bpy

from ex4d_core.durable_files import rename_all, sync_folder
from ex4d_core.errors import RequestError
from ex4d_core.safe_files import is_link

from ..footage.properties import RECONSTRUCTIONS
from ..jobs.records import find_copies
from ..jobs.tracker import FollowedJob, tracker
from ..scheduler import scheduler
from ..user_settings import read_settings, write_settings
from .contents import Kind, UsedFolder, rebase, used_folders

_MOVES_FILE = "moved_folders.json"
# Older moves are forgotten: files of before them have most likely been saved again since.
_MAX_MOVES = 2000


def move_all(folders: Iterable[UsedFolder], project: Path) -> int:
    """Move folders of scenes and takes into a project's ``scenes`` and ``takes``; jobs under way continue there.

    Returns:
        How many were moved; what is no longer on disk is not.

    Raises:
        OSError, RequestError: one cannot be moved; those before it are.
    """
    return sum(_move(one, project) for one in folders)


def move_folder(folder: Path, kind: Kind, project: Path) -> Path:
    """Move one folder into a project, under a name that is free there; returns where it is now.

    Raises:
        RequestError: it is a link.
        OSError: it cannot be moved; it is complete where it was.
    """
    if is_link(folder):
        raise RequestError(f"{folder} is a link to another place, which is not moved; replace it by the folder itself")
    target = _free_name(project / kind / folder.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        rename_all([(folder, target)])
    except OSError:  # another disk, or a file that is open on Windows
        partial = target.with_name(f".{target.name}.partial")
        try:
            shutil.copytree(folder, partial, symlinks=True)
            rename_all([(partial, target)])
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        sync_folder(target.parent)
    _remember(folder, target)
    return target


def follow_moves() -> None:
    """Change paths of the open file that lead to where a scene or take was before it was moved."""
    moves = read_settings(_MOVES_FILE)
    if not moves:
        return
    for one in used_folders():
        new = one.folder
        for _ in range(_MAX_MOVES):  # it may have moved more than once
            if new.exists() or str(new) not in moves:
                break
            new = Path(str(moves[str(new)]))
        if new != one.folder and new.is_dir():
            rebase(one.folder, new)


def _move(one: UsedFolder, project: Path) -> int:
    """Move a folder that the open file uses, and with it the job that fills it; returns 1 if there was anything."""
    followed = [job for job in tracker.followed.values() if job.job.folder == one.folder]
    paused = [job for job in followed if not job.over]
    for job in paused:
        tracker.abandon(job.key)
    try:
        moved = one.folder.is_dir()
        if moved:
            target = move_folder(one.folder, one.kind, project)
        else:
            target = _free_name(project / one.kind / one.folder.name)
        for job in paused:
            moved |= _move_partial(job, target)
        if moved or paused:
            rebase(one.folder, target)
            for job in followed:
                if job not in paused:
                    job.job.folder = target
    finally:
        for job in paused:
            for _, record in find_copies(job.collection, job.key)[:1]:
                tracker.resume(record)  # from where it was, and sealed for its new place
    return int(moved)


def _move_partial(job: FollowedJob, target: Path) -> bool:
    """Move what has arrived of a scene that is still arriving, in a hidden folder beside its own."""
    partial = job.job.results_folder
    if job.collection != RECONSTRUCTIONS or not partial.is_dir():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    job.job.folder = target
    with suppress(OSError):  # on another disk it is fetched again
        rename_all([(partial, job.job.results_folder)])
    return True


def _free_name(target: Path) -> Path:
    """The path itself, or the next one with another number at its end: walk_1, walk_2."""
    stem, _, number = target.name.rpartition("_")
    if not number.isdigit():
        stem, number = target.name, "1"
    count = int(number)
    while target.exists() or any(target.parent.glob(f".{target.name}.*.partial")):
        count += 1
        target = target.with_name(f"{stem}_{count}")
    return target


def _remember(old: Path, new: Path) -> None:
    moves = read_settings(_MOVES_FILE)
    moves.pop(str(new), None)  # where something lies again, nothing has moved away
    moves = {**moves, str(old): str(new)}
    with suppress(OSError):
        write_settings(_MOVES_FILE, dict(list(moves.items())[-_MAX_MOVES:]))


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    follow_moves()


# Before the tracker's: jobs resume in the folder that they have now.
HANDLERS = (("load_post", _after_load),)


def register() -> None:
    """Follow moves after each undo, before the tracker resumes jobs."""
    scheduler.after_undo(follow_moves)
