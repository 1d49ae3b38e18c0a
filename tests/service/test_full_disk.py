"""A full disk: the queue pauses and says so, no job fails, and all of them end done once there is room."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import threading
import time
from collections import namedtuple
from contextlib import closing

import pytest

from ex4d.media import MediaError
from ex4d.service.disk_room import DiskRoom
from ex4d.service.job_store import JobStore
from ex4d_core.errors import RequestError
from ex4d_core.messages import Error, Hello, ListJobs
from ex4d_core.stages import NO_ROOM_STAGE

from .test_lost_processes import wait_for_end

JOBS = 30


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 24 MB and 2000 files; needs root."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,nr_inodes=2000", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_bytes(folder):
    """Leave nothing of it."""
    with open(folder / "ballast", "wb", buffering=0) as ballast:
        size = 1_000_000
        while size:
            try:
                if ballast.write(bytes(size)) < size:
                    size //= 2
            except OSError:
                size //= 2


def fill_files(folder):
    """Leave its bytes, but no file."""
    (folder / "ballast").mkdir()
    with pytest.raises(OSError, match="space"):
        for number in range(10_000):
            (folder / "ballast" / str(number)).touch()


@pytest.mark.parametrize("fill", [fill_bytes, fill_files])
def test_thirty_jobs_wait_for_room_and_all_end_done(start_service, connect, scene, shot, small_disk, tmp_path, fill):
    service = start_service(data=small_disk / "data")
    wire = connect(service)
    wire.upload_scene(scene)
    go = tmp_path / "go"
    jobs = [wire.submit(shot(f"bulk {go}")), *(wire.submit(shot(f"bulk {go}")) for _ in range(JOBS - 1))]
    wire.wait_for_half(jobs[0])
    workers = service.worker_pids()
    fill(small_disk)
    go.touch()
    service.wait_for_log("the queue is paused")

    # Everybody is told, and nobody has failed.
    while (last := wire.ask(ListJobs(limit=1)).jobs[0]).stage != NO_ROOM_STAGE:
        time.sleep(0.05)
    assert last.state == "queued" and str(small_disk) in last.reason
    assert all(f"paused: {small_disk}" in device for device in wire.ask(Hello()).devices)
    assert {one.state for one in wire.ask(ListJobs()).jobs} <= {"queued", "running"}

    subprocess.run(["rm", "-r", str(small_disk / "ballast")], check=True)
    ended = [wire.finish(job)[0] for job in jobs]
    assert [(one.state, one.attempt) for one in ended] == [("done", 1)] * JOBS
    assert service.worker_pids() == workers, "no worker has died of it"
    service.wait_for_log("there is room again")
    while any("paused" in device for device in wire.ask(Hello()).devices):
        time.sleep(0.05)


@pytest.mark.parametrize("fill", [fill_bytes, fill_files])
def test_a_service_that_cannot_open_its_database_listens_and_says_so(start_service, connect, small_disk, fill):
    service = start_service(data=small_disk / "data")
    assert service.stop() == 0
    for name in ("jobs.sqlite-wal", "jobs.sqlite-shm"):
        assert not (service.data / name).exists(), "which an orderly end removes, and a start makes again"
    fill(small_disk)
    service.start()
    service.wait_for_log("the service waits for room")
    wire = connect(service)
    assert all(f"paused: {small_disk}" in device for device in wire.ask(Hello()).devices)
    refused = wire.ask(ListJobs())
    assert refused.code == "disk-full" and "job database" in refused.text
    subprocess.run(["rm", "-r", str(small_disk / "ballast")], check=True)
    while isinstance(wire.ask(ListJobs()), Error):
        time.sleep(0.05)
    assert service.stop() == 0


def test_a_service_that_waits_for_room_ends_when_asked(start_service, small_disk):
    service = start_service(data=small_disk / "data")
    service.stop()
    fill_bytes(small_disk)
    service.start()
    service.wait_for_log("the service waits for room")
    assert service.stop() == 0


def test_a_service_that_starts_on_a_full_disk_waits_for_room(start_service, connect, scene, shot, small_disk, tmp_path):
    service = start_service(data=small_disk / "data")
    wire = connect(service)
    wire.upload_scene(scene)
    job = wire.submit(shot(f"wait {tmp_path / 'go'}"))
    wire.wait_for_half(job)
    workers = service.worker_pids()
    service.kill()
    service.log = []
    for worker in workers:
        wait_for_end(worker)
    fill_bytes(small_disk)
    (tmp_path / "go").touch()
    starting = threading.Thread(target=service.start)
    starting.start()
    while not any("waits for room" in line or "cannot continue" in line for line in service.log):
        time.sleep(0.05)
    (small_disk / "ballast").unlink()
    starting.join()
    wire = connect(service)
    assert wire.finish(job)[0].state == "done"


def test_a_job_that_is_too_large_for_the_disk_lets_others_pass(start_service, connect, scene, shot, small_disk):
    service = start_service(data=small_disk / "data")
    wire = connect(service)
    wire.upload_scene(scene)
    large, small = wire.submit(shot("bulky")), wire.submit(shot("good"))
    assert wire.finish(small)[0].state == "done"
    status = wire.ask(ListJobs()).jobs[1]
    assert (status.job, status.state, status.stage) == (large, "queued", NO_ROOM_STAGE)
    assert str(small_disk) in status.reason, "it says which disk"
    assert not any("paused" in device for device in wire.ask(Hello()).devices), "the queue is not"
    assert wire.cancel(large).state == "cancelled"


Statvfs = namedtuple("Statvfs", "f_files f_favail")


def test_room_is_bytes_and_files(tmp_path, monkeypatch):
    room = DiskRoom(tmp_path, 400e6)
    assert room.least == 100e6, "a part of what uploads leave free"
    usage = namedtuple("Usage", "total used free")
    for free, files, expected in [
        (200e6, Statvfs(1000, 500), ""),
        (200e6, Statvfs(0, 0), ""),  # file systems without a limit say so with zeros
        (50e6, Statvfs(1000, 500), "50 MB"),
        (200e6, Statvfs(1000, 3), "3 more files"),
    ]:
        monkeypatch.setattr("shutil.disk_usage", lambda folder, free=free: usage(1e9, 1e9 - free, free))
        monkeypatch.setattr("os.statvfs", lambda folder, files=files: files, raising=False)
        assert bool(room.problem()) == bool(expected) and expected in room.problem()
        assert room.free() == (0 if "files" in expected else free)


def test_errors_of_a_full_disk_are_told_from_others(tmp_path, monkeypatch):
    room = DiskRoom(tmp_path)
    monkeypatch.setattr(room, "problem", lambda: "")
    movie = MediaError("take.mp4: the disk is full")
    movie.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    quota, full = OSError(errno.EDQUOT, "Quota exceeded"), sqlite3.OperationalError("database or disk is full")
    assert all(room.is_lacking(error) for error in (movie, quota, full))
    limit = OSError(errno.EFBIG, "File too large")
    others = [limit, RuntimeError("shapes differ"), sqlite3.OperationalError("disk I/O error"), RequestError("no")]
    assert not any(room.is_lacking(error) for error in others)
    monkeypatch.setattr(room, "problem", lambda: "the disk is full")
    assert [room.is_lacking(error) for error in others] == [False, True, True, False]


def test_a_job_that_waits_for_room_is_passed_over_until_there_is(tmp_path, shot):
    with closing(JobStore(tmp_path / "jobs.sqlite")) as store:
        large, small = store.submit("large", shot(), []), store.submit("small", shot(), [])
        store.put_back(store.claim("a"), 5_000, "needs room")
        status = store.status(large)
        assert (status.state, status.attempt, status.stage, status.reason) == ("queued", 0, NO_ROOM_STAGE, "needs room")
        assert store.claim("a", free=4_999).job == small
        assert store.claim("b", free=4_999) is None
        assert store.claim("b", free=5_000).job == large
        assert (store.status(large).stage, store.status(large).attempt) == ("", 1)


def test_a_death_on_a_full_disk_is_not_the_jobs_fault(tmp_path, shot):
    with closing(JobStore(tmp_path / "jobs.sqlite")) as store:
        store.submit("key", shot(), [])
        for _ in range(5):
            store.claim("a")
            assert store.worker_died("a", "was killed by SIGBUS", count=False).state == "queued"
