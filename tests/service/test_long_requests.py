"""No request keeps the other clients waiting: long checks run in a thread, and a locked database delays writers."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing

import pytest

from ex4d_core.messages import Cancel, Error, Hello, ListJobs, Submit, Submitted, Welcome, Withdraw, Withdrawn
from ex4d_core.reconstruction import ReconstructionRequest, ReconstructionSettings
from ex4d_core.sources import DepthSettings, SourceFile


@pytest.fixture
def long_request(wire):
    """A scene of very many images, which are all the same."""
    sha256 = wire.upload(b"an image")
    files = tuple(SourceFile(sha256, 8, f"{number:06d}.png") for number in range(20_000))
    return ReconstructionRequest(ReconstructionSettings("long", DepthSettings("estimator", "auto")), files)


def test_others_are_answered_while_a_long_request_is_checked(wire, long_request):
    """The replies come in the order of their being ready."""
    key = uuid.uuid4().hex
    submit, again = wire.send(Submit(key, long_request.to_wire())), wire.send(Submit(key, long_request.to_wire()))
    hello = wire.send(Hello())
    withdraw = wire.send(Withdraw(key))
    assert wire.receive()[0] == hello
    replies = dict(wire.receive() for _ in range(3))
    assert isinstance(replies[submit], Submitted) and replies[again] == replies[submit], "one job"
    assert replies[withdraw] == Withdrawn(replies[submit].job), "it is not lost"
    assert wire.finish(replies[submit].job)[0].state == "cancelled"


def test_a_long_request_is_refused_in_a_thread_as_any_other(wire, long_request):
    values = long_request.to_wire()
    values["footage"]["size"] = bytes(8 * 20_000)
    error = wire.ask(Submit(uuid.uuid4().hex, values))
    assert isinstance(error, Error) and error.code == "bad-request"


def test_a_locked_database_delays_those_who_write_and_nobody_else(start_service, connect, scene, shot):
    service = start_service()
    service.wait_for_log("is ready")
    wire = connect(service)
    wire.upload_scene(scene)
    with closing(sqlite3.connect(service.data / "jobs.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        submits = [wire.send(Submit(uuid.uuid4().hex, shot().to_wire())) for _ in range(20)]
        cancel, hello = wire.send(Cancel("unknown")), wire.send(Hello())
        answered, reply = wire.receive()
        assert answered == hello and isinstance(reply, Welcome)
        assert wire.ask(ListJobs()).jobs == []
        other.execute("ROLLBACK")
    replies = [wire.receive() for _ in range(21)]
    assert [number for number, _ in replies] == [*submits, cancel], "in their order"
    assert all(isinstance(reply, Submitted) for _, reply in replies[:20])
    assert wire.finish(replies[19][1].job)[0].state == "done"
