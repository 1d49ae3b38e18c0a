"""A shot's way through the service: submitted once, made by a worker, every result announced once and kept."""

from __future__ import annotations

import resource
import time
import uuid

import pytest

from ex4d_core.messages import Error, GetEvents, Hello, ListJobs, Submit, Withdraw


def test_a_shot_is_made_and_its_results_can_be_fetched(wire, scene, shot):
    wire.upload_scene(scene)
    status, events = wire.finish(wire.submit(shot("good")))

    assert (status.state, status.done, status.total) == ("done", 6, 6), status
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert [event.name for event in events if event.kind == "state"] == ["queued", "running", "done"]
    frames = [event for event in events if event.kind == "frame"]
    assert [event.index for event in frames] == [0, 1, 2, 3, 4, 5]
    assert wire.download(frames[4].sha256) == b"frame 4 of gradient"
    (take,) = (event for event in events if event.kind == "file")
    assert (take.name, wire.download(take.sha256), take.size) == ("take.mp4", b"all of it", 9)


def test_the_same_key_never_makes_a_second_job(wire, scene, shot):
    wire.upload_scene(scene)
    key = uuid.uuid4().hex
    jobs = {wire.submit(shot("good"), key) for _ in range(3)}
    assert len(jobs) == 1
    status, _ = wire.finish(jobs.pop())
    assert status.attempt == 1
    assert wire.submit(shot("good"), key) == status.job, "not even after it is done"


def test_a_submission_is_withdrawn_by_its_key(wire, scene, shot, tmp_path):
    wire.upload_scene(scene)
    key, go = uuid.uuid4().hex, tmp_path / "never"
    assert wire.ask(Withdraw(key)).job == "", "nothing was submitted under it"
    job = wire.submit(shot(f"wait {go}"), key)
    wire.wait_for_half(job)
    assert wire.ask(Withdraw(key)).job == job
    assert wire.finish(job)[0].state == "cancelled"
    assert wire.ask(Withdraw("")).code == "bad-request"


def test_events_can_be_asked_for_again_from_any_number(wire, scene, shot):
    wire.upload_scene(scene)
    job = wire.submit(shot("good"))
    _, events = wire.finish(job)
    assert wire.ask(GetEvents(job, after=4)).events == events[4:]
    assert wire.ask(GetEvents(job, after=1000)).events == []


def test_a_request_for_events_is_held_back_until_there_is_one(wire, scene, shot, tmp_path):
    wire.upload_scene(scene)
    go = tmp_path / "go"
    job = wire.submit(shot(f"wait {go}"))
    wire.wait_for_half(job)
    status = wire.ask(GetEvents(job)).status
    last = status.events

    # The runner goes on reporting the same progress, which is no news.
    begun = time.monotonic()
    reply = wire.ask(GetEvents(job, after=last, wait=0.3))
    assert reply.events == [] and time.monotonic() - begun >= 0.3, "nothing was new, so it waited as long as it may"

    waiting = wire.send(GetEvents(job, after=last, wait=10.0))
    assert not wire.socket.poll(50)
    go.touch()
    answered, reply = wire.receive(patience=5.0)
    assert answered == waiting
    assert reply.events and reply.events[0].number == last + 1
    assert wire.finish(job)[0].state == "done"


def test_progress_is_news_too(wire, scene, shot, tmp_path):
    wire.upload_scene(scene)
    job = wire.submit(shot(f"count {tmp_path / 'never'}"))
    wire.wait_for_half(job)
    before = wire.ask(GetEvents(job)).status
    after = wire.ask(GetEvents(job, after=before.events, wait=10.0)).status
    assert after.done > before.done and after.events == before.events
    wire.cancel(job)


def test_many_parked_requests_are_all_answered_in_the_end(wire, scene, shot, tmp_path):
    wire.upload_scene(scene)
    go = tmp_path / "go"
    job = wire.submit(shot(f"wait {go}"))
    wire.wait_for_half(job)
    last = wire.ask(GetEvents(job)).status.events
    asked = [wire.send(GetEvents(job, after=last, wait=10.0)) for _ in range(50)]
    # A client may have 32 of them parked; the oldest are answered early, with nothing.
    early = [wire.receive() for _ in range(50 - 32)]
    assert [number for number, _ in early] == asked[: 50 - 32]
    assert all(reply.events == [] for _, reply in early)
    go.touch()
    assert [wire.receive()[0] for _ in range(32)] == asked[50 - 32 :]


