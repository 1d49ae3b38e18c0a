"""Jobs and what happened to them, in one SQLite file that front and workers share, each with its own connection.

What is written here is on disk before anybody is told of it. A worker holds a job by a random claim, and every write
of a worker is made only while its claim is still the job's claim; so a worker that was given up for dead, or whose
job was cancelled, can never write into it again.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgpack

from ex4d.service.damage import damage_explained
from ex4d.service.settings import ServiceError
from ex4d_core.errors import Ex4dError
from ex4d_core.messages import FINAL_STATES, MAX_EVENTS, MAX_JOBS, JobEvent, JobStatus
from ex4d_core.reconstruction import ReconstructionRequest, request_from_wire
from ex4d_core.shot import RequestError, ShotRequest

# Marks the file as ours ("EX4D"), so that another program's database is never touched.
_APPLICATION_ID = 0x45583444
SCHEMA_VERSION = 1
# A job that takes its worker down twice would take down the third one as well.
MAX_CRASHES = 2
# Letters of a reason, which every list of jobs repeats: libraries name each of a thousand tensors that do not fit.
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
    worker TEXT
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
SELECT id, label, engine, state, stage, done, total, reason, created, attempt, events,
    CASE state WHEN 'queued' THEN
        (SELECT count(*) FROM jobs AS other WHERE other.state = 'queued' AND other.sequence < jobs.sequence)
    ELSE 0 END
FROM jobs
"""


class ClaimLost(Ex4dError, RuntimeError):
    """The job was cancelled or given to another worker; whoever gets this must drop it."""


@dataclass(frozen=True)
class ClaimedJob:
    """A job in the hands of a worker.

    Attributes:
        claim: what it must show at every write.
        request: what is to be made; None until it has been read.
    """

    job: str
    claim: str
    request: ShotRequest | ReconstructionRequest | None


