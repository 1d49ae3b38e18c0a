"""Rules between processes: claims stop a worker that lost its job, and blobs stay while they are needed."""

from __future__ import annotations

import errno
import os
import threading
import time

import msgpack
import pytest

from ex4d.media import MediaError
from ex4d.service.blob_store import BlobStore
from ex4d.service.job_store import ClaimLost, JobStore
from ex4d.service.pruning import Pruned, prune
from ex4d.service.refusals import refusal_for
from ex4d.service.settings import ServiceError, ServiceSettings


@pytest.fixture
def store(tmp_path):
    store = JobStore(tmp_path / "jobs.sqlite")
    yield store
    store.close()


def writes_of_a_worker(store, claimed):
    return [
        lambda: store.set_progress(claimed, "render", 1, 2),
        lambda: store.add_result(claimed, "frame", "", 0, "ab" * 32, 5),
        lambda: store.add_result(claimed, "file", "take.mp4", -1, "ab" * 32, 5),
        lambda: store.finish(claimed),
        lambda: store.fail(claimed, "no"),
    ]


@pytest.mark.parametrize(
    "lose",
    [
        lambda store, job: store.cancel(job),
        lambda store, job: store.worker_died("worker a", "was killed"),
        lambda store, job: store.requeue_running(count_attempt=True),
        lambda store, job: (store.requeue_running(count_attempt=True), store.claim("worker a")),
    ],
    ids=["cancelled", "given up for dead", "service restarted", "claimed again, even by a worker of the same name"],
)
def test_a_worker_that_lost_its_job_cannot_write_into_it(store, shot, lose):
    job = store.submit("key", shot(), [])
    claimed = store.claim("worker a")
    store.add_result(claimed, "frame", "", 0, "cd" * 32, 5)
    lose(store, job)
    before = store.status(job), store.events(job, 0)
    for write in writes_of_a_worker(store, claimed):
        with pytest.raises(ClaimLost):
            write()
    assert (store.status(job), store.events(job, 0)) == before


def test_a_second_attempt_announces_only_what_the_first_did_not(store, shot):
    job = store.submit("key", shot(), [])
    assert store.add_result(store.claim("a"), "frame", "", 0, "cd" * 32, 5)
    store.worker_died("a", "was killed")
    second = store.claim("b")
    assert not store.add_result(second, "frame", "", 0, "ef" * 32, 6), "made again, a little differently"
    assert store.add_result(second, "frame", "", 1, "12" * 32, 6)
    frames = [event for event in store.events(job, 0) if event.kind == "frame"]
    assert [(frame.index, frame.sha256) for frame in frames] == [(0, "cd" * 32), (1, "12" * 32)]
    numbers = [event.number for event in store.events(job, 0)]
    assert numbers == list(range(1, store.status(job).events + 1))