def test_jobs_wait_in_line_and_are_listed_newest_first(wire, scene, shot, tmp_path):
    wire.upload_scene(scene)
    go = tmp_path / "go"
    first = wire.submit(shot(f"wait {go}"))
    wire.wait_for_half(first)
    second, third = wire.submit(shot("good")), wire.submit(shot("good"))

    newest = wire.ask(ListJobs(limit=3)).jobs
    assert [status.job for status in newest] == [third, second, first]
    assert [status.state for status in newest] == ["queued", "queued", "running"]
    assert [status.queue_position for status in newest] == [1, 0, 0]
    assert wire.ask(Hello()).busy
    go.touch()
    assert wire.finish(third)[0].state == "done"
    assert wire.ask(GetEvents(second)).status.state == "done", "the older one came first"


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("refuse", "this shot cannot be made; choose another"),
        ("bug", "internal error: ZeroDivisionError: nobody thought of this"),
        ("fill", "make room"),
    ],
)
def test_a_job_fails_alone_and_says_why(wire, scene, shot, label, reason):
    wire.upload_scene(scene)
    failing, next_one = wire.submit(shot(label)), wire.submit(shot("good"))
    status, events = wire.finish(failing)
    assert status.state == "failed"
    assert reason in status.reason
    assert status.attempt == 1, "trying again would not help"
    assert sum(event.kind == "frame" for event in events) == 3, "what was made before stays"
    assert wire.finish(next_one)[0].state == "done"


def test_a_reason_of_many_pages_is_cut_to_what_people_read(wire, scene, shot):
    """Lists of jobs repeat it, and would not fit into a message any more."""
    wire.upload_scene(scene)
    status, _ = wire.finish(wire.submit(shot("babble")))
    assert (status.state, status.attempt) == ("failed", 1)
    assert status.reason.startswith("caf?.mp4 does not fit: xxx") and len(status.reason) <= 4000
    assert wire.ask(ListJobs(limit=1)).jobs == [status]


def test_a_job_that_cannot_be_written_down_is_refused_and_welcome_when_there_is_room(
    start_service, connect, scene, shot
):
    """The system refuses to let the service write, as it does on a full disk, and later allows it again."""
    service = start_service()
    service.wait_for_log("is ready")
    wire = connect(service)
    wire.upload_scene(scene)
    before = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (1000, before[1]))
    error = wire.ask(Submit("key", shot().to_wire()))
    assert isinstance(error, Error) and "job database cannot be written" in error.text and "make room" in error.text
    assert wire.ask(ListJobs()).jobs == []
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, before)
    assert wire.finish(wire.submit(shot(), "key"))[0].state == "done"


def test_a_queued_job_is_cancelled_and_never_begun(wire, scene, shot, tmp_path):
    wire.upload_scene(scene)
    go = tmp_path / "go"
    first, second = wire.submit(shot(f"wait {go}")), wire.submit(shot("good"))
    assert wire.cancel(second).state == "cancelled"
    go.touch()
    assert wire.finish(first)[0].state == "done"
    status, events = wire.finish(second)
    assert (status.state, status.attempt) == ("cancelled", 0)
    assert [event.name for event in events] == ["queued", "cancelled"]


def test_a_running_job_is_cancelled_at_once_and_its_worker_goes_on_with_others(service, wire, scene, shot, tmp_path):
    wire.upload_scene(scene)
    workers = service.worker_pids()
    job = wire.submit(shot(f"wait {tmp_path / 'never'}"))
    wire.wait_for_half(job)
    assert wire.cancel(job).state == "cancelled"
    assert wire.cancel(job).state == "cancelled", "a second time changes nothing"
    assert wire.finish(wire.submit(shot("good")))[0].state == "done"
    status, events = wire.finish(job)
    assert status.reason == "cancelled on request"
    assert [event.name for event in events if event.kind == "state"] == ["queued", "running", "cancelled"]
    assert service.worker_pids() == workers, "it noticed by itself at its next report"


def test_cancelling_a_job_that_is_over_changes_nothing(wire, scene, shot):
    wire.upload_scene(scene)
    job = wire.submit(shot("good"))
    done, _ = wire.finish(job)
    assert wire.cancel(job) == done
