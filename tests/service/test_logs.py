"""Logs of processes that run for months, and of libraries that print a line at every step, stay short."""

from __future__ import annotations

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
