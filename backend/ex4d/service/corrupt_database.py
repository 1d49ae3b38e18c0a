"""Detects a corrupt or locked job database, and reports a corrupt one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ex4d.service.settings import ServiceError


def is_corruption(error: BaseException) -> bool:
    """Whether SQLite found its file corrupt: it raises the base class itself for that, and for nothing else."""
    return type(error) is sqlite3.DatabaseError


def is_locked(error: BaseException) -> bool:
    """Whether another connection has held SQLite's lock for too long."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


@contextmanager
def corruption_reported(path: Path) -> Iterator[None]:
    """Around the use of the job database at ``path``.

    Raises:
        ServiceError: it is corrupt; the message says how to start again.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if not is_corruption(error):
            raise
        raise ServiceError(
            f"the job database {path} is corrupt ({error}); its disk may be failing. Move it and its -wal and -shm "
            "files away and start again: this begins a new list of jobs and keeps footage and results"
        ) from error
