"""A job from the client's side, as the conversation that it is: what is asked, what never is, and how it stands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ex4d_core.conversations import ClientError, Pause, RequestRefused, Task, UnexpectedReply
from ex4d_core.errors import RequestError
from ex4d_core.job_status import JobEvent, JobStatus
from ex4d_core.messages import (
    AskSilence,
    Cancel,
    EventsReply,
    GetEvents,
    Silence,
    StatusReply,
    Submit,
    Submitted,
    Withdraw,
    Withdrawn,
)
from ex4d_core.remote_job import JobState, RemoteJob
from ex4d_core.remote_scene import RemoteScene
from ex4d_core.stages import Pace, StageDetails, stage_and_eta, stage_with_eta

RUNNING = JobStatus("j1", "arc", "preview", "running")
CANCELLED = JobStatus("j1", "arc", "preview", "cancelled", reason="cancelled on request")


class Sending(RemoteJob):
    """A job whose request needs no blobs."""

    def prepare(self):
        yield from ()
        return {"label": "arc"}, {}


class OneClient:
    """Where conversations are started; nothing is ever answered."""

    def __init__(self):
        self.started: list[Task] = []

    def start(self, conversation) -> Task:
        self.started.append(Task(conversation))
        return self.started[-1]

    def stop(self, task: Task) -> None:
        task.done = True


@pytest.fixture
def job(tmp_path) -> RemoteJob:
    return Sending(tmp_path)


def submitted_without_an_answer(job: RemoteJob) -> None:
    conversation = job.conversation()
    # No blobs: the first request is the submission itself.
    assert next(conversation) == Submit(job.key, {"label": "arc"})
    conversation.close()  # the link fell, or Blender was closed


def test_what_was_never_submitted_is_cancelled_without_a_word(job):
    assert list(job.cancel_conversation()) == []


def test_a_job_is_cancelled_by_its_name(job):
    job.job = "j1"
    conversation = job.cancel_conversation()
    assert next(conversation) == Cancel("j1")
    with pytest.raises(StopIteration):
        conversation.send(StatusReply(CANCELLED))
    assert job.status == CANCELLED


def test_a_submission_without_an_answer_is_withdrawn_by_its_key(job):
    submitted_without_an_answer(job)
    conversation = job.cancel_conversation()
    assert next(conversation) == Withdraw(job.key)
    with pytest.raises(StopIteration):
        conversation.send(Withdrawn("j1"))


def test_a_finished_job_is_as_far_as_its_results_have_been_fetched(job):
    assert job.progress == 0.0
    job.uploaded, job.upload_size = 30, 40
    assert job.progress == 0.75
    job.job, job.status = "j1", replace(RUNNING, stage="render", done=3, total=12)
    assert job.progress == 0.25
    job.status, job.last_event = replace(RUNNING, state="done", done=12, total=12, events=50), 10
    assert (job.progress, job.state) == (0.2, JobState.FETCHING), "the backend has finished, its frames are not here"
    job.last_event = 50
    assert job.progress == 1.0


def test_a_stage_carries_its_eta():
    assert stage_with_eta("denoise", 89.6) == "denoise, 90 s left"
    assert stage_and_eta("denoise, 90 s left") == ("denoise", 90.0)
    assert stage_and_eta(stage_with_eta("load weights", None)) == ("load weights", None)


@pytest.mark.parametrize(
    ("details", "text"),
    [
        (StageDetails("denoise"), "denoise"),
        (StageDetails("denoise", "fp8"), "denoise (fp8)"),
        (StageDetails("wan", part=3, parts=15), "wan, part 3 of 15"),
        (StageDetails("denoise", "bf16 (no fp8 here)", 12, 40), "denoise (bf16 (no fp8 here)), part 12 of 40"),
        (StageDetails("denoise, no progress for 35 s"), "denoise, no progress for 35 s"),
        (StageDetails(""), ""),
    ],
)
def test_a_stage_carries_what_it_is_computed_in_and_the_part_of_a_step(details, text):
    assert str(details) == text
    assert StageDetails.of(stage_with_eta(text, 90)) == StageDetails.of(text) == details


def test_a_job_is_as_far_as_the_parts_of_its_present_step(job):
    job.job, job.status = "j1", replace(RUNNING, stage="denoise (fp8), part 10 of 40, 90 s left", done=3, total=25)
    assert (job.progress, job.eta_seconds()) == (3.25 / 25, 90.0)
    job.status = replace(RUNNING, stage="denoise, part 40 of 40", done=25, total=25)
    assert job.progress == 1.0


def test_a_jobs_state_is_what_is_known_of_it(job):
    client = OneClient()
    job.advance(None)
    assert (job.state, job.over, client.started) == (JobState.SENDING, False, [])
    job.advance(client)
    (task,) = client.started
    job.job = "j1"
    assert job.state is JobState.SENDING, "accepted, and nothing heard of it yet"
    job.status = replace(RUNNING, state="queued", stage="denoise, 20 s left")
    assert (job.state, job.stage) == (JobState.QUEUED, "denoise")
    task.done, task.error = True, RequestRefused("unknown-job", "the job j1 is unknown")
    job.advance(client)
    assert (job.state, job.reason, job.over) == (JobState.STOPPED, "the job j1 is unknown", True)
    assert job.eta_seconds() is None


def test_a_job_continues_on_the_next_connection(job):
    client, other = OneClient(), OneClient()
    job.advance(client)
    client.started[0].done, client.started[0].error = True, ClientError("the connection was closed")
    job.advance(None)
    assert not job.over
    job.advance(other)
    assert len(other.started) == 1 and not job.over


def test_a_job_that_the_backend_may_have_is_over_when_it_knows_of_the_cancelling(job):
    client = OneClient()
    submitted_without_an_answer(job)
    job.cancel(None)
    assert (job.state, job.over) == (JobState.CANCELLED, False)
    job.advance(client)
    assert not job.over
    client.started[0].done = True
    job.advance(client)
    assert job.over


def test_a_job_that_was_never_submitted_is_over_when_it_is_cancelled(job):
    job.cancel(None)
    assert (job.state, job.over) == (JobState.CANCELLED, True)


def test_any_jobs_known_results_can_be_fetched_and_no_other_name_becomes_a_path(tmp_path):
    job = RemoteJob(tmp_path, job="j1")
    frame, movie = JobEvent(1, "frame", index=3), JobEvent(2, "file", "take.mp4")
    assert [job.path_for(event) for event in (frame, movie)] == [tmp_path / "frame_00003.png", tmp_path / "take.mp4"]
    for name in ("../take.mp4", "notes.txt", ""):
        assert job.path_for(JobEvent(3, "file", name)) is None
    asked = job.fetch_available()
    next(asked)
    with pytest.raises(StopIteration) as end:
        asked.send(EventsReply(RUNNING, []))
    assert end.value.value == RUNNING, "it does not wait for more"


def test_a_job_without_a_request_cannot_be_sent(tmp_path):
    with pytest.raises(RequestError, match="nothing to send"):
        next(RemoteJob(tmp_path).conversation())
    with pytest.raises(RequestError, match="without its footage"):
        next(RemoteScene(tmp_path / "walk").conversation())


def test_eta_follows_from_the_pace():
    pace = Pace()
    assert pace.eta_seconds(10.0, "render", 0.0) is None
    assert pace.eta_seconds(10.5, "render", 0.5) is None  # too early to tell
    assert pace.eta_seconds(12.0, "render", 0.5) is None  # no news since
    assert pace.eta_seconds(14.0, "render", 0.8) == pytest.approx(1.0)
    assert pace.eta_seconds(14.5, "render", 0.8) == pytest.approx(0.5)
    assert pace.eta_seconds(15.0, "preview", 0.1) is None  # another stage has its own pace


def test_the_first_stage_has_no_name_and_its_pace_begins_when_it_does():
    """The clock may stand anywhere: the machine's time since its start, for one."""
    pace = Pace()
    assert pace.eta_seconds(40_000.0, "", 0.37) is None
    assert pace.eta_seconds(40_002.0, "", 0.57) == pytest.approx(4.3)