def test_a_job_is_claimed_by_one_worker_only(store, shot, tmp_path):
    jobs = {store.submit(f"key {number}", shot(), []) for number in range(20)}
    claimed, begin = [], threading.Barrier(4)

    def take_all() -> None:
        own = JobStore(tmp_path / "jobs.sqlite")
        begin.wait()
        while job := own.claim("worker"):
            claimed.append(job.job)
        own.close()

    threads = [threading.Thread(target=take_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 20 and set(claimed) == jobs


def test_a_job_fails_only_after_three_deaths_of_its_own(store, shot):
    job, states = store.submit("key", shot(), []), []
    for _ in range(3):
        store.claim("a")
        store.worker_died("another worker", "was killed")
        states.append(store.worker_died("a", "was killed").state)
    assert states == ["queued", "queued", "failed"]
    assert store.status(job).reason == "was killed (in 3 attempts)"


def test_the_oldest_job_comes_first_also_after_it_was_interrupted(store, shot):
    first, second = store.submit("1", shot(), []), store.submit("2", shot(), [])
    assert store.claim("a").job == first
    store.worker_died("a", "was killed")
    assert [store.claim("b").job, store.claim("b").job] == [first, second]


def test_a_request_comes_out_of_the_database_as_it_went_in(store, shot):
    request = shot("späte Fahrt")
    store.submit("key", request, [])
    claimed = store.claim("a")
    assert claimed.request.to_wire() == request.to_wire()


def test_a_queued_job_that_this_version_cannot_read_fails_and_the_next_one_is_taken(store, shot):
    foreign, good = store.submit("foreign", shot(), []), store.submit("good", shot(), [])
    newer = msgpack.packb({**shot().to_wire(), "hologram": True})
    store._db.execute("UPDATE jobs SET request = ? WHERE id = ?", (newer, foreign))
    assert store.claim("a").job == good
    status = store.status(foreign)
    assert status.state == "failed" and "hologram" in status.reason and "submit it again" in status.reason
    assert store.claim("a") is None


def test_a_full_disk_is_the_backends_own_whatever_failed_on_it(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    of_a_movie = MediaError("take.mp4: the disk is full. Choose another output folder.")
    of_a_movie.__cause__ = full
    for error in (full, of_a_movie):
        refusal = refusal_for(error, tmp_path)
        assert refusal.code == refusal.message().code == "disk-full"
        assert str(tmp_path) in str(refusal) and refusal.details["folder"] == str(tmp_path)


def put(blobs: BlobStore, data: bytes, hours_ago: float) -> str:
    path = blobs.partial / "new"
    path.write_bytes(data)
    sha256, _ = blobs.add_file(path)
    used = time.time() - hours_ago * 3600
    os.utime(blobs.path(sha256), (used, used))
    return sha256


def test_blobs_over_the_limit_go_oldest_use_first_but_not_those_that_are_needed(tmp_path):
    blobs = BlobStore(tmp_path)
    needed, oldest, old, newer, recent = (put(blobs, bytes([hours]) * 1000, hours) for hours in (50, 40, 30, 20, 0))
    assert blobs.drop_unneeded(limit_bytes=5000, needed={needed}) == 0
    assert blobs.drop_unneeded(limit_bytes=3500, needed={needed}) == 2000
    assert [blobs.size(one) for one in (needed, oldest, old, newer, recent)] == [1000, None, None, 1000, 1000]
    assert blobs.drop_unneeded(limit_bytes=0, needed={needed}) == 1000
    assert [blobs.size(one) for one in (needed, newer, recent)] == [1000, None, 1000], "used within the hour"


def test_blobs_are_needed_by_jobs_under_way_and_results_for_a_while(store, shot):
    footage, result = "ab" * 32, "cd" * 32
    store.submit("key", shot(), [footage])
    assert store.needed_blobs(finished_since=time.time()) == {footage}
    claimed = store.claim("a")
    store.add_result(claimed, "frame", "", 0, result, 5)
    assert store.needed_blobs(finished_since=time.time()) == {footage, result}
    store.finish(claimed)
    assert store.needed_blobs(finished_since=time.time() - 3600) == {result}
    assert store.needed_blobs(finished_since=time.time() + 3600) == set()


def test_jobs_that_ended_long_ago_are_forgotten_and_no_others(store, shot):
    ended, running = store.submit("ended", shot(), ["ab" * 32]), store.submit("running", shot(), ["12" * 32])
    store.finish(store.claim("a"))
    store.claim("b")
    queued = store.submit("queued", shot(), [])
    assert store.forget(ended_before=time.time() - 3600) == 0
    assert store.forget(ended_before=time.time() + 3600) == 1
    assert [store.status(job) is None for job in (ended, running, queued)] == [True, False, False]
    assert store.events(ended, 0) == [] and store.needed_blobs(finished_since=0.0) == {"12" * 32}
    assert store.submit("ended", shot(), []) != ended


def test_a_folder_is_pruned_by_age(store, shot, tmp_path):
    blobs, settings = BlobStore(tmp_path), ServiceSettings(data=tmp_path)
    result, footage, newer = (put(blobs, bytes([days]) * 1000, 24 * days) for days in (40, 35, 5))
    claimed = _submitted_and_claimed(store, shot, footage)
    store.add_result(claimed, "frame", "", 0, result, 1000)
    assert prune(settings, 30) == Pruned(0, 0), "a job under way keeps what it has, however old"
    store.finish(claimed)
    assert prune(settings, 30) == Pruned(0, 1000), "its footage; its result is kept as long as it is"
    assert prune(settings, 0) == Pruned(0, 1000), "what ended just now may be about to be fetched"
    store._db.execute("UPDATE jobs SET updated = updated - 31 * 86400")
    assert prune(settings, 30) == Pruned(1, 1000)
    assert not any(blobs.size(one) for one in (result, footage, newer))
    with pytest.raises(ServiceError, match="elsewhere has no jobs"):
        prune(ServiceSettings(data=tmp_path / "elsewhere"), 30)


def _submitted_and_claimed(store, shot, footage):
    store.submit("key", shot(), [footage])
    return store.claim("a")


def test_the_same_content_is_kept_once(tmp_path):
    blobs = BlobStore(tmp_path)
    assert put(blobs, b"one frame", 0) == put(blobs, b"one frame", 0)
    assert sum(path.is_file() for path in (tmp_path / "blobs").rglob("*")) == 1
    assert not any(blobs.partial.iterdir())
    with pytest.raises(ValueError, match=r"invalid blob name '\.\./\.\./etc/passwd'"):
        blobs.path("../../etc/passwd")


def test_a_hash_that_the_worker_knows_is_not_computed_again(tmp_path):
    """The mesh of a long clip has many gigabytes, and was hashed while it was written."""
    blobs = BlobStore(tmp_path)
    (tmp_path / "mesh.pc2").write_bytes(b"vertices")
    assert blobs.add_file(tmp_path / "mesh.pc2", "ab" * 32) == ("ab" * 32, 8)
    assert blobs.read("ab" * 32, 0, 100) == b"vertices"
