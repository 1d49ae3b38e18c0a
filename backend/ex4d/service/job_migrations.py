"""The schema of the job database, and the steps from older versions to it; a copy of an old one stays beside it."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from ex4d.service.settings import ServiceError
from ex4d_core import __version__
from ex4d_core.durable_files import put_in_place

# Of version 4; a new database takes the later steps, too.
_JOBS_4 = """
CREATE TABLE {name} (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL DEFAULT '',
    key TEXT NOT NULL,
    label TEXT NOT NULL,
    engine TEXT NOT NULL,
    scene TEXT NOT NULL,
    request BLOB NOT NULL,
    state TEXT NOT NULL,
    stage TEXT NOT NULL DEFAULT '',
    done INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    updated REAL NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    events INTEGER NOT NULL DEFAULT 0,
    claim TEXT,
    worker TEXT,
    started REAL NOT NULL DEFAULT 0,
    device TEXT NOT NULL DEFAULT '',
    digest TEXT NOT NULL DEFAULT '',
    bytes INTEGER NOT NULL DEFAULT 0,
    downs INTEGER NOT NULL DEFAULT 0,
    room INTEGER NOT NULL DEFAULT 0,
    ended INTEGER NOT NULL DEFAULT 0,
    UNIQUE (owner, key)
)
"""
_BY_STATE_4 = "CREATE INDEX jobs_by_state ON jobs (state, owner, sequence, room)"
_BY_END_4 = "CREATE INDEX jobs_by_end ON jobs (ended) WHERE ended > 0"
_COLUMNS_3 = (
    "sequence, id, key, label, engine, scene, request, state, stage, done, total, reason, created, updated, attempt, "
    "crashes, events, claim, worker, started, device, digest, bytes, downs, room, ended"
)
# What leads from each older version to the next one.
_MIGRATIONS: Mapping[int, tuple[str, ...]] = {
    # Version 2 knows when a job was taken up, and on which device.
    1: (
        "ALTER TABLE jobs ADD COLUMN started REAL NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN device TEXT NOT NULL DEFAULT ''",
    ),
    # Version 3 counts ends (of jobs, and of services under a job), knows the room that a job needs, and keeps requests
    # only until their job has ended.
    2: (
        "ALTER TABLE jobs ADD COLUMN digest TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE jobs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN downs INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN room INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN ended INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX jobs_by_end ON jobs (ended) WHERE ended > 0",
        "CREATE TABLE forgotten (job TEXT PRIMARY KEY) WITHOUT ROWID",
        "CREATE TABLE ends (count INTEGER NOT NULL)",
        "UPDATE jobs SET digest = sha256_of(request), bytes = length(request)",
        "UPDATE jobs SET ended = sequence, request = x'' WHERE state NOT IN ('queued', 'running')",
        "DELETE FROM needs WHERE job IN (SELECT id FROM jobs WHERE ended > 0)",
        "INSERT INTO ends SELECT coalesce(max(sequence), 0) FROM jobs",
    ),
    # Version 4 knows whose a job is, and whose turn. SQLite changes no constraint of a table, so this is a new one.
    3: (
        _JOBS_4.format(name="new_jobs"),
        f"INSERT INTO new_jobs ({_COLUMNS_3}) SELECT {_COLUMNS_3} FROM jobs",
        # Numbers of jobs that were forgotten do not come again.
        "DELETE FROM sqlite_sequence WHERE name = 'new_jobs'",
        "INSERT INTO sqlite_sequence SELECT 'new_jobs', seq FROM sqlite_sequence WHERE name = 'jobs'",
        "DROP TABLE jobs",
        "ALTER TABLE new_jobs RENAME TO jobs",
        _BY_STATE_4,
        _BY_END_4,
        "CREATE TABLE turns (owner TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID",
        "INSERT INTO turns VALUES ('', 0)",
    ),
    # Version 5 knows priorities (0 low, 1 normal, 2 high), and how many jobs a user may run at once (NULL: any number).
    4: (
        "ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE turns ADD COLUMN most INTEGER",
        "DROP INDEX jobs_by_state",
        "CREATE INDEX jobs_by_state ON jobs (state, owner, priority DESC, sequence, room)",
    ),
}
# The version that a new database has.
SCHEMA_VERSION = max(_MIGRATIONS) + 1

# Of the present version.
SCHEMA = f"""
{_JOBS_4.format(name="jobs")};
{_BY_STATE_4};
{_BY_END_4};
CREATE TABLE events (
    job TEXT NOT NULL REFERENCES jobs (id),
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    idx INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX results_once ON events (job, kind, name, idx) WHERE kind <> 'state';
CREATE TABLE needs (
    job TEXT NOT NULL REFERENCES jobs (id),
    sha256 TEXT NOT NULL,
    PRIMARY KEY (job, sha256)
) WITHOUT ROWID;
CREATE TABLE forgotten (job TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE turns (owner TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE ends (count INTEGER NOT NULL);
INSERT INTO ends VALUES (0);
""" + ";\n".join(_MIGRATIONS[4])


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
    database.create_function("sha256_of", 1, lambda data: hashlib.sha256(data).hexdigest(), deterministic=True)
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
