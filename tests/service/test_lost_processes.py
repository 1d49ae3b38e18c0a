"""Workers that die, hang or ignore a cancelled job, and a killed service: no job is lost, no frame comes twice."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

from ex4d_core.messages import GetEvents, Hello
from ex4d_core.stages import WARM_UP_STAGE


def frames_of(events):
    return sorted(event.index for event in events if event.kind == "frame")


def test_a_worker_killed_in_a_job_is_replaced_and_the_job_ends_with_every_frame_once(
    start_service, connect, scene, shot, tmp_path
):
    service = start_service()
    wire = connect(service)
    wire.upload_scene(scene)
    go = tmp_path / "go"
    job = wire.submit(shot(f"wait {go}"))
    wire.wait_for_half(job)
    (worker,) = service.worker_pids()
    os.kill(worker, signal.SIGKILL)
    go.touch()

    status, events = wire.finish(job)
    assert (status.state, status.attempt) == ("done", 2)
    assert frames_of(events) == [0, 1, 2, 3, 4, 5]
    states = [event.name for event in events if event.kind == "state"]
    assert states == ["queued", "running", "queued", "running", "done"]
    assert service.worker_pids() != [worker]


def test_a_service_killed_in_a_job_resumes_after_a_restart(start_service, connect, scene, shot, tmp_path):
    service = start_service()
    wire = connect(service)
    wire.upload_scene(scene)
    go = tmp_path / "go"
    running, queued = wire.submit(shot(f"wait {go}")), wire.submit(shot("good"))
    wire.wait_for_half(running)
    seen = wire.ask(GetEvents(running)).events
    workers = service.worker_pids()
    service.kill()
    for worker in workers:
        wait_for_end(worker)
    go.touch()

    service.start()
    wire = connect(service)
    status, events = wire.finish(running)
    assert (status.state, status.attempt) == ("done", 2)
    assert frames_of(events) == [0, 1, 2, 3, 4, 5]
    assert events[: len(seen)] == seen, "what was announced stays as it was"
    for event in events:
        assert event.kind != "frame" or wire.download(event.sha256) == f"frame {event.index} of gradient".encode()
    assert wire.finish(queued)[0].state == "done"


def wait_for_end(pid: int) -> None:
    """The workers of a killed service end by themselves."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([descriptor], [], [], 60)[0], "a worker outlived its service"
    os.close(descriptor)


def test_a_worker_that_outlived_its_service_unnoticed_can_change_nothing(start_service, connect, scene, shot, tmp_path):
    service = start_service()
    wire = connect(service)
    wire.upload_scene(scene)
    go = tmp_path / "go"
    job = wire.submit(shot(f"wait {go}"))
    wire.wait_for_half(job)
    (zombie,) = service.worker_pids()
    stop_all_threads(zombie)
    service.kill()
    go.touch()
    service.start()
    wire = connect(service)
    ended = wire.finish(job)
    assert ended[0].state == "done"
    os.kill(zombie, signal.SIGCONT)
    wait_for_end(zombie)
    assert wire.finish(job) == ended


def stop_all_threads(pid: int) -> None:
    """Stop a process, and wait for it: a thread that still ran would see the service go, and end the process."""
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    while any(stat.read_text().rpartition(") ")[2][0] != "T" for stat in threads.glob("*/stat")):
        os.sched_yield()


def test_a_job_that_kills_its_worker_three_times_fails_with_the_reason(start_service, connect, scene, shot):
    service = start_service()
    wire = connect(service)
    wire.upload_scene(scene)
    job, next_one = wire.submit(shot("die")), wire.submit(shot("good"))
    status, events = wire.finish(job)
    assert (status.state, status.attempt) == ("failed", 3)
    assert "the worker on cpu was killed by SIGKILL" in status.reason
    assert "about to die" in status.reason, "the last lines of its log"
    assert frames_of(events) == [0, 1, 2]
    assert wire.finish(next_one)[0].state == "done"


def test_a_crash_that_an_earlier_job_may_have_caused_costs_no_attempt(start_service, connect, scene, shot, tmp_path):
    service = start_service()
    wire = connect(service)
    wire.upload_scene(scene)
    first, second = wire.submit(shot("good")), wire.submit(shot(f"crash {tmp_path / 'crashed'}"))
    assert wire.finish(first)[0].state == "done"
    status, events = wire.finish(second)
    assert (status.state, status.attempt) == ("done", 1)
    assert frames_of(events) == [0, 1, 2, 3, 4, 5]


def test_a_hanging_worker_is_replaced_and_its_job_tried_again(start_service, connect, scene, shot, tmp_path):
    service = start_service(hang_seconds=10, devices=["cpu", "cpu"])
    service.wait_for_log("worker 0-.* is ready")
    service.wait_for_log("worker 1-.* is ready")
    before = service.worker_pids()
    wire = connect(service)
    wire.upload_scene(scene)
    job = wire.submit(shot(f"hang {tmp_path / 'hung'}"))
    status, events = wire.finish(job)
    assert (status.state, status.attempt) == ("done", 2)
    assert frames_of(events) == [0, 1, 2, 3, 4, 5]
    service.wait_for_log("made no progress for 10 seconds")
    # The other one had nothing to do for as long; that is not hanging.
    assert len(set(before) & set(service.worker_pids())) == 1