def test_the_backends_own_eta_counts_down_until_the_next_one():
    pace = Pace()
    assert pace.eta_seconds(10.0, "denoise", 0.04, reported=48.0) == 48.0
    assert pace.eta_seconds(13.0, "denoise", 0.04, reported=48.0) == 45.0
    assert pace.eta_seconds(14.0, "denoise", 0.08, reported=44.0) == 44.0
    assert pace.eta_seconds(99.0, "denoise", 0.08, reported=44.0) == 0.0


def answered(job: RemoteJob, replies) -> tuple[list[float], int]:
    """Follow a job whose backend gives these replies about events; returns the pauses, and how many were asked for."""
    conversation, pauses, questions = job.conversation(), [], 0
    asked = next(conversation)
    for reply in replies:
        while isinstance(asked, Pause):
            pauses.append(asked.seconds)
            asked = conversation.send([])
        while isinstance(asked, AskSilence):
            asked = conversation.send(Silence([]))
        assert isinstance(asked, GetEvents)
        questions += 1
        asked = conversation.send(reply(asked) if callable(reply) else reply)
    return pauses, questions


@pytest.mark.parametrize("numbers", [[3], [4, 4], [6, 5], [0]])
def test_events_out_of_order_end_a_job_with_a_sentence(tmp_path, numbers):
    job = RemoteJob(tmp_path, job="j1", last_event=3)
    events = [JobEvent(number, "state", "running") for number in numbers]
    with pytest.raises(UnexpectedReply, match="out of order"):
        answered(job, [EventsReply(RUNNING, events)])


def test_a_job_that_is_over_has_no_more_events_than_it_said(tmp_path):
    over = replace(RUNNING, state="failed", events=2)

    def more(asked: GetEvents) -> EventsReply:
        return EventsReply(replace(over, events=asked.after + 1), [JobEvent(asked.after + 1, "state", "x")])

    with pytest.raises(UnexpectedReply, match="without end"):
        answered(RemoteJob(tmp_path, job="j1"), [more] * 5)


@pytest.mark.parametrize(("events", "most"), [(True, 110), (False, 15)])
def test_a_job_that_is_over_and_never_ends_is_given_up(tmp_path, events, most):
    over = replace(RUNNING, state="done", events=2**31 - 1)

    def promise(asked: GetEvents) -> EventsReply:
        return EventsReply(over, [JobEvent(asked.after + 1, "file", "../../x")] if events else [])

    asked = 0

    def counted(question: GetEvents) -> EventsReply:
        nonlocal asked
        asked += 1
        return promise(question)

    with pytest.raises(UnexpectedReply, match="without end"):
        answered(RemoteJob(tmp_path, job="j1"), [counted] * 1000)
    assert asked < most


def test_endless_states_of_a_running_job_are_not_asked_for_in_a_loop(tmp_path):
    def state(asked: GetEvents) -> EventsReply:
        return EventsReply(replace(RUNNING, events=2**31 - 1), [JobEvent(asked.after + 1, "state", "running")])

    pauses, questions = answered(RemoteJob(tmp_path, job="j1"), [state] * 100)
    assert questions == 100 and len(pauses) >= 70 and min(pauses) > 0.1


def test_a_submission_without_the_name_of_a_job_is_refused(job):
    conversation = job.conversation()
    next(conversation)
    with pytest.raises(UnexpectedReply, match="without a name"):
        conversation.send(Submitted(""))
