"""What a service keeps: bounds in bytes for blobs and for the job database, and ages that no wrong clock can fake."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from contextlib import closing

import pytest

from ex4d.service.blob_store import BlobStore
from ex4d.service.inbox import Inbox
from ex4d.service.job_store import JobStore, QueueFullError
from ex4d.service.job_tidying import SLICE_JOBS, SLICE_ROWS
from ex4d.service.pruning import Tidying, used
from ex4d.service.settings import ServiceSettings
from ex4d.service.uploads import Uploads
from ex4d_core.messages import Error, GetEvents, Hello

DAY = 86_400.0


@pytest.fixture
def store(tmp_path):
    with closing(JobStore(tmp_path / "jobs.sqlite")) as store:
        store._db.execute("PRAGMA synchronous = OFF")  # thousands of rows
        yield store


class Clocks:
    """A wall clock that may jump, and a steady one."""

    def __init__(self):
        self.wall, self.steady = time.time(), 1000.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def tidying(self, settings: ServiceSettings) -> Tidying:
        return Tidying(settings, lambda: self.wall, lambda: self.steady)


@pytest.fixture
def clocks(monkeypatch):
    clocks = Clocks()
    monkeypatch.setattr("ex4d.service.job_store.time.time", lambda: clocks.wall)
    return clocks


def finished(store, shot, key, results=0):
    """A job that is done, with results that have distinct hashes."""
    job = store.submit(key, shot(), [])
    claimed = store.claim("a")
    for index in range(results):
        store.add_result(claimed, "frame", "", index, f"{hash((key, index)) & (2**64 - 1):064x}", 5)
    store.finish(claimed)
    return job


def put(blobs, data, hours_ago):
    path = blobs.partial / "new"
    path.write_bytes(data)
    sha256, _ = blobs.add_file(path)
    used_at = time.time() - hours_ago * 3600
    os.utime(blobs.path(sha256), (used_at, used_at))
    return sha256


def test_results_of_finished_jobs_go_when_the_blobs_are_over_their_limit_the_oldest_job_first(store, shot, tmp_path):
    blobs, settings = BlobStore(tmp_path), ServiceSettings(data=tmp_path, cache_gb=3000e-9)
    made = []
    for number, hours in enumerate((40, 30, 20)):
        claimed = (store.submit(str(number), shot(), []), store.claim("a"))[1]
        # The first result of each was made long before the last.
        made.append([put(blobs, bytes([number, part]) * 500, hours + 20 * (1 - part)) for part in range(2)])
        for index, sha256 in enumerate(made[-1]):
            store.add_result(claimed, "frame", "", index, sha256, 1000)
        store.finish(claimed)
    running = put(blobs, b"r" * 1000, 100)
    store.submit("running", shot(), [running])
    assert Tidying(settings).run().bytes == 4000
    assert [[blobs.size(one) for one in job] for job in made] == [[None] * 2, [None] * 2, [1000] * 2]
    assert blobs.size(running) == 1000, "a queued job needs it"
    assert used(settings).blobs == 3000
    assert Tidying(settings).run().bytes == 0


def test_an_upload_that_nobody_continues_is_given_up_after_a_week(tmp_path, store, clocks):
    blobs, settings, inbox = BlobStore(tmp_path), ServiceSettings(data=tmp_path), Inbox()
    for name, days in (("ab", 8), ("cd", 6), ("ef", -400)):
        path = blobs.partial / (name * 32)
        path.write_bytes(bytes(300_000))
        os.utime(path, (clocks.wall - days * DAY, clocks.wall - days * DAY))
    with closing(inbox):
        uploads = Uploads(blobs, inbox, 0)  # A service that starts again is no use of them.
        tidying = clocks.tidying(settings)
        assert uploads.received("ab" * 32) == 262_144
        assert tidying.run().bytes == 0, "the clock may still be wrong"
        clocks.pass_(3601)
        clocks.wall += 3000 * DAY
        assert tidying.run().bytes == 262_144, "a clock that jumped makes no other one old"
        clocks.wall -= 3000 * DAY
        assert tidying.run().bytes == 0
        assert sorted(path.name[:2] for path in blobs.partial.iterdir()) == ["cd", "ef"]
        assert uploads.received("ab" * 32) == 0, "it can begin again"


def test_the_job_database_stays_within_its_bytes_and_its_file_shrinks(store, shot, tmp_path):
    jobs = [finished(store, shot, str(number), results=400) for number in range(60)]
    path = tmp_path / "jobs.sqlite"
    full = store.used_bytes()
    settings = ServiceSettings(data=tmp_path, jobs_gb=full / 4 / 1e9)
    before = used(settings).jobs
    assert before >= full
    forgotten = Tidying(settings).run().jobs
    assert store.used_bytes() <= full / 4
    assert 0 < forgotten < 60 and [store.status(job) is None for job in jobs] == [True] * forgotten + [False] * (
        60 - forgotten
    ), "the oldest first"
    assert path.stat().st_size < full / 4 + 1.5e6 < full, "a little is left for the next jobs"
    assert used(settings).jobs < before


def test_an_old_database_is_made_shrinkable_once(tmp_path):
    path = tmp_path / "jobs.sqlite"
    JobStore(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA auto_vacuum = NONE")
        old.execute("VACUUM")
    with closing(JobStore(path)) as store:
        assert store._db.execute("PRAGMA auto_vacuum").fetchone() == (0,)
        store.make_shrinkable()
        assert store._db.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_a_finished_job_keeps_no_request_and_what_waits_is_bounded(store, shot):
    first = store.submit("first", shot("x" * 100), ["ab" * 32])
    digest = store.details()[0].request
    (size,) = store._db.execute("SELECT bytes FROM jobs").fetchone()
    with pytest.raises(QueueFullError, match="--jobs-gb"):
        store.submit("second", shot("x" * 100), ["ab" * 32], limit_bytes=2 * size - 1)
    assert store.submit("first", shot(), [], limit_bytes=0) == first, "it is in the queue already"
    store.finish(store.claim("a"))
    assert store._db.execute("SELECT length(request) FROM jobs").fetchone() == (0,)
    assert store._db.execute("SELECT count(*) FROM needs").fetchone() == (0,)
    assert store.details()[0].request == digest != ""
    assert store.submit("second", shot("x" * 100), ["ab" * 32], limit_bytes=2 * size - 1)


def test_forgetting_takes_the_database_for_a_few_rows_at_a_time(store, shot, monkeypatch):
    """A client that submits meanwhile waits for one of the slices."""
    for number in range(420):
        finished(store, shot, str(number), results=3 if number else 5000)
    slices = []

    def trace(statement: str) -> None:
        if statement.startswith("COMMIT"):
            slices.append(store._db.total_changes)

    pauses = []
    monkeypatch.setattr("ex4d.service.job_tidying.time.sleep", pauses.append)
    before = store._db.total_changes
    store._db.set_trace_callback(trace)
    assert store.forget() == 420
    store._db.set_trace_callback(None)
    changes = [after - earlier for earlier, after in zip([before, *slices], slices, strict=False)]
    assert max(changes) <= SLICE_ROWS + SLICE_JOBS
    assert len(pauses) >= len(changes) - 1 and min(pauses) > 0, "others may write between two of them"
    assert store._db.execute("SELECT count(*) FROM events").fetchone() == (0,)


def test_forgetting_that_was_killed_is_finished_by_the_next(store, shot, monkeypatch):
    kept = finished(store, shot, "kept", results=3)
    job = finished(store, shot, "forgotten", results=10)
    with store._transaction():
        store._db.execute("INSERT INTO forgotten VALUES (?)", (job,))
        store._db.execute("DELETE FROM jobs WHERE id = ?", (job,))
    assert store.forget(ended_before=0.0) == 0
    assert store.events(job, 0) == [] and len(store.events(kept, 0)) == 6


def test_a_clock_that_is_wrong_for_a_moment_forgets_no_job(store, shot, tmp_path, clocks):
    settings = ServiceSettings(data=tmp_path, keep_days=30)
    earlier = finished(store, shot, "earlier")
    tidying = clocks.tidying(settings)
    clocks.pass_(7200)
    later = finished(store, shot, "later")
    for jump in (3650 * DAY, -3650 * DAY):
        clocks.wall += jump
        during = finished(store, shot, f"during {jump}")
        assert tidying.run().jobs == 0
        clocks.wall -= jump
        assert tidying.run().jobs == 0
        assert store.status(during)
    assert store.status(earlier) and store.status(later)

    # Days without jumps do count, for all of them.
    clocks.pass_(20 * DAY)
    assert tidying.run().jobs == 0
    clocks.pass_(11 * DAY)
    assert tidying.run().jobs == 4


def test_a_service_that_starts_with_a_wrong_clock_forgets_no_job_either(store, shot, tmp_path, clocks):
    settings = ServiceSettings(data=tmp_path, keep_days=30)
    finished(store, shot, "job")
    clocks.pass_(DAY)
    clocks.wall += 3650 * DAY
    tidying = clocks.tidying(settings)
    assert tidying.run().jobs == 0
    clocks.pass_(60)
    clocks.wall -= 3650 * DAY  # The network corrects it.
    clocks.pass_(7200)
    assert tidying.run().jobs == 0


def test_old_jobs_of_an_earlier_service_are_forgotten_and_so_are_those_of_the_future(store, shot, tmp_path, clocks):
    settings = ServiceSettings(data=tmp_path, keep_days=30)
    old = finished(store, shot, "old")
    clocks.wall += 3650 * DAY
    future = finished(store, shot, "future")
    clocks.wall -= 3650 * DAY
    clocks.pass_(31 * DAY)
    tidying = clocks.tidying(settings)
    clocks.pass_(7200)
    assert tidying.run().jobs == 1
    assert store.status(old) is None and store.status(future)
    clocks.pass_(31 * DAY)
    assert tidying.run().jobs == 1, "it is old by the time since the start alone"


def test_a_blob_with_a_time_in_the_future_is_not_kept_for_ever(tmp_path):
    blobs = BlobStore(tmp_path)
    future = put(blobs, bytes(1000), -24 * 400)
    assert blobs.drop_unneeded(limit_bytes=0, needed=set()) == 1000
    assert blobs.size(future) is None


def test_the_limits_are_in_the_log_of_a_starting_service(start_service):
    service = start_service(cache_gb=7, jobs_gb=0.5)
    line = service.wait_for_log("footage and results take").string
    assert re.search(r"limit 7 GB, --cache-gb.*limit 0.5 GB, --jobs-gb", line)


def test_the_file_shrinks_in_few_slices(store, shot, monkeypatch):
    """Each gives many pages back, not one."""
    finished(store, shot, "job", results=8_000)
    store.forget()
    pauses = []
    monkeypatch.setattr("ex4d.service.job_tidying.time.sleep", pauses.append)
    free = store._db.execute("PRAGMA freelist_count").fetchone()[0]
    store.shrink()
    left = store._db.execute("PRAGMA freelist_count").fetchone()[0]
    assert left <= 256 < free and len(pauses) == -(-(free - 256) // 256)


def test_a_job_that_is_forgotten_while_a_client_waits_for_it_costs_only_the_answer(
    start_service, connect, scene, shot, tmp_path
):
    service = start_service()
    wire, go = connect(service), tmp_path / "go"
    wire.upload_scene(scene)
    job = wire.submit(shot(f"wait {go}"))
    wire.wait_for_half(job)
    wire.send(GetEvents(job, wire.ask(GetEvents(job)).status.events, wait=10.0))
    connect(service).ask(Hello())  # by now it waits
    with closing(JobStore(service.data / "jobs.sqlite")) as store:
        store.cancel(job)
        assert store.forget() == 1, "as tidying does where the database is over its limit"
    go.touch()
    _, reply = wire.receive()
    assert isinstance(reply, Error) and reply.code == "unknown-job"
    assert wire.ask(Hello()).service == "ex4d" and service.process.poll() is None


def test_a_full_database_is_left_with_room_so_that_the_next_job_needs_no_tidying(store, shot, tmp_path):
    for number in range(60):
        finished(store, shot, str(number), results=100)
    settings = ServiceSettings(data=tmp_path, jobs_gb=store.used_bytes() / 2 / 1e9)
    Tidying(settings).run()
    assert store.used_bytes() < 0.95 * settings.jobs_gb * 1e9


def test_what_is_remembered_of_blobs_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("ex4d.service.blob_store._MAX_VERIFIED", 10)
    blobs = BlobStore(tmp_path)
    hashes = [put(blobs, bytes([number]) * 100, 0) for number in range(30)]
    assert len(blobs._verified) == 10
    assert all(blobs.verify(one) for one in hashes) and len(blobs._verified) == 10
