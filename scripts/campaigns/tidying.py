"""A service forgets tens of thousands of jobs, and deletes their results, while a client greets it all the time."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from campaigns.greeter import greeted
from campaigns.outcome import Outcome
from campaigns.service import PATIENCE, Service, shot, workplace, write_scene
from campaigns.usage import Usage
from ex4d.service.job_store import JobStore

_EVENTS = 10
_LEFT_BYTES = 400_000
_LOOK_SECONDS = 0.2
# The list of the results to delete takes some memory, which the allocator keeps.
_MEGABYTES_FOR_A_THOUSAND_JOBS = 3.0


def run(seed: int, count: int) -> Outcome:
    """Prepare a data folder with ``count`` finished jobs over the limits, and start a service there."""
    choices, outcome = random.Random(seed), Outcome()
    with workplace() as folder:
        data = folder / "data"
        data.mkdir()
        request = shot(write_scene(folder / "scene"), "old")
        with closing(JobStore(data / "jobs.sqlite")) as store:
            store.submit("key", request, [])
            claim = store.claim("worker")
            assert claim
            for index in range(_EVENTS):
                store.add_result(claim, "frame", "", index, "ab" * 32, 1)
            store.finish(claim)
            full = _copy_job(data / "jobs.sqlite", claim.job, count, choices)
        service = Service(folder, jobs_gb=_LEFT_BYTES / 1e9)
        try:
            with greeted(service.address) as greetings:
                before, begun = Usage.of(service), time.monotonic()
                left = _wait_until_tidied(data / "jobs.sqlite")
                seconds = time.monotonic() - begun
            grown = (Usage.of(service).memory - before.memory) / 1e6
        finally:
            service.stop()
        outcome.require(not service.tracebacks(), f"tracebacks in the log: {service.tracebacks()[:3]}")
        outcome.require(0 < left < count, f"{left} of {count} jobs are left")
        most = 20 + _MEGABYTES_FOR_A_THOUSAND_JOBS * count / 1000
        outcome.require(grown < most, f"the service grew by {grown:.0f} MB")
        outcome.figures = {
            "jobs": count,
            "MB of the database before": round(full / 1e6, 1),
            "forgotten": count - left,
            "seconds of tidying": round(seconds, 1),
            "MB that the service grew by": round(grown, 1),
            **{f"Hello: {name}": value for name, value in greetings.items()},
        }
    return outcome


def _copy_job(database: Path, job: str, count: int, choices: random.Random) -> int:
    """Copy a finished job with its events until there are ``count``; returns the bytes of the database."""
    with closing(sqlite3.connect(database)) as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(jobs)") if row[1] != "sequence"]
        values = dict(zip(columns, db.execute(f"SELECT {', '.join(columns)} FROM jobs").fetchone(), strict=True))
        events = db.execute("SELECT * FROM events WHERE job = ?", (job,)).fetchall()
        places = ", ".join("?" * len(columns))
        for number in range(2, count + 1):
            name = f"{choices.getrandbits(64):016x}"
            row = {**values, "id": name, "key": str(number), "ended": number}
            db.execute(f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({places})", [row[one] for one in columns])
            hashes = (hashlib.sha256(f"{name} {index}".encode()).hexdigest() for index in range(len(events)))
            copies = [[name, *one[1:]] for one in events]
            for copy, sha256 in zip(copies, hashes, strict=True):
                copy[5] = sha256
            db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", copies)
        db.execute("UPDATE ends SET count = ?", (count,))
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return database.stat().st_size


def _wait_until_tidied(database: Path) -> int:
    """Wait until the records are within their limit and the file has shrunk; returns how many jobs are left."""
    deadline = time.monotonic() + PATIENCE
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=PATIENCE)) as db:
        while time.monotonic() < deadline:
            pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in _PRAGMAS)
            if (pages - free) * size <= _LEFT_BYTES and free <= 256:
                return db.execute("SELECT count(*) FROM jobs").fetchone()[0]
            time.sleep(_LOOK_SECONDS)
    raise TimeoutError(f"the service has not tidied its database within {PATIENCE:.0f} s")


_PRAGMAS = ("page_count", "freelist_count", "page_size")
