"""Keeps a service's files from the other users of its machine: footage, labels and secret keys."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ex4d.service.settings import ServiceError

log = logging.getLogger(__name__)

# All that a service makes in its data folder, which may hold files of others, too.
_OURS = ("blobs", "partial", "users", "work", "logs", "keys", "lock", "service.pid", "jobs.sqlite*")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def private_files() -> Iterator[None]:
    """New files of this process and its children are their owner's only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def tighten_data(folder: Path) -> None:
    """Take the rights of other users from what an older version or another program left in a data folder.

    Raises:
        ServiceError: others can change the folder's content, and we cannot stop that.
    """
    if os.name == "nt":  # folders of a user are private there
        return
    # A folder like /tmp is everybody's, but nobody can replace what is ours there.
    if not folder.stat().st_mode & stat.S_ISVTX:
        _tighten(folder, _OTHERS_WRITE)
    for pattern in _OURS:
        for path in folder.glob(pattern):
            _tighten(path, _OTHERS)


def tighten_secret(path: Path) -> None:
    """Take the rights of other users from a file with a secret key.

    Raises:
        ServiceError: others can read it, and we cannot stop that.
    """
    if os.name != "nt" and path.exists() and _tighten(path, _OTHERS):
        log.warning("others could read %s until now; if somebody may have, delete it and create new keys", path)


def _tighten(path: Path, rights: int) -> bool:
    """Whether any of these rights had to be taken away."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & rights:
            path.chmod(mode & ~rights)
            log.info("took other users' access to %s away", path)
    except OSError as error:
        raise ServiceError(
            f"other users of this machine can use {path} ({error.strerror}); make the user of the service its owner "
            f"(chown), or run: chmod go-rwx {path}"
        ) from error
    return bool(mode & rights)
