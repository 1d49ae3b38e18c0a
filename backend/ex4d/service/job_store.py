"""`JobStore`: jobs and their events in one SQLite file that front and workers share, each with its own connection.

Everything is on disk before it is announced. A worker holds a job by a random claim, and writes only while its claim is
still the job's: a worker that was declared dead, or whose job was cancelled, can never write into it again.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgpack

from ex4d.service.corrupt_database import corruption_reported
from ex4d.service.job_migrations import SCHEMA, SCHEMA_VERSION, migrate
from ex4d.service.job_queries import JobQueries, stored_request
from ex4d.service.job_tidying import JobTidying
from ex4d.service.job_turns import NEXT_JOB
from ex4d.service.settings import ServiceError
from ex4d_core.errors import Ex4dError, RequestError
from ex4d_core.job_status import FINAL_STATES, MAX_REASON, JobStatus
from ex4d_core.reconstruction import AnyRequest
from ex4d_core.stages import NO_ROOM_STAGE

# Marks the file as ours ("EX4D"), so that another program's database is never touched.
_APPLICATION_ID = 0x45583444
# A job that crashed so many workers would crash the next one as well; fewer may be the machine's fault.
MAX_CRASHES = 3
# A job under which the service or its machine went down so often is not tried again: it may be what takes them down.
MAX_DOWNS = 3
# The write-ahead log gives back what it has grown beyond this.
_MAX_WAL_BYTES = 4_000_000
_DOWN_REASON = (
    "the backend or its machine went down {downs} times while this job ran, so it is not tried again: it may need more "
    "memory than there is; look at the machine's log, then submit a smaller one, or the same again"
)
# About what the database keeps for each blob that a job needs.
_NEED_BYTES = 100


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
    """A claim, what to do, and for whom."""

    request: AnyRequest
    owner: str = ""


class QueueFullError(Ex4dError):
    """The database has no room for another request, of this user or of anybody, until queued jobs have ended."""


class JobStore(JobQueries, JobTidying):
    """One connection to the job database; threads must not share it.

    Workers call the methods that take a `Claim`, which raise `ClaimLost` once the worker has lost the job.
    """

    def __init__(self, path: Path):
        """Open the database, or create it.

        Raises:
            ServiceError: the file is not a job database, is of a newer version, or cannot be written.
        """
        try:
            new = not path.exists() or not path.stat().st_size
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None)
            # A new file must know from its first page on that it is to shrink. In another this would write.
            if new:
                self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            # A damaged text costs a few of its letters, and not every list that it is in.
            self._db.text_factory = lambda data: data.decode("utf-8", "replace")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA journal_size_limit = {_MAX_WAL_BYTES}")
            self._db.execute("PRAGMA synchronous = FULL")
            self._prepare(path)
        except sqlite3.OperationalError as error:
            text = f"cannot use the job database {path}: {error}; check the folder's free space and permissions"
            raise ServiceError(text) from error
        except sqlite3.Error as error:
            raise ServiceError(f"cannot use the job database {path}: {error}; move it away to start again") from error
        self._path = path

    def set_patience(self, seconds: float) -> None:
        """Wait for other writers this long at most, before a write fails as "locked"; 10 seconds by default."""
        self._db.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

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
                for statement in SCHEMA.split(";\n"):
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

    # For clients; `JobQueries` has what they read.

    def submit(
        self,
        key: str,
        request: AnyRequest,
        needs: Sequence[str],
        limit_bytes: float = float("inf"),
        *,
        owner: str = "",
        owner_limit_bytes: float = float("inf"),
    ) -> str:
        """Queue a job; it is on disk when this returns.

        Args:
            key: the client's own name for it; a known key of this owner returns the job that has it.
            request: what to do.
            needs: hashes of the blobs that must stay until the job has ended.
            limit_bytes: what queued and running jobs may take in the database.
            owner: the user whose job it is.
            owner_limit_bytes: what those of this owner may take.

        Returns:
            The job's id.

        Raises:
            QueueFullError: they would take more.
        """
        job, now = secrets.token_hex(8), time.time()
        packed = msgpack.packb(request.to_wire()) or b""  # which msgpack types as optional
        size = len(packed) + _NEED_BYTES * len(needs)
        with self._transaction():
            if known := self.job_of_key(key, owner):
                return known
            self._require_bytes(size, limit_bytes)
            if owner_limit_bytes < limit_bytes:
                self._require_bytes(size, owner_limit_bytes, owner)
            self._db.execute("INSERT OR IGNORE INTO turns (owner, last) VALUES (?, 0)", (owner,))
            digest = hashlib.sha256(packed).hexdigest()
            self._db.execute(
                "INSERT INTO jobs (id, owner, key, label, engine, scene, request, digest, bytes, state, created, "
                "updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
                (job, owner, key, request.label, request.engine, request.scene, packed, digest, size, now, now),
            )
            self._db.executemany("INSERT OR IGNORE INTO needs VALUES (?, ?)", [(job, sha256) for sha256 in needs])
            self._add_event(job, "state", "queued")
        return job

    def _require_bytes(self, size: int, limit: float, owner: str | None = None) -> None:
        (waiting,) = self._db.execute(
            "SELECT coalesce(sum(bytes), 0) FROM jobs WHERE ended = 0 AND (?1 IS NULL OR owner = ?1)", (owner,)
        ).fetchone()
        if waiting + size > limit:
            whose, each = ("", "") if owner is None else ("your ", " for each user")
            raise QueueFullError(
                f"the requests of {whose}queued and running jobs take {waiting / 1e6:.1f} MB, this one "
                f"{size / 1e6:.1f} MB, and the limit is {limit / 1e6:.1f} MB{each}: cancel some, wait, or raise "
                "--jobs-gb of the backend"
            )

    def cancel(self, job: str, reason: str = "cancelled on request") -> None:
        """Cancel a job unless it has ended; its worker has lost the claim when this returns."""
        with self._transaction():
            row = self._db.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone()
            if row and row[0] not in FINAL_STATES:
                self._enter(job, "cancelled", reason)

    # For workers.

    def claim(
        self, worker: str, device: str = "", free: float = float("inf"), but: Collection[str] = ()
    ) -> ClaimedJob | None:
        """Take a queued job for a worker, which runs it on a device, or None if there is none.

        `ex4d.service.job_turns` has the order. A job that ran into the full disk is passed over until the bytes that it
        needs are ``free``; so are those in ``but``. Jobs whose request this version cannot read, since another version
        queued them, fail on the way.
        """
        while True:
            with self._transaction():
                row = self._db.execute(NEXT_JOB, (free, json.dumps(list(but)))).fetchone()
                if not row:
                    return None
                self._db.execute("UPDATE turns SET last = (SELECT max(last) + 1 FROM turns) WHERE owner = ?", (row[2],))
                claim = Claim(row[0], secrets.token_hex(8))
                self._enter(claim.job, "running")
                self._db.execute(
                    "UPDATE jobs SET claim = ?, worker = ?, started = ?, device = ?, attempt = attempt + 1, stage = '' "
                    "WHERE id = ?",
                    (claim.secret, worker, time.time(), device, claim.job),
                )
            try:
                return ClaimedJob(claim.job, claim.secret, stored_request(row[1]), row[2])
            except RequestError as error:
                self.fail(claim, f"this version of the backend cannot read its request: {error}; submit it again")

    def set_progress(self, claim: Claim, stage: str, done: int, total: int) -> None:
        """Record the stage of a job, and the steps done in it."""
        # Progress may be lost with the power; it is not worth waiting for the disk.
        self._db.execute("PRAGMA synchronous = NORMAL")
        try:
            with self._transaction():
                self.require_claim(claim)
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
            self.require_claim(claim)
            return self._add_event(claim.job, kind, name, index, sha256, size)

    def put_back(self, claim: Claim, room: int, reason: str) -> None:
        """Queue a job again that ran into the full disk, which is no attempt; others may go before it.

        Args:
            claim: the worker's.
            room: bytes that must be free before it is tried again.
            reason: for people, while it waits.
        """
        with self._transaction():
            self.require_claim(claim)
            self._enter(claim.job, "queued", reason)
            self._db.execute(
                "UPDATE jobs SET room = ?, stage = ?, attempt = attempt - 1 WHERE id = ?",
                (room, NO_ROOM_STAGE, claim.job),
            )

    def finish(self, claim: Claim) -> None:
        """End a job that is done."""
        with self._transaction():
            self.require_claim(claim)
            self._enter(claim.job, "done")

    def fail(self, claim: Claim, reason: str) -> None:
        """End a job that failed; the reason is for people."""
        with self._transaction():
            self.require_claim(claim)
            self._enter(claim.job, "failed", reason)

    # For the service, about workers that have ended.

    def worker_died(self, worker: str, reason: str, *, count: bool = True) -> JobStatus | None:
        """Queue the job that a dead worker held, or fail it when it has crashed `MAX_CRASHES` workers.

        Args:
            worker: its name.
            reason: why it died.
            count: False where the job is not to blame: it loses no attempt then.

        Returns:
            The job's status; None if the worker held none.
        """
        with self._transaction():
            row = self._db.execute(
                "SELECT id, crashes FROM jobs WHERE state = 'running' AND worker = ?", (worker,)
            ).fetchone()
            if not row:
                return None
            job, crashes = row[0], row[1] + count
            self._db.execute(
                "UPDATE jobs SET crashes = ?, attempt = attempt - ? WHERE id = ?", (crashes, 0 if count else 1, job)
            )
            if crashes < MAX_CRASHES:
                self._enter(job, "queued")
            else:
                self._enter(job, "failed", f"{reason} (in {crashes} attempts)")
        return self.status(job)

    def requeue_running(self, *, count_attempt: bool) -> list[str]:
        """Queue every running job again, since all workers have ended; returns the jobs.

        A job under which the service went down `MAX_DOWNS` times fails: it runs from before its work begins until its
        end is on disk, so that not even a power cut goes uncounted.

        Args:
            count_attempt: False after an orderly stop, which does not count as an attempt.
        """
        with self._transaction():
            running = self._db.execute(
                "SELECT id, downs FROM jobs WHERE state = 'running' ORDER BY sequence"
            ).fetchall()
            for job, downs in running:
                if not count_attempt:
                    self._enter(job, "queued")
                    self._db.execute("UPDATE jobs SET attempt = attempt - 1 WHERE id = ?", (job,))
                elif downs + 1 < MAX_DOWNS:
                    self._enter(job, "queued")
                    self._db.execute("UPDATE jobs SET downs = downs + 1 WHERE id = ?", (job,))
                else:
                    self._enter(job, "failed", _DOWN_REASON.format(downs=downs + 1))
        return [job for job, _ in running]

    def require_claim(self, claim: Claim) -> None:
        """Raise `ClaimLost` unless the job is still this worker's."""
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
        if state in FINAL_STATES:
            # Its request may have megabytes, and nobody needs it any more.
            self._db.execute("DELETE FROM needs WHERE job = ?", (job,))
            self._db.execute("UPDATE ends SET count = count + 1")
            # A clock that is wrong for a moment must not end it before it was submitted, and so be forgotten at once.
            self._db.execute(
                "UPDATE jobs SET ended = (SELECT count FROM ends), request = x'', updated = max(updated, created) "
                "WHERE id = ?",
                (job,),
            )

    def _add_event(self, job: str, kind: str, name: str, index: int = -1, sha256: str = "", size: int = 0) -> bool:
        added = self._db.execute(
            "INSERT OR IGNORE INTO events SELECT id, events + 1, ?, ?, ?, ?, ? FROM jobs WHERE id = ?",
            (kind, name, index, sha256, size, job),
        ).rowcount
        if added:
            self._db.execute("UPDATE jobs SET events = events + 1, updated = ? WHERE id = ?", (time.time(), job))
        return bool(added)


def _storable(reason: str) -> str:
    """A reason short enough for lists of jobs, and valid UTF-8 for SQLite: a file's name may be anything."""
    return reason[:MAX_REASON].encode("utf-8", "replace").decode("utf-8")
