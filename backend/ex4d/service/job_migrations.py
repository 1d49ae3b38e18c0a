"""Brings a job database of an older version to the present one, step by step; a copy of the old one stays beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from ex4d.service.settings import ServiceError
from ex4d_core import __version__
from ex4d_core.durable_files import put_in_place

# What leads from each older version to the next one.
_MIGRATIONS: Mapping[int, tuple[str, ...]] = {
    # Version 2 knows when a job was taken up, and on which device.
    1: (
        "ALTER TABLE jobs ADD COLUMN started REAL NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN device TEXT NOT NULL DEFAULT ''",
    ),
}
# The version that a new database has.
SCHEMA_VERSION = max(_MIGRATIONS) + 1


def migrate(database: sqlite3.Connection, path: Path) -> None:
    """Migrate a database of ours inside the caller's transaction; nothing happens to one of the present version.

    The copy is named after the old version, "jobs.sqlite.v1".

    Raises:
        ServiceError: the version is newer than this program, or none.
        sqlite3.Error, OSError: the copy or the database cannot be written.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise ServiceError(
            f"the job database {path} has version {version}, and this program (ex4d {__version__}) reads up to version "
            f"{SCHEMA_VERSION}: update ex4d, or choose another data folder with --data"
        )
    if version < min(_MIGRATIONS):
        raise ServiceError(f"the job database {path} has no valid version ({version}); move it away to start again")
    if version < SCHEMA_VERSION:
        _copy(path, path.with_name(f"{path.name}.v{version}"))
    for older in range(version, SCHEMA_VERSION):
        for statement in _MIGRATIONS[older]:
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {older + 1}")


def _copy(path: Path, target: Path) -> None:
    """Copy what is committed, through a connection of its own, since the caller's is in a transaction."""
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as copy:
        source.backup(copy)
    put_in_place(partial, target)
