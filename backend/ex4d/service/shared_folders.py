"""`SharedFolders`: folders that clients reach as well, under other names, so that their files need not be sent.

The owner of the service lists them in a file of TOML (`ServiceSettings.folders`):

    [[folder]]
    path = "/mnt/show"                       # on this machine
    names = ["S:/show", "/Volumes/show"]     # as clients call it
    users = ["anna", "bob"]                  # who may use it; without it, everybody who may connect

A path of a client is never opened. It must be below one of the names; what follows is opened name by name from the
folder down, each as an ordinary folder or file and never through a link.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath, PureWindowsPath

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

from ex4d.service.refusals import Refusal
from ex4d.service.settings import ServiceError, is_client_name
from ex4d_core.folder_messages import MAX_PATH, parts_below

# Not in names of files that we open: separators of either system, streams of NTFS, and control characters.
_UNSAFE = re.compile(r"[/\\:\x00-\x1f\x7f]")
_BY_NAME = os.open in os.supports_dir_fd
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_KEYS = {"path", "names", "users"}


@dataclass(frozen=True)
class SharedFolder:
    """One of them.

    Attributes:
        path: on this machine.
        names: as clients call it.
        users: who may use it; nobody in particular for everybody.
    """

    path: Path
    names: tuple[str, ...]
    users: tuple[str, ...] = ()


class SharedFolders:
    """The folders of a service."""

    def __init__(self, folders: Sequence[SharedFolder] = ()):
        """Of the folders, in the order of their preference."""
        self._folders = folders

    @staticmethod
    def read(file: Path | None) -> SharedFolders:
        """The folders that a file lists; none without a file.

        Raises:
            ServiceError: it cannot be read, or lists what cannot be.
        """
        if file is None:
            return SharedFolders()
        try:
            with open(file, "rb") as opened:
                content = tomllib.load(opened)
            listed = content.get("folder")
            if set(content) != {"folder"} or not isinstance(listed, list):
                raise ValueError("expected tables [[folder]], and nothing else")
            return SharedFolders([_folder(one) for one in listed])
        except (OSError, ValueError) as error:
            raise ServiceError(f"--folders: cannot use {file}: {error}") from error

    def names(self, user: str) -> list[str]:
        """What a user may call folders."""
        return [name for folder in self._of(user) for name in folder.names]

    def open(self, user: str, path: str) -> FileIO:
        """Open a file by a client's path; for a thread, since the folder may be a network's.

        Raises:
            Refusal: the user may not, or there is no such file.
        """
        for folder in self._of(user):
            for name in folder.names:
                if parts := parts_below(name, path):
                    return _open_below(folder.path, parts, path)
        raise Refusal("unknown-blob", f"{path!r:.200} is in none of the backend's shared folders; send the file")

    def _of(self, user: str) -> list[SharedFolder]:
        return [folder for folder in self._folders if not folder.users or user in folder.users]


def _folder(values: object) -> SharedFolder:
    if not isinstance(values, dict) or not {"path", "names"} <= set(values) <= _KEYS:
        raise ValueError("a folder has 'path' and 'names', and may have 'users'")
    path, names, users = values["path"], values["names"], values.get("users", [])
    if not isinstance(path, str) or not Path(path).is_absolute() or not Path(path).is_dir():
        raise ValueError(f"path {path!r} is not a folder of this machine; give its absolute path")
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        raise ValueError(f"names of {path}: expected a list of paths")
    for name in names:
        windows, posix = PureWindowsPath(name), PurePosixPath(name)
        absolute = windows.is_absolute() if windows.drive else posix.is_absolute()
        if not absolute or ".." in windows.parts or len(name) > MAX_PATH:
            raise ValueError(f"name {name!r:.200} of {path}: expected an absolute path of a client")
        if len((windows if windows.drive else posix).parts) < 2 and not windows.drive:
            raise ValueError(f"name {name!r} of {path} is the whole system of a client; name a folder")
    if not isinstance(users, list) or not all(isinstance(one, str) and is_client_name(one) for one in users):
        raise ValueError(f"users of {path}: expected names of keys")
    if "users" in values and not users:
        raise ValueError(f"users of {path}: nobody may use it; name somebody, or leave it out for everybody")
    return SharedFolder(Path(path), tuple(names), tuple(users))


def _open_below(folder: Path, parts: Sequence[str], shown: str) -> FileIO:
    if any(_UNSAFE.search(part) or part in ("", ".", "..") for part in parts):
        raise Refusal("unknown-blob", f"{shown!r:.200} has a name that cannot be used here; send the file")
    try:
        opened = _open_by_name(folder, parts) if _BY_NAME else _open_resolved(folder, parts)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Refusal("unknown-blob", f"cannot read {shown!r:.200} here: {reason}; send the file") from error
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise Refusal("unknown-blob", f"{shown!r:.200} is not an ordinary file here; send the file")
    return FileIO(opened, "rb")


def _open_by_name(folder: Path, parts: Sequence[str]) -> int:
    """Open name by name, so that nobody can put a link in between."""
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for number, part in enumerate(parts):
        kind = os.O_DIRECTORY if number + 1 < len(parts) else 0
        try:
            below = os.open(part, os.O_RDONLY | _FLAGS | kind, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at


def _open_resolved(folder: Path, parts: Sequence[str]) -> int:
    """On Windows: as above, but whoever can write into the folder could put a link in between."""
    path = folder.joinpath(*parts)
    if path.resolve(strict=True) != folder.resolve(strict=True).joinpath(*parts):
        raise ValueError("a link leads to it")
    return os.open(path, os.O_RDONLY | _FLAGS)
