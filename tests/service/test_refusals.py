"""What clients and owners of jobs are told about an exception: only a bug is an internal error, and says so."""

from __future__ import annotations

import errno
import json
import sqlite3
from contextlib import closing

import pytest
import zmq

from ex4d.service import ServiceSettings
from ex4d.service.connections import bind_router
from ex4d.service.front import Front
from ex4d.service.inbox import Inbox
from ex4d.service.job_store import JobStore
from ex4d.service.live_views import LiveViewQueue
from ex4d.service.refusals import Refusal, refusal_for
from ex4d.service.users import Users
from ex4d.service.weight_fetches import WeightFetches
from ex4d.service.workers import Workers
from ex4d_core.cameras import CameraError
from ex4d_core.messages import REPLIES, Cancel, Error, ListJobs
from ex4d_core.scene_manifest import SceneError
from ex4d_core.shot import RequestError
from ex4d_core.wire import ProtocolError, decode, encode


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refusal("unknown-job", "unknown job 'x'"), "unknown-job"),
        (ProtocolError("too-large", "the header is too large"), "too-large"),
        (RequestError("invalid width 0"), "bad-request"),
        (SceneError("the scene is incomplete"), "bad-request"),
        (CameraError("invalid camera"), "bad-request"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk-full"),
        (sqlite3.OperationalError("database or disk is full"), "disk-full"),
        (sqlite3.OperationalError("disk I/O error"), "storage"),
        (sqlite3.DatabaseError("database disk image is malformed"), "storage"),
        (PermissionError(errno.EACCES, "Permission denied", "blobs/ab"), "storage"),
        (json.JSONDecodeError("Expecting value", "", 0), "internal"),
        (KeyError("camera"), "internal"),
        (ValueError("too many values"), "internal"),
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), "internal"),
        (RuntimeError("shape mismatch"), "internal"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_only_bugs_are_internal_errors(tmp_path, error, code):
    reply = refusal_for(error, tmp_path).message()
    assert reply.code == code
    is_bug = code == "internal"
    assert reply.text.startswith(f"internal error: {type(error).__name__}") == is_bug
    assert ("report it" in reply.text) == is_bug


def test_a_bug_in_the_front_reaches_the_client_as_one_and_others_are_served(tmp_path):
    """The job store is closed under the front, which nothing in the service does."""
    settings, inbox = ServiceSettings(data=tmp_path), Inbox()
    store = JobStore(settings.database)
    with (
        closing(inbox),
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as socket,
        context.socket(zmq.DEALER) as client,
    ):
        client.linger = 0
        client.connect(bind_router(socket, "tcp://127.0.0.1:0"))
        workers = Workers(settings, store, inbox, lambda job: None)
        users = Users(settings, inbox, lambda user, most, aim: 0)
        weights = WeightFetches(settings.machine, tmp_path / "logs", settings.weights_allowed)
        front = Front(socket, store, users, LiveViewQueue(settings, inbox), workers, settings, inbox, weights)

        def ask(message):
            client.send_multipart(encode(message, 5))
            assert socket.poll(60_000)
            front.serve()
            assert client.poll(60_000)
            return decode(client.recv_multipart(), REPLIES)

        assert ask(Cancel("nobody"))[1].code == "unknown-job"
        store.close()
        request_id, reply = ask(ListJobs())
        assert request_id == 5 and isinstance(reply, Error)
        assert reply.code == "internal" and reply.text.startswith("internal error: ProgrammingError")
        store.__init__(settings.database)
        assert ask(ListJobs())[1].jobs == []
        store.close()
