"""Logs of processes that run for months, and of libraries that print a line at every step, stay short."""

from __future__ import annotations

import logging
import os

import pytest

from ex4d.service import logs
from ex4d.service.processes import shorten_log

MEGABYTE = 1_000_000


def test_a_long_log_is_emptied_while_a_process_appends_to_it_and_its_end_is_kept(tmp_path):
    path = tmp_path / "live-view.log"
    assert not shorten_log(path), "there is none yet"
    with open(path, "ab", buffering=0) as log:
        log.write(MEGABYTE * b"a")
        assert not shorten_log(path)
        log.write(b"the end")
        assert shorten_log(path)
        log.write(b"a new beginning")
    assert path.read_bytes() == b"a new beginning"
    old = (tmp_path / "live-view.old.log").read_bytes()
    assert len(old) == MEGABYTE and old.endswith(b"aathe end")


def test_a_workers_log_is_shortened_between_jobs_and_its_last_lines_are_found(start_service, connect, scene, shot):
    service = start_service()
    service.wait_for_log("is ready")
    wire = connect(service)
    wire.upload_scene(scene)
    path = service.data / "logs" / "worker-0-cpu.log"
    with open(path, "ab") as log:
        log.write(MEGABYTE * b"step\n")
    job = wire.submit(shot("good"))
    service.wait_for_log(f"job {job} is done")
    assert path.stat().st_size < MEGABYTE and path.with_suffix(".old.log").stat().st_size == MEGABYTE
    status, _ = wire.finish(wire.submit(shot("die")))
    assert "about to die" in status.reason, "what a worker printed last stands in the shortened log"


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(logs, "_MAX_BYTES", 2000)
    log = logging.getLogger("ex4d.tests.logs")
    log.setLevel(logging.INFO)
    return log


def test_the_file_that_blender_gives_a_service_for_its_log_stays_short(short, tmp_path):
    path = tmp_path / "backend.log"
    with open(path, "a", encoding="utf-8") as stream:
        handler = logs.BoundedStreamHandler(stream)
        short.addHandler(handler)
        for number in range(100):
            short.info("line %d of a long night", number)
        assert path.stat().st_size < 2200
        lines = path.read_text().splitlines()
        assert lines[-1].endswith("further lines are in logs/service.log of the data folder")
        assert lines[-2].startswith("line ") and len(set(lines)) == len(lines)
        os.truncate(path, 0)
        short.info("written again")
        assert path.read_text() == "written again\n"
        short.removeHandler(handler)


def test_the_kept_log_has_the_newest_lines_and_is_bounded(short, tmp_path):
    with logs.kept_log(tmp_path / "logs"):
        for number in range(200):
            short.info("line %d", number)
    files = sorted((tmp_path / "logs").iterdir())
    assert [path.name for path in files] == ["service.log", "service.log.1"]
    assert all(0 < path.stat().st_size <= 2000 for path in files)
    assert "line 199" in files[0].read_text() and "line 0\n" not in files[1].read_text()
    short.info("not of the service any more")
    assert "not of the service" not in files[0].read_text()


def test_a_log_on_a_full_disk_stops_nobody(short, tmp_path, capsys):
    (tmp_path / "logs").write_text("in the way, as a disk without inodes is")
    with logs.kept_log(tmp_path / "logs"):
        short.info("a line")
    assert "Logging error" not in capsys.readouterr().err


def test_a_service_keeps_its_log(start_service):
    service = start_service()
    assert service.stop() == 0
    text = (service.data / "logs" / "service.log").read_text()
    assert "listening on tcp://" in text and "stopping" in text