class JobStore:
    """One connection to the job database; not to be shared between threads.

    Methods that take a `ClaimedJob` are a worker's, and raise `ClaimLost` once it has lost the job.
    """

    def __init__(self, path: Path):
        """Open the database, and make it when there is none.

        Raises:
            ServiceError: the file is no job database of this version, or cannot be written.
        """
        try:
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._prepare(path)
        except sqlite3.OperationalError as error:
            text = f"cannot use the job database {path}: {error}; is there room in its folder, and may it be written?"
            raise ServiceError(text) from error
        except sqlite3.Error as error:
            raise ServiceError(f"cannot use the job database {path}: {error}; move it away to begin anew") from error
        self._path = path

    def check(self) -> None:
        """Look through the whole file, which takes milliseconds for thousands of jobs.

        Raises:
            ServiceError: it is damaged.
        """
        with damage_explained(self._path):
            (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(" ".join(found.split()))

    def _prepare(self, path: Path) -> None:
        with self._transaction():
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if not tables:
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif application != _APPLICATION_ID:
                raise ServiceError(f"{path} is another program's database; choose another data folder")
            elif version != SCHEMA_VERSION:
                raise ServiceError(
                    f"the job database {path} has version {version}, this program writes {SCHEMA_VERSION}; use the "
                    "program that wrote it, or another data folder"
                )

    def close(self) -> None:
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

    # What clients ask for.

    def submit(self, key: str, request: ShotRequest | ReconstructionRequest, needs: Sequence[str]) -> str:
        """Queue a job; it is on disk when this returns.

        Args:
            key: the client's own name for it; a key that is known gives the job that has it.
            needs: hashes of the blobs that must stay until the job is over.

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
        row = self._db.execute("SELECT id FROM jobs WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def status(self, job: str) -> JobStatus | None:
        """Where a job stands; None for one that was never submitted."""
        row = self._db.execute(f"{_STATUS} WHERE id = ?", (job,)).fetchone()
        return _status(row) if row else None

    def jobs(self, limit: int = MAX_JOBS) -> list[JobStatus]:
        """The newest jobs first."""
        limit = min(max(limit, 0), MAX_JOBS)
        return [_status(row) for row in self._db.execute(f"{_STATUS} ORDER BY sequence DESC LIMIT ?", (limit,))]

    def events(self, job: str, after: int, limit: int = MAX_EVENTS) -> list[JobEvent]:
        """Events of a job with numbers above ``after``, in order."""
        rows = self._db.execute(
            "SELECT number, kind, name, idx, sha256, size FROM events "
            "WHERE job = ? AND number > ? ORDER BY number LIMIT ?",
            (job, after, limit),
        )
        return [JobEvent(*row) for row in rows]

    def cancel(self, job: str, reason: str = "cancelled on request") -> None:
        """Cancel a job unless it is over; whoever works on it has lost its claim when this returns."""
        with self._transaction():
            row = self._db.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone()
            if row and row[0] not in FINAL_STATES:
                self._enter(job, "cancelled", reason)

    def unfinished(self) -> int:
        """How many jobs are queued or running."""
        return self._db.execute("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')").fetchone()[0]

    def has_queued(self) -> bool:
        return self._db.execute("SELECT 1 FROM jobs WHERE state = 'queued' LIMIT 1").fetchone() is not None

    # What a worker does.

    def claim(self, worker: str) -> ClaimedJob | None:
        """Take the oldest queued job, or None if there is none.

        Jobs that another version of this program has queued, and that are nothing to this one, fail on the way.
        """
        while taken := self._take(worker):
            claimed, stored = taken
            try:
                return replace(claimed, request=request_from_wire(msgpack.unpackb(stored)))
            except RequestError as error:
                self.fail(claimed, f"this version of the backend cannot read its request: {error}; submit it again")
        return None

    def _take(self, worker: str) -> tuple[ClaimedJob, bytes] | None:
        """The oldest queued job, whose request is not looked at yet, and that request as it was stored."""
        claim = secrets.token_hex(8)
        with self._transaction():
            row = self._db.execute(
                "SELECT id, request FROM jobs WHERE state = 'queued' ORDER BY sequence LIMIT 1"
            ).fetchone()
            if not row:
                return None
            job, request = row
            self._enter(job, "running")
            self._db.execute(
                "UPDATE jobs SET claim = ?, worker = ?, attempt = attempt + 1 WHERE id = ?", (claim, worker, job)
            )
        return ClaimedJob(job, claim, None), request

    def set_progress(self, claimed: ClaimedJob, stage: str, done: int, total: int) -> None:
        # Progress may be lost with the power; it is not worth waiting for the disk.
        self._db.execute("PRAGMA synchronous = NORMAL")
        try:
            with self._transaction():
                self._require_claim(claimed)
                self._db.execute(
                    "UPDATE jobs SET stage = ?, done = ?, total = ?, updated = ? WHERE id = ?",
                    (stage, done, total, time.time(), claimed.job),
                )
        finally:
            self._db.execute("PRAGMA synchronous = FULL")

    def add_frame(self, claimed: ClaimedJob, index: int, sha256: str, size: int) -> bool:
        """Announce a frame, unless an earlier attempt did; returns whether it is new."""
        with self._transaction():
            self._require_claim(claimed)
            return self._add_event(claimed.job, "frame", "", index, sha256, size)

    def add_file(self, claimed: ClaimedJob, name: str, sha256: str, size: int) -> bool:
        """Announce a file, unless an earlier attempt did; returns whether it is new."""
        with self._transaction():
            self._require_claim(claimed)
            return self._add_event(claimed.job, "file", name, -1, sha256, size)

    def add_estimate(self, claimed: ClaimedJob, number: int, sha256: str, size: int) -> bool:
        """Announce a picture of what is coming, after step ``number``."""
        with self._transaction():
            self._require_claim(claimed)
            return self._add_event(claimed.job, "estimate", "", number, sha256, size)

    def finish(self, claimed: ClaimedJob) -> None:
        with self._transaction():
            self._require_claim(claimed)
            self._enter(claimed.job, "done")

    def fail(self, claimed: ClaimedJob, reason: str) -> None:
        with self._transaction():
            self._require_claim(claimed)
            self._enter(claimed.job, "failed", reason)

    # What the service does about workers that are gone.

    def worker_died(self, worker: str, reason: str) -> JobStatus | None:
        """Queue the job that a dead worker held, or fail it when it has cost `MAX_CRASHES` workers.

        Returns:
            Where the job stands now; None if the worker held none.
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
        """Queue every running job again, since all workers are gone; returns the jobs.

        Args:
            count_attempt: False after an orderly stop, which takes back the attempt that was under way.
        """
        with self._transaction():
            jobs = [row[0] for row in self._db.execute("SELECT id FROM jobs WHERE state = 'running' ORDER BY sequence")]
            for job in jobs:
                self._enter(job, "queued")
                if not count_attempt:
                    self._db.execute("UPDATE jobs SET attempt = attempt - 1 WHERE id = ?", (job,))
        return jobs

    def forget(self, ended_before: float) -> int:
        """Delete all that is known of jobs that ended before a moment (seconds since 1970); returns how many."""
        with self._transaction():
            marks = ",".join("?" * len(FINAL_STATES))
            old = f"SELECT id FROM jobs WHERE state IN ({marks}) AND updated < ?"
            for table in ("events", "needs"):
                self._db.execute(f"DELETE FROM {table} WHERE job IN ({old})", (*FINAL_STATES, ended_before))
            return self._db.execute(f"DELETE FROM jobs WHERE id IN ({old})", (*FINAL_STATES, ended_before)).rowcount

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

    def _require_claim(self, claimed: ClaimedJob) -> None:
        row = self._db.execute("SELECT claim, state FROM jobs WHERE id = ?", (claimed.job,)).fetchone()
        if row is None or row[0] != claimed.claim:
            state = row[1] if row else "gone"
            raise ClaimLost(f"job {claimed.job} is no longer this worker's; it is {state}")

    def _enter(self, job: str, state: str, reason: str = "") -> None:
        """Put a job into a state that nobody holds a claim in; `claim` adds one to "running"."""
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


def _storable(reason: str) -> str:
    """A reason that fits into every list of jobs, and that SQLite takes: a file's name may hold bytes of no UTF-8."""
    return reason[:_MAX_REASON].encode("utf-8", "replace").decode("utf-8")


def _status(row: tuple) -> JobStatus:
    job, label, engine, state, stage, done, total, reason, created, attempt, events, position = row
    return JobStatus(job, label, engine, state, stage, done, total, reason, position, created, attempt, events)
