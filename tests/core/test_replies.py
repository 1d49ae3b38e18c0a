"""What a client takes from a server: numbers that fit, states that are known, and text that is harmless."""

from __future__ import annotations

import socket
import sys
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import get_type_hints

import msgpack
import pytest

from ex4d_core.job_status import MAX_REASON, JobDetails, JobEvent, JobSilence, JobStatus
from ex4d_core.messages import (
    ANSWERS,
    CHUNK_BYTES,
    MAX_JOBS,
    PROTOCOL_VERSION,
    REPLIES,
    REQUESTS,
    BlobChunk,
    Error,
    EventsReply,
    GetBlob,
    JobsReply,
    Welcome,
    answer_bytes,
)
from ex4d_core.schema import Shown
from ex4d_core.tcp_counts import tcp_counts
from ex4d_core.wire import ProtocolError, decode, encode

STATUS = JobStatus("j1", "Take", "preview", "running", "render", 3, 49)
HARMFUL = "a\x1b[2Jb\x07\u202ec\r\nd\u2028e\x9b31m"


def passed(message):
    return decode(encode(message, 1), REPLIES)[1]


def test_every_request_has_an_answer_and_a_bound_for_it():
    assert set(ANSWERS) == set(REQUESTS.values())
    assert set(ANSWERS.values()) | {Error} == set(REPLIES.values())
    assert CHUNK_BYTES < answer_bytes(GetBlob("ab" * 32, 0)) < 2 * CHUNK_BYTES


def test_text_of_a_status_is_plain_and_short():
    status = passed(EventsReply(JobStatus("j", HARMFUL, HARMFUL, "failed", HARMFUL, reason=HARMFUL * 1000), [])).status
    for text in (status.label, status.engine, status.stage):
        assert text.isprintable() and len(text) <= 200 and text.startswith("a\ufffd[2Jb")
    assert status.reason.replace("\n", "").isprintable() and MAX_REASON / 2 < len(status.reason) <= MAX_REASON
    assert status.reason.endswith("\u2026")


def test_text_of_a_greeting_and_of_an_error_is_plain():
    welcome = passed(Welcome(HARMFUL, HARMFUL, [HARMFUL], {HARMFUL: HARMFUL}, {}, lacking={HARMFUL: HARMFUL}))
    shown = [welcome.service, welcome.version, *welcome.devices, *welcome.engines, *welcome.lacking]
    error = passed(Error(HARMFUL, HARMFUL))
    for text in (*shown, *welcome.lacking.values(), error.code, error.text):
        assert text.replace("\n", "").isprintable()


def test_no_text_inside_a_reply_is_shown_as_it_came():
    """Whoever adds a field must say how it is shown."""
    for kind in (*REPLIES.values(), JobStatus, JobDetails, JobEvent, JobSilence):
        hints = get_type_hints(kind, include_extras=True)
        for entry in fields(kind):
            hint = hints[entry.name]
            assert hint is not str, f"{kind.__name__}.{entry.name} needs a Shown"
            assert "list[str]" not in str(hint) and "dict[str, str]" not in str(hint), f"{kind.__name__}.{entry.name}"
    assert is_dataclass(Shown)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("state", "excellent"), ("done", 2**31), ("total", -1), ("events", 2**40), ("created", 1e300)),
        *(("created", -1.0), ("attempt", True), ("queue_position", 0.5), ("label", 5)),
    ],
)
def test_a_status_that_cannot_be_shown_is_refused(field, value):
    header = {"v": PROTOCOL_VERSION, "type": "EventsReply", "id": 7, "status": {**STATUS.__dict__, field: value}}
    with pytest.raises(ProtocolError) as refused:
        decode([msgpack.packb({**header, "events": []})], REPLIES)
    assert refused.value.request_id == 7 and field in str(refused.value)


def test_the_last_time_is_one_that_calendars_have():
    datetime.fromtimestamp(passed(JobsReply([JobStatus("j", "", "", "done", created=253_370_764_800)])).jobs[0].created)


@pytest.mark.parametrize(
    "event", [JobEvent(1, "file", size=-1), JobEvent(1, "file", size=2**62), JobEvent(-5, "state")]
)
def test_an_event_that_cannot_be_is_refused(event):
    with pytest.raises(ProtocolError):
        passed(EventsReply(STATUS, [event]))


def test_the_longest_honest_list_passes_and_a_longer_header_does_not():
    longest = JobStatus("j" * 16, "\u00fc" * 200, "preview", "failed", "render", reason="\U0001f600" * MAX_REASON)
    assert len(passed(JobsReply([longest] * MAX_JOBS)).jobs) == MAX_JOBS
    with pytest.raises(ProtocolError) as refused:
        passed(BlobChunk("x" * 5000, 1, 0, b"x"))
    assert refused.value.code == "too-large"


def test_the_system_counts_the_bytes_of_a_connection():
    """On Linux it must; elsewhere it may not know, but never be wrong."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            sender.sendall(bytes(70_000))
            receiver.recv(70_000, socket.MSG_WAITALL)
            counts = tcp_counts(receiver.fileno())
            assert counts is None or counts.received == 70_000
            assert sys.platform != "linux" or counts is not None
            receiver.sendall(bytes(500))
            sender.recv(500, socket.MSG_WAITALL)
