"""`JobStore`: jobs and their events in one SQLite file that front and workers share, each with its own connection.

Everything is on disk before it is announced. A worker holds a job by a random claim, and writes only while its claim is
still the job's: a worker that was declared dead, or whose job was cancelled, can never write into it again.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from ex4d.service.corrupt_database import corruption_reported
from ex4d.service.job_migrations import SCHEMA_VERSION, migrate
from ex4d.service.settings import ServiceError
from ex4d_core.errors import Ex4dError
from ex4d_core.messages import FINAL_STATES, MAX_EVENTS, MAX_JOBS, JobDetails, JobEvent, JobStatus
from ex4d_core.reconstruction import ReconstructionRequest, request_from_wire
from ex4d_core.shot import RequestError, ShotRequest

# Marks the file as ours ("EX4D"), so that another program's database is never touched.
_APPLICATION_ID = 0x45583444
# A job that crashed two workers would crash the third one as well.
MAX_CRASHES = 2
# Characters of a reason, which every list of jobs repeats: libraries list a thousand tensors that do not fit.
_MAX_REASON = 4000

_SCHEMA = """
CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL UNIQUE,
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
    device TEXT NOT NULL DEFAULT ''
);
CREATE INDEX jobs_by_state ON jobs (state, sequence);
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
"""

_STATUS = """
SELECT id, CAST(label AS TEXT), CAST(engine AS TEXT), state, CAST(stage AS TEXT), CAST(done AS INTEGER),
    CAST(total AS INTEGER), CAST(reason AS TEXT), CAST(created AS REAL), CAST(attempt AS INTEGER), events,
    CASE state WHEN 'queued' THEN
        (SELECT count(*) FROM jobs AS other WHERE other.state = 'queued' AND other.sequence < jobs.sequence)
    ELSE 0 END
FROM jobs
"""


class ClaimLost(Ex4dError):
    """The job was cancelled or given to another worker; this worker must drop it."""


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a job.

    Attributes:
        job: its id.
        secret: what the worker must present at every write.
    """

    job: str
    secret: str


@dataclass(frozen=True)
class ClaimedJob(Claim):
    """A claim, and what to do."""

    request: ShotRequest | ReconstructionRequest


