"""Gives finished files and folders their names so that a power cut leaves the old one or the whole new one.

A rename alone does not: file systems without a journal of data (ext2, exFAT, some network disks, ext4 with other
options) may keep the new name and lose the content, or lose the name. So content is on disk before the rename, and the
folders' entries after it. All of the project's results get their names here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

# Network and FUSE file systems that cannot sync a folder say so in one of these ways; then nothing more can be done.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM)


def put_in_place(source: Path, target: Path) -> None:
    """Rename a finished file or folder, whose content reaches the disk before and whose name after; replaces a file.

    Args:
        source: written and closed, in the file system of ``target``.
        target: its name from now on.

    Raises:
        OSError: it cannot be written or renamed; then it is still at ``source``.
    """
    rename_all([(source, target)])
    sync_folder(target.parent)
    # A file that lost its old name only is no loss: it has both until the disk has seen this folder, too.
    if source.parent != target.parent:
        sync_folder(source.parent)


def rename_all(renames: Iterable[tuple[Path, Path]]) -> None:
    """Rename finished files, whose content reaches the disk before; their names do so with `sync_folder`."""
    renames = list(renames)
    for source, _ in renames:
        sync(source)
    for source, target in renames:
        os.replace(source, target)


def make_folder(folder: Path) -> None:
    """Create a folder, and those above it, with their names on disk; one that is there is left as it is."""
    for one in create_folder(folder):
        sync_folder(one)


def create_folder(folder: Path) -> list[Path]:
    """As `make_folder`; returns the folders that `sync_folder` is still to be called for."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return [one.parent for one in reversed(new)]


def sync(path: Path) -> None:
    """Have a file, or a folder and all files in it, on disk when this returns."""
    if path.is_dir():
        for entry in path.iterdir():
            sync(entry)
        sync_folder(path)
        return
    # Windows syncs only what is open for writing; elsewhere a read-only file is as good.
    with open(path, "rb+" if os.name == "nt" else "rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk when this returns, where the file system can do that."""
    if os.name == "nt":  # Windows cannot open folders, and needs no sync of them.
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to, but not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
