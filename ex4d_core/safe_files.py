"""Creates folders and files for results without following links, so that nothing outside the folder is ever written.

A project folder may come from somebody else, with links in it that lead to files of the user. Whoever chooses a folder
(on the command line) may choose a link; what lies inside is only written where it is an ordinary file or folder.
"""

from __future__ import annotations

import os
import stat
from io import FileIO
from pathlib import Path

from ex4d_core import durable_files
from ex4d_core.errors import Ex4dError

# Windows has neither; there `is_link` is what keeps links out.
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class LinkError(Ex4dError, OSError):
    """A result would be written through a link, or into something that is not an ordinary file or folder."""


def is_link(path: Path) -> bool:
    """Whether a path is itself a symbolic link, or a junction of Windows; where it leads does not matter."""
    try:
        status = path.lstat()
    except OSError:
        return False
    junction = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
    return stat.S_ISLNK(status.st_mode) or (junction is not None and getattr(status, "st_reparse_tag", 0) == junction)


def is_ordinary_file(path: Path) -> bool:
    """Whether a path is a regular file and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def create_folder(folder: Path) -> list[Path]:
    """Create a folder for results, and those above it, unless it exists.

    Returns:
        The folders that `ex4d_core.durable_files.sync_folder` is to be called for, so that the names are on disk.

    Raises:
        LinkError: it is a link.
        OSError: it cannot be created, or is a file.
    """
    if is_link(folder):
        raise LinkError(
            f"{folder} is a link to another place, and results are not written through links; remove the link, or "
            "choose another folder"
        )
    return durable_files.create_folder(folder)


def open_file(path: Path, *, append: bool = False) -> FileIO:
    """Open an ordinary file for writing and, to continue it, for reading; it is created if it is missing.

    Args:
        append: keep what it has.

    Raises:
        LinkError: it is a link, has a second name (a hard link), or is no file.
        OSError: it cannot be created or written.
    """
    if is_link(path):
        raise _refused(path, "is a link to another place")
    # Emptied only when it is known to be an ordinary file of one name.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINKS | (os.O_APPEND if append else 0), 0o666)
    file = FileIO(descriptor, "r+")
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(path, "is not an ordinary file")
        if status.st_nlink > 1:
            raise _refused(path, "has a second name elsewhere (a hard link)")
        if not append:
            file.truncate(0)
    except BaseException:
        file.close()
        raise
    return file


def _refused(path: Path, what: str) -> LinkError:
    return LinkError(f"{path} {what}, and results are not written through it; remove it, then resume")
