"""A job from this side of the wire, as the conversation that it is: what is asked, and what never is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ex4d_core.jobs import JobConversation, stage_and_seconds, stage_with_seconds
from ex4d_core.messages import (
    Cancel,
    JobStatus,
    StatusReply,
    Submit,
    Withdraw,
    Withdrawn,
)
from ex4d_core.takes import Take

RUNNING = JobStatus("j1", "arc", "preview", "running")
CANCELLED = JobStatus("j1", "arc", "preview", "cancelled", reason="cancelled on request")


@pytest.fixture
def take(tmp_path) -> Take:
    return Take(None, tmp_path)


def test_what_was_never_submitted_is_cancelled_without_a_word(take):
    assert list(take.cancel()) == []


def test_a_job_is_cancelled_by_its_name(take):
    take.job = "j1"
    conversation = take.cancel()
    assert next(conversation) == Cancel("j1")
    with pytest.raises(StopIteration):
        conversation.send(StatusReply(CANCELLED))
    assert take.status == CANCELLED


def test_a_submission_without_an_answer_is_withdrawn_by_its_key(take):
    submission = take._submit({"label": "arc"}, {})
    assert next(submission) == Submit(take.key, {"label": "arc"})
    submission.close()  # the link fell, or Blender was closed
    conversation = take.cancel()
    assert next(conversation) == Withdraw(take.key)
    with pytest.raises(StopIteration):
        conversation.send(Withdrawn("j1"))


def test_a_finished_job_is_as_far_as_its_results_have_been_fetched(take):
    assert take.progress == 0.0
    take.uploaded, take.upload_size = 30, 40
    assert take.progress == 0.75
    take.job, take.status = "j1", replace(RUNNING, stage="render", done=3, total=12)
    assert take.progress == 0.25
    take.status, take.last_event = replace(RUNNING, state="done", done=12, total=12, events=50), 10
    assert take.progress == 0.2, "the backend is through, but its frames are not here"
    take.last_event = 50
    assert take.progress == 1.0


def test_a_stage_carries_the_time_it_takes_still():
    assert stage_with_seconds("denoise", 89.6) == "denoise, 90 s left"
    assert stage_and_seconds("denoise, 90 s left") == ("denoise", 90.0)
    assert stage_and_seconds(stage_with_seconds("load weights", None)) == ("load weights", None)


def test_whoever_makes_jobs_says_where_their_results_go():
    with pytest.raises(TypeError, match="place_of"):
        JobConversation()