class JobStore:
    """One connection to the job database; threads must not share it.

    Workers call the methods that take a `Claim`, which raise `ClaimLost` once the worker has lost the job.
    """

    def __init__(self, path: Path):
        """Open the database, or create it.

        Raises:
            ServiceError: the file is not a job database, is of a newer version, or cannot be written.
        """
        try:
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None)
            # A damaged text costs a few of its letters, and not every list that it is in.
            self._db.text_factory = lambda data: data.decode("utf-8", "replace")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._prepare(path)
        except sqlite3.OperationalError as error:
            text = f"cannot use the job database {path}: {error}; check the folder's free space and permissions"
            raise ServiceError(text) from error
        except sqlite3.Error as error:
            raise ServiceError(f"cannot use the job database {path}: {error}; move it away to start again") from error
        self._path = path

    def check(self) -> None:
        """Check the whole file, which takes milliseconds for thousands of jobs.

        Raises:
            ServiceError: it is corrupt.
        """
        with corruption_reported(self._path):
            (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(" ".join(found.split()))

    def _prepare(self, path: Path) -> None:
        with self._transaction():
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if not tables:
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif application != _APPLICATION_ID:
                raise ServiceError(f"{path} belongs to another program; choose another data folder")
            else:
                migrate(self._db, path)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors, a full disk for one.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    # For clients.

    def submit(self, key: str, request: ShotRequest | ReconstructionRequest, needs: Sequence[str]) -> str:
        """Queue a job; it is on disk when this returns.

        Args:
            key: the client's own name for it; a known key returns the job that has it.
            request: what to do.
            needs: hashes of the blobs that must stay until the job has ended.

        Returns:
            The job's id.
        """
        job, now = secrets.token_hex(8), time.time()
        with self._transaction():
            known = self.job_of_key(key)
            if known:
                return known
            self._db.execute(
                "INSERT INTO jobs (id, key, label, engine, scene, request, state, created, updated) "
                "VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
                (job, key, request.label, request.engine, request.scene, msgpack.packb(request.to_wire()), now, now),
            )
            self._db.executemany("INSERT OR IGNORE INTO needs VALUES (?, ?)", [(job, sha256) for sha256 in needs])
            self._add_event(job, "state", "queued")
        return job

    def job_of_key(self, key: str) -> str | None:
        """The job that was submitted under a key, if any."""
        row = self._db.execute("SELECT id FROM jobs WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def status(self, job: str) -> JobStatus | None:
        """The status of a job; None for one that was never submitted."""
        row = self._db.execute(f"{_STATUS} WHERE id = ?", (job,)).fetchone()
        return _status(row) if row else None

    def jobs(self, limit: int = MAX_JOBS) -> list[JobStatus]:
        """The newest jobs first."""
        limit = min(max(limit, 0), MAX_JOBS)
        return [_status(row) for row in self._db.execute(f"{_STATUS} ORDER BY sequence DESC LIMIT ?", (limit,))]

    def details(self, limit: int = MAX_JOBS) -> list[JobDetails]:
        """What the newest jobs are of, newest first."""
        rows = self._db.execute(
            "SELECT id, CAST(scene AS TEXT), CAST(request AS BLOB), started, state, updated, device "
            "FROM jobs ORDER BY sequence DESC LIMIT ?",
            (min(max(limit, 0), MAX_JOBS),),
        )
        return [
            JobDetails(
                job, scene, hashlib.sha256(request).hexdigest(), started, updated * (state in FINAL_STATES), device
            )
            for job, scene, request, started, state, updated, device in rows
        ]

    def events(self, job: str, after: int, limit: int = MAX_EVENTS) -> list[JobEvent]:
        """Events of a job with numbers above ``after``, in order."""
        rows = self._db.execute(
            "SELECT number, kind, name, idx, sha256, size FROM events "
            "WHERE job = ? AND number > ? ORDER BY number LIMIT ?",
            (job, after, limit),
        )
        return [JobEvent(*row) for row in rows]

    def cancel(self, job: str, reason: str = "cancelled on request") -> None:
        """Cancel a job unless it has ended; its worker has lost the claim when this returns."""
        with self._transaction():
            row = self._db.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone()
            if row and row[0] not in FINAL_STATES:
                self._enter(job, "cancelled", reason)

    def unfinished(self) -> int:
        """The number of queued and running jobs."""
        return self._db.execute("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')").fetchone()[0]

    def has_queued(self) -> bool:
        """Whether a job waits for a worker."""
        return self._db.execute("SELECT 1 FROM jobs WHERE state = 'queued' LIMIT 1").fetchone() is not None

    # For workers.

    def claim(self, worker: str, device: str = "") -> ClaimedJob | None:
        """Take the oldest queued job for a worker, which runs it on a device, or None if there is none.

        Jobs whose request this version cannot read, since another version queued them, fail on the way.
        """
        while True:
            with self._transaction():
                row = self._db.execute(
                    "SELECT id, request FROM jobs WHERE state = 'queued' ORDER BY sequence LIMIT 1"
                ).fetchone()
                if not row:
                    return None
                claim = Claim(row[0], secrets.token_hex(8))
                self._enter(claim.job, "running")
                self._db.execute(
                    "UPDATE jobs SET claim = ?, worker = ?, started = ?, device = ?, attempt = attempt + 1 "
                    "WHERE id = ?",
                    (claim.secret, worker, time.time(), device, claim.job),
                )
            try:
                return ClaimedJob(claim.job, claim.secret, _request(row[1]))
            except RequestError as error:
                self.fail(claim, f"this version of the backend cannot read its request: {error}; submit it again")

    def set_progress(self, claim: Claim, stage: str, done: int, total: int) -> None:
        """Record the stage of a job, and the steps done in it."""
        # Progress may be lost with the power; it is not worth waiting for the disk.
        self._db.execute("PRAGMA synchronous = NORMAL")
        try:
            with self._transaction():
                self._require_claim(claim)
                self._db.execute(
                    "UPDATE jobs SET stage = ?, done = ?, total = ?, updated = ? WHERE id = ?",
                    (stage, done, total, time.time(), claim.job),
                )
        finally:
            self._db.execute("PRAGMA synchronous = FULL")

    def add_result(self, claim: Claim, kind: str, name: str, index: int, sha256: str, size: int) -> bool:
        """Announce a frame, file or estimate, unless an earlier attempt did; returns whether it is new.

        Args:
            claim: the worker's.
            kind: "frame", "file" or "estimate".
            name: of a file; "" otherwise.
            index: of a frame or of an estimate's step; -1 otherwise.
            sha256: of the blob.
            size: of the blob.
        """
        with self._transaction():
            self._require_claim(claim)
            return self._add_event(claim.job, kind, name, index, sha256, size)

    def finish(self, claim: Claim) -> None:
        """End a job that is done."""
        with self._transaction():
            self._require_claim(claim)
            self._enter(claim.job, "done")

    def fail(self, claim: Claim, reason: str) -> None:
        """End a job that failed; the reason is for people."""
        with self._transaction():
            self._require_claim(claim)
            self._enter(claim.job, "failed", reason)

    # For the service, about workers that have ended.

    def worker_died(self, worker: str, reason: str) -> JobStatus | None:
        """Queue the job that a dead worker held, or fail it when it has crashed `MAX_CRASHES` workers.

        Returns:
            The job's status; None if the worker held none.
        """
        with self._transaction():
            row = self._db.execute(
                "SELECT id, crashes FROM jobs WHERE state = 'running' AND worker = ?", (worker,)
            ).fetchone()
            if not row:
                return None
            job, crashes = row[0], row[1] + 1
            self._db.execute("UPDATE jobs SET crashes = ? WHERE id = ?", (crashes, job))
            if crashes < MAX_CRASHES:
                self._enter(job, "queued")
            else:
                self._enter(job, "failed", f"{reason} ({crashes} attempts)")
        return self.status(job)

    def requeue_running(self, *, count_attempt: bool) -> list[str]:
        """Queue every running job again, since all workers have ended; returns the jobs.

        Args:
            count_attempt: False after an orderly stop, which does not count as an attempt.
        """
        with self._transaction():
            jobs = [row[0] for row in self._db.execute("SELECT id FROM jobs WHERE state = 'running' ORDER BY sequence")]
            for job in jobs:
                self._enter(job, "queued")
                if not count_attempt:
                    self._db.execute("UPDATE jobs SET attempt = attempt - 1 WHERE id = ?", (job,))
        return jobs

    def forget(self, ended_before: float) -> int:
        """Delete all records of jobs that ended before a time (seconds since 1970); returns how many."""
        with self._transaction():
            marks = ",".join("?" * len(FINAL_STATES))
            old = f"SELECT id FROM jobs WHERE state IN ({marks}) AND updated < ?"
            for table in ("events", "needs"):
                self._db.execute(f"DELETE FROM {table} WHERE job IN ({old})", (*FINAL_STATES, ended_before))
            return self._db.execute(f"DELETE FROM jobs WHERE id IN ({old})", (*FINAL_STATES, ended_before)).rowcount

    def forgettable(self, ended_before: float) -> int:
        """The number of jobs that `forget` would delete."""
        marks = ",".join("?" * len(FINAL_STATES))
        counted = f"SELECT count(*) FROM jobs WHERE state IN ({marks}) AND updated < ?"
        return self._db.execute(counted, (*FINAL_STATES, ended_before)).fetchone()[0]

    def needed_blobs(self, finished_since: float) -> set[str]:
        """Hashes that queued and running jobs need, and results of those that ended after ``finished_since``."""
        inputs = self._db.execute(
            "SELECT sha256 FROM needs JOIN jobs ON jobs.id = needs.job WHERE state IN ('queued', 'running')"
        )
        needed = {row[0] for row in inputs}
        results = self._db.execute(
            "SELECT sha256 FROM events JOIN jobs ON jobs.id = events.job "
            "WHERE kind <> 'state' AND (state IN ('queued', 'running') OR updated > ?)",
            (finished_since,),
        )
        return needed.union(row[0] for row in results)

    def _require_claim(self, claim: Claim) -> None:
        row = self._db.execute("SELECT claim, state FROM jobs WHERE id = ?", (claim.job,)).fetchone()
        if row is None or row[0] != claim.secret:
            state = row[1] if row else "deleted"
            raise ClaimLost(f"job {claim.job} no longer belongs to this worker: it is {state}")

    def _enter(self, job: str, state: str, reason: str = "") -> None:
        """Set a job's state, without a claim; `claim` adds one to "running"."""
        self._db.execute(
            "UPDATE jobs SET state = ?, reason = ?, claim = NULL, worker = NULL, updated = ? WHERE id = ?",
            (state, _storable(reason), time.time(), job),
        )
        if state == "queued":
            self._db.execute("UPDATE jobs SET stage = '', done = 0, total = 0 WHERE id = ?", (job,))
        self._add_event(job, "state", state)

    def _add_event(self, job: str, kind: str, name: str, index: int = -1, sha256: str = "", size: int = 0) -> bool:
        added = self._db.execute(
            "INSERT OR IGNORE INTO events SELECT id, events + 1, ?, ?, ?, ?, ? FROM jobs WHERE id = ?",
            (kind, name, index, sha256, size, job),
        ).rowcount
        if added:
            self._db.execute("UPDATE jobs SET events = events + 1, updated = ? WHERE id = ?", (time.time(), job))
        return bool(added)


def _request(data: object) -> ShotRequest | ReconstructionRequest:
    """The request of a row.

    Raises:
        RequestError: it is of another version, or damaged.
    """
    # msgpack has no common base of its errors, and damaged bytes may be anything: of this job alone.
    try:
        values = msgpack.unpackb(data)
    except Exception as error:
        raise RequestError(f"its record is damaged ({type(error).__name__}: {error})") from error
    return request_from_wire(values)


def _storable(reason: str) -> str:
    """A reason short enough for lists of jobs, and valid UTF-8 for SQLite: a file's name may be anything."""
    return reason[:_MAX_REASON].encode("utf-8", "replace").decode("utf-8")


def _status(row: tuple[Any, ...]) -> JobStatus:
    job, label, engine, state, stage, done, total, reason, created, attempt, events, position = row
    return JobStatus(job, label, engine, state, stage, done, total, reason, position, created, attempt, events)
