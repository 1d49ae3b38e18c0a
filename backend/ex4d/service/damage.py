"""A job database whose file is damaged: what to do about it is said once, wherever that turns up."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ex4d.service.settings import ServiceError


def is_damage(error: BaseException) -> bool:
    """Whether that is what an error means: SQLite raises the base class itself for damage, and for nothing else."""
    return type(error) is sqlite3.DatabaseError


@contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Around the use of the job database at ``path``.

    Raises:
        ServiceError: it turned out to be damaged.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        raise ServiceError(
            f"the job database {path} is damaged ({error}); its disk may be failing. Move it and its -wal and -shm "
            "files away and start again: that begins a new list of jobs, while footage and results stay where they are"
        ) from error
