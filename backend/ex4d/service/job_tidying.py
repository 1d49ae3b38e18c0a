"""`JobTidying`: the part of the job store that forgets finished jobs and gives their space back to the disk.

All of it works in slices, each a short transaction with a pause after it: any other writer, above all the
service for a client, waits for one slice at most.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

# Rows, or pages, in one slice: some milliseconds.
SLICE_JOBS = 100
SLICE_ROWS = 2000
_SLICE_PAGES = 256
# Free pages that stay for the next jobs, 1 MB.
_SPARE_PAGES = 256
_LEAST_PAUSE_SECONDS = 0.001

_DETAILS = (("events", "number"), ("needs", "sha256"))


class JobTidying:
    """Methods of `ex4d.service.job_store.JobStore`, which has the connection and the transactions."""

    _db: sqlite3.Connection
    _transaction: Callable[[], AbstractContextManager[None]]

    def ends(self) -> int:
        """How many jobs have ended since the database exists; the n-th to end has the number n, whatever the clock."""
        return self._db.execute("SELECT count FROM ends").fetchone()[0]

    def forget(self, ended_before: float = float("inf"), up_to: int | None = None) -> int:
        """Delete all records of finished jobs, those that ended first before others.

        Args:
            ended_before: only jobs that ended before this time by the clock, in seconds since 1970.
            up_to: only jobs whose end has this number (see `ends`) or a lower one.

        Returns:
            The number of jobs.
        """
        forgotten = 0
        with self._without_waiting():
            while True:
                jobs, _ = self._forget_some(ended_before, 2**62 if up_to is None else up_to, SLICE_JOBS)
                forgotten += jobs
                if jobs < SLICE_JOBS:
                    return forgotten

    def forget_while(self, over: Callable[[], bool], step: int) -> int:
        """Delete records of finished jobs while they are ``over`` a limit; returns the number of jobs.

        It is the owner with the most records who forgets the jobs that ended first, ``step`` of them at a time.
        """
        counted = "SELECT owner, sum(events + 1) FROM jobs WHERE ended > 0 GROUP BY owner"
        forgotten, records = 0, dict(self._db.execute(counted)) if over() else {}
        with self._without_waiting():
            while records and over():
                owner = max(records, key=lambda one: records[one])
                jobs, deleted = self._forget_some(float("inf"), 2**62, step, owner)
                forgotten += jobs
                records[owner] -= deleted
                if jobs < step:
                    del records[owner]
        return forgotten

    def _forget_some(self, ended_before: float, up_to: int, limit: int, owner: str | None = None) -> tuple[int, int]:
        """Returns the numbers of jobs and of records deleted."""
        self._finish_forgetting()  # what an earlier process was killed in
        with self._slice():
            rows = self._db.execute(
                "SELECT id, events + 1 FROM jobs WHERE ended > 0 AND ended <= ? AND updated < ? "
                "AND (?4 IS NULL OR owner = ?4) ORDER BY ended LIMIT ?3",
                (up_to, ended_before, limit, owner),
            ).fetchall()
            jobs = [(job,) for job, _ in rows]
            self._db.executemany("INSERT OR IGNORE INTO forgotten VALUES (?)", jobs)
            self._db.executemany("DELETE FROM jobs WHERE id = ?", jobs)
        self._finish_forgetting()
        return len(rows), sum(records for _, records in rows)

    @contextmanager
    def _without_waiting(self) -> Iterator[None]:
        """What a power cut brings back is forgotten by the next tidying; it is not worth waiting for the disk."""
        self._db.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            self._db.execute("PRAGMA synchronous = FULL")

    def forgettable(self, ended_before: float) -> int:
        """The number of jobs that `forget` would delete."""
        counted = "SELECT count(*) FROM jobs WHERE ended > 0 AND updated < ?"
        return self._db.execute(counted, (ended_before,)).fetchone()[0]

    def needed_blobs(self, finished_since: float = float("inf"), owner: str | None = None) -> set[str]:
        """Hashes that queued and running jobs need, and results of those that ended after ``finished_since``.

        Only of an owner's jobs, if one is given.
        """
        inputs = self._db.execute(
            "SELECT sha256 FROM needs JOIN jobs ON jobs.id = needs.job WHERE ended = 0 AND (?1 IS NULL OR owner = ?1)",
            (owner,),
        )
        needed = {row[0] for row in inputs}
        results = self._db.execute(
            "SELECT sha256 FROM jobs CROSS JOIN events ON jobs.id = events.job "
            "WHERE kind <> 'state' AND (ended = 0 OR updated > ?) AND (?2 IS NULL OR owner = ?2)",
            (finished_since, owner),
        )
        return needed.union(row[0] for row in results)

    def results(self, owner: str) -> dict[str, int]:
        """The results of an owner's finished jobs: for each blob the number of the end (see `ends`) of the last one."""
        return dict(
            self._db.execute(
                "SELECT sha256, max(ended) FROM jobs CROSS JOIN events ON jobs.id = events.job "
                "WHERE kind <> 'state' AND ended > 0 AND owner = ? GROUP BY sha256",
                (owner,),
            )
        )

    def used_bytes(self) -> int:
        """Bytes of records; the file also has free pages, until `shrink`."""
        pages, free, size = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def shrink(self) -> None:
        """Give the free pages of the file back to the disk."""
        while self._db.execute("PRAGMA freelist_count").fetchone()[0] > _SPARE_PAGES:
            with self._paused():
                # As a script: Python's cursors stop after the first page of a statement without columns.
                self._db.executescript(f"PRAGMA incremental_vacuum({_SLICE_PAGES})")
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def make_shrinkable(self) -> None:
        """Rewrite a file of before version 3, which cannot shrink, once; nobody else may use it meanwhile.

        Raises:
            sqlite3.OperationalError: the disk has no room for it; the file works as before.
        """
        if self._db.execute("PRAGMA auto_vacuum").fetchone()[0] == 0:
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._db.execute("VACUUM")

    def _finish_forgetting(self) -> None:
        """Delete what belongs to jobs that are gone; one job may have a hundred thousand events."""
        while jobs := self._db.execute("SELECT job FROM forgotten LIMIT ?", (SLICE_JOBS,)).fetchall():
            with self._slice():
                left = SLICE_ROWS
                for job in jobs:
                    for table, key in _DETAILS:
                        some = f"SELECT {key} FROM {table} WHERE job = ? LIMIT ?"
                        deleted = f"DELETE FROM {table} WHERE job = ? AND {key} IN ({some})"
                        left -= self._db.execute(deleted, (*job, *job, left)).rowcount
                    if left <= 0:
                        break
                    self._db.execute("DELETE FROM forgotten WHERE job = ?", job)

    @contextmanager
    def _slice(self) -> Iterator[None]:
        with self._paused(), self._transaction():
            yield

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Leave the database to others for as long as the block used it: SQLite's lock knows no queue."""
        begun = time.monotonic()
        yield
        time.sleep(max(time.monotonic() - begun, _LEAST_PAUSE_SECONDS))
