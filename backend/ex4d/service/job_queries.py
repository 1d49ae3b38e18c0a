"""`JobQueries`: the part of the job store that reads, for clients: states, lists, events, and places in the queue.

An ``owner`` is the user who submitted a job; None, where it may be left out, stands for anybody.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from typing import Any

import msgpack

from ex4d.service.job_turns import JobTurns
from ex4d_core.errors import RequestError
from ex4d_core.job_status import FINAL_STATES, JobDetails, JobEvent, JobStatus
from ex4d_core.messages import MAX_EVENTS, MAX_JOBS
from ex4d_core.reconstruction import AnyRequest, request_from_wire

_STATUS = """
SELECT id, CAST(label AS TEXT), CAST(engine AS TEXT), state, CAST(stage AS TEXT), CAST(done AS INTEGER),
    CAST(total AS INTEGER), CAST(reason AS TEXT), CAST(created AS REAL), CAST(attempt AS INTEGER), events
FROM jobs WHERE (?1 IS NULL OR owner = ?1)
"""


class JobQueries(JobTurns):
    """Methods of `ex4d.service.job_store.JobStore`, which has the connection."""

    _db: sqlite3.Connection

    def job_of_key(self, key: str, owner: str = "") -> str | None:
        """The job that its owner submitted under a key, if any."""
        row = self._db.execute("SELECT id FROM jobs WHERE owner = ? AND key = ?", (owner, key)).fetchone()
        return row[0] if row else None

    def owner(self, job: str) -> str | None:
        """Who submitted a job; None for one that was never submitted."""
        row = self._db.execute("SELECT owner FROM jobs WHERE id = ?", (job,)).fetchone()
        return row[0] if row else None

    def status(self, job: str, owner: str | None = None) -> JobStatus | None:
        """The status of an owner's job; None for one that was never submitted."""
        found = self._statuses("AND id = ?2", owner, job)
        return found[0] if found else None

    def jobs(self, limit: int = MAX_JOBS, owner: str | None = None) -> list[JobStatus]:
        """The newest jobs first."""
        return self._statuses("ORDER BY sequence DESC LIMIT ?2", owner, min(max(limit, 0), MAX_JOBS))

    def _statuses(self, which: str, owner: str | None, value: str | int) -> list[JobStatus]:
        rows = self._db.execute(_STATUS + which, (owner, value)).fetchall()
        places = self._places() if any(row[3] == "queued" for row in rows) else {}
        return [_status(row, places) for row in rows]

    def details(self, limit: int = MAX_JOBS, owner: str | None = None) -> list[JobDetails]:
        """What the newest jobs are of, newest first."""
        rows = self._db.execute(
            "SELECT id, CAST(scene AS TEXT), digest, started, state, updated, device, owner FROM jobs "
            "WHERE (?1 IS NULL OR owner = ?1) ORDER BY sequence DESC LIMIT ?2",
            (owner, min(max(limit, 0), MAX_JOBS)),
        )
        return [
            JobDetails(job, scene, digest, started, updated * (state in FINAL_STATES), device, owner)
            for job, scene, digest, started, state, updated, device, owner in rows
        ]

    def events(self, job: str, after: int, limit: int = MAX_EVENTS) -> list[JobEvent]:
        """Events of a job with numbers above ``after``, in order."""
        rows = self._db.execute(
            "SELECT number, kind, name, idx, sha256, size FROM events "
            "WHERE job = ? AND number > ? ORDER BY number LIMIT ?",
            (job, after, limit),
        )
        return [JobEvent(*row) for row in rows]

    def result_bytes(self, job: str) -> int:
        """Bytes of all results of a job."""
        return self._db.execute("SELECT coalesce(sum(size), 0) FROM events WHERE job = ?", (job,)).fetchone()[0]

    def unfinished(self, owner: str | None = None) -> int:
        """The number of queued and running jobs."""
        counted = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running') AND (?1 IS NULL OR owner = ?1)"
        return self._db.execute(counted, (owner,)).fetchone()[0]

    def queued_requests(self, engine: str, limit: int) -> list[tuple[str, AnyRequest]]:
        """Ids and requests of the oldest queued jobs of an engine; those that cannot be read are left out."""
        rows = self._db.execute(
            "SELECT id, request FROM jobs WHERE state = 'queued' AND engine = ? ORDER BY sequence LIMIT ?",
            (engine, limit),
        )
        found = []
        for job, data in rows:
            with contextlib.suppress(RequestError):
                found.append((job, stored_request(data)))
        return found


def stored_request(data: object) -> AnyRequest:
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


def _status(row: tuple[Any, ...], places: Mapping[str, int]) -> JobStatus:
    job, label, engine, state, stage, done, total, reason, created, attempt, events = row
    # Without a place a worker has taken the job up since its row was read.
    place = places.get(job, 0)
    return JobStatus(job, label, engine, state, stage, done, total, reason, place, created, attempt, events)