def test_cancel_works_at_once_even_if_the_worker_ignores_it(start_service, connect, scene, shot):
    service = start_service(cancel_seconds=0.2)
    wire = connect(service)
    wire.upload_scene(scene)
    job, next_one = wire.submit(shot("stubborn")), wire.submit(shot("good"))
    wire.wait_for_half(job)
    assert wire.cancel(job).state == "cancelled"
    service.wait_for_log(f"continued the cancelled job {job}")
    assert wire.finish(next_one)[0].state == "done"
    status, events = wire.finish(job)
    assert (status.state, status.attempt) == ("cancelled", 1)
    assert frames_of(events) == [0, 1, 2]


def test_a_cancelled_worker_may_finish_its_step_however_long_its_steps_are(start_service, connect, scene, shot):
    """It stops by itself then, and keeps the models that it has loaded."""
    service = start_service(cancel_seconds=0.1)
    wire = connect(service)
    wire.upload_scene(scene)
    job, next_one = wire.submit(shot("slow")), wire.submit(shot("good"))
    wire.follow(job, lambda status, events: status.stage == "halfway" and status.done >= 1)
    (worker,) = service.worker_pids()
    assert wire.cancel(job).state == "cancelled"
    assert wire.finish(next_one)[0].state == "done"
    assert service.worker_pids() == [worker]


def test_a_cancelled_worker_may_finish_its_very_first_step(start_service, connect, scene, shot, tmp_path):
    """No earlier step tells how long it takes."""
    service = start_service(cancel_seconds=0.1)
    wire = connect(service)
    wire.upload_scene(scene)
    job, next_one = wire.submit(shot(f"warm {tmp_path / 'go'}")), wire.submit(shot("good"))
    # A stage is not an event, so a request for events would only return later.
    while (status := wire.ask(GetEvents(job, 0)).status).stage != WARM_UP_STAGE:
        assert status.state in ("queued", "running")
    (worker,) = service.worker_pids()
    assert wire.cancel(job).state == "cancelled"
    (tmp_path / "go").touch()
    assert wire.finish(next_one)[0].state == "done"
    assert service.worker_pids() == [worker]


def test_a_worker_that_cannot_start_leaves_the_service_up_and_says_so(start_service, connect, scene, shot):
    service = start_service(runner="shot_runners:no_such_function")
    wire = connect(service)
    wire.upload_scene(scene)
    job = wire.submit(shot("good"))
    service.wait_for_log("has no attribute 'no_such_function'")
    (device,) = wire.ask(Hello()).devices
    assert "does not start" in device and "no_such_function" in device
    assert wire.cancel(job).state == "cancelled"


def test_an_unavailable_device_is_reported_in_a_sentence(start_service, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    service = start_service(devices=["cuda:0"], runner="ex4d.pipeline.take:generate_take")
    service.wait_for_log("worker on cuda:0 ended")
    service.wait_for_log("cannot work on cuda:0: PyTorch finds no usable CUDA device")
    assert not [line for line in service.log if "Traceback" in line]


def test_sigterm_ends_cleanly_and_the_job_resumes_later(start_service, connect, scene, shot, tmp_path):
    service = start_service()
    wire = connect(service)
    wire.upload_scene(scene)
    go = tmp_path / "go"
    job = wire.submit(shot(f"wait {go}"))
    wire.wait_for_half(job)
    workers = service.worker_pids()
    assert service.stop() == 0
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)
    go.touch()

    service.start()
    status, events = connect(service).finish(job)
    assert (status.state, status.attempt) == ("done", 1), "an orderly stop is nobody's failure"
    assert frames_of(events) == [0, 1, 2, 3, 4, 5]


def test_two_devices_work_side_by_side(start_service, connect, scene, shot, tmp_path):
    service = start_service(devices=["cpu", "cpu"])
    wire = connect(service)
    wire.upload_scene(scene)
    go = tmp_path / "go"
    waiting, other = wire.submit(shot(f"wait {go}")), wire.submit(shot("good"))
    assert wire.finish(other)[0].state == "done"
    assert wire.ask(GetEvents(waiting)).status.state == "running"
    go.touch()
    assert wire.finish(waiting)[0].state == "done"


def test_a_job_that_takes_the_service_down_three_times_fails_and_others_get_their_turn(
    start_service, connect, scene, shot, tmp_path
):
    service = start_service()
    wire = connect(service)
    wire.upload_scene(scene)
    job, next_one = wire.submit(shot(f"wait {tmp_path / 'never'}")), wire.submit(shot("good"))
    for down in range(3):
        connect(service).follow(job, lambda status, events, down=down: status.attempt == down + 1)
        workers = service.worker_pids()
        service.kill()
        for worker in workers:
            wait_for_end(worker)
        service.start()
    wire = connect(service)
    status, _ = wire.finish(job)
    assert (status.state, status.attempt) == ("failed", 3)
    assert "went down 3 times" in status.reason
    assert wire.finish(next_one)[0].state == "done"
