"""Every key is a user: nobody sees, fetches, cancels or spoils what is another's, and the queue takes turns."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import select
import subprocess
import sys
import time
from contextlib import closing

import pytest
from zmq.auth import load_certificate

from ex4d.cli.flags import add_flags, settings_from
from ex4d.cli.main import main
from ex4d.service import ServiceSettings, create_keys
from ex4d.service.inbox import Inbox
from ex4d.service.job_store import JobStore
from ex4d.service.keys import Clients
from ex4d.service.live_views import LiveViewQueue
from ex4d_core.errors import RequestError
from ex4d_core.messages import (
    CHUNK_BYTES,
    AskSilence,
    BlobStatus,
    Cancel,
    DescribeJobs,
    DescribeTurns,
    Error,
    GetBlob,
    GetEvents,
    ListJobs,
    PutBlob,
    SetPriority,
    Submit,
    Withdraw,
)
from ex4d_core.view_messages import GetCoverage, GetView

PATIENCE = 240.0
USERS = ("anna", "bob", "tina")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for user in USERS:
        create_keys(folder, user)
    return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory, keys, service_process):
    """One service with one worker and three users, of whom Tina is an admin."""
    service = service_process(tmp_path_factory.mktemp("users") / "data", keys=str(keys), admins=["tina"])
    yield service
    assert service.stop() == 0


@pytest.fixture
def wires(service, keys, connect, with_key):
    return {user: connect(service, with_key(keys, user)) for user in USERS}


@pytest.fixture
def anna(wires, scene):
    """Anna, who has uploaded her scene."""
    wires["anna"].upload_scene(scene)
    return wires["anna"]


@pytest.fixture
def bob(wires):
    return wires["bob"]


@pytest.fixture
def tina(wires):
    return wires["tina"]


def code_of(reply) -> str:
    assert isinstance(reply, Error), reply
    return reply.code


@pytest.fixture
def name(tmp_path):
    """Under which Anna submits the job below."""
    return f"key of {tmp_path}"[-100:]


@pytest.fixture
def running(anna, shot, tmp_path, name):
    """A job of Anna's that runs until the test is over."""
    job = anna.submit(shot(f"wait {tmp_path / 'go'}"), name)
    anna.wait_for_half(job)
    yield job
    anna.cancel(job)
    (tmp_path / "go").touch()
    anna.finish(job)


def test_another_users_job_is_as_unknown_as_one_that_never_was(anna, bob, running):
    for ask in (GetEvents, Cancel):
        theirs, none = bob.ask(ask(running)), bob.ask(ask("0" * 16))
        assert (code_of(theirs), theirs.text) == (code_of(none), none.text.replace("0" * 16, running))
        assert theirs.code == "unknown-job"
    assert bob.ask(ListJobs()).jobs == [] and bob.ask(DescribeJobs()).jobs == [] and bob.ask(AskSilence()).jobs == []
    assert running in [one.job for one in anna.ask(ListJobs()).jobs]
    assert (running, "anna") in [(one.job, one.owner) for one in anna.ask(DescribeJobs()).jobs]
    assert [one.job for one in anna.ask(AskSilence()).jobs] == [running]


def test_a_key_of_a_submission_is_each_users_own(anna, bob, running, name, scene, shot):
    assert bob.ask(Withdraw(name)).job == ""
    bob.upload_scene(scene)
    own = bob.submit(shot(), name)
    assert own != running and bob.ask(Withdraw(name)).job == own
    assert anna.ask(GetEvents(running)).status.state == "running"
    assert anna.submit(shot(), name) == running


def test_footage_scenes_and_results_are_their_owners(anna, wires, scene, shot, connect, service, keys, with_key):
    status, events = anna.finish(anna.submit(shot()))
    assert status.state == "done"
    results = [event.sha256 for event in events if event.sha256]
    assert len(anna.download(results[0])) > 0
    create_keys(keys, "new")
    new = connect(service, with_key(keys, "new"))
    for other in (new, wires["tina"]):
        for sha256 in (scene.digest, *results):
            assert code_of(other.ask(GetBlob(sha256, 0))) == "unknown-blob"
        assert other.ask(BlobStatus([scene.digest, results[0]])).received == [0, 0]
        request = shot().to_wire()
        for message in (Submit("key", request), GetCoverage(request), GetView(request)):
            assert code_of(other.ask(message)) == "unknown-scene"
    assert anna.ask(BlobStatus([scene.digest, results[0]])).received == [-1, -1]


def test_nobody_spoils_anothers_upload_by_its_hash(anna, bob):
    data = random.Random(1).randbytes(CHUNK_BYTES + 10)
    sha256 = hashlib.sha256(data).hexdigest()
    assert anna.ask(PutBlob(sha256, len(data), 0, data[:CHUNK_BYTES])).received == CHUNK_BYTES
    assert bob.ask(BlobStatus([sha256])).received == [0]
    assert code_of(bob.ask(PutBlob(sha256, 4, 0, b"junk"))) == "bad-blob"
    assert anna.ask(BlobStatus([sha256])).received == [CHUNK_BYTES]
    assert anna.ask(PutBlob(sha256, len(data), CHUNK_BYTES, data[CHUNK_BYTES:])).received == -1
    assert bob.ask(BlobStatus([sha256])).received == [0] and anna.download(sha256) == data


def test_an_admin_lists_and_cancels_all_jobs_and_fetches_none(anna, tina, running, service, keys, capsys, monkeypatch):
    assert running in [one.job for one in tina.ask(ListJobs()).jobs]
    assert (running, "anna") in [(one.job, one.owner) for one in tina.ask(DescribeJobs()).jobs]
    assert running in [one.job for one in tina.ask(AskSilence()).jobs]
    assert code_of(tina.ask(GetEvents(running))) == "unknown-job"
    monkeypatch.setenv("COLUMNS", "200")
    own = ("--client-key", str(keys / "tina.key_secret"), "--server-key", str(keys / "server.key"))
    assert main(["jobs", "--backend", service.address, *own]) == 0
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if running in line]
    assert row[:3] == [running, "anna", "wait"]
    assert tina.cancel(running).state == "cancelled" and anna.ask(GetEvents(running)).status.state == "cancelled"


def test_users_take_turns_and_are_told_their_true_place(anna, bob, running, scene, shot, tmp_path):
    bob.upload_scene(scene)
    hers = [anna.submit(shot("good")) for _ in range(3)]
    his = [bob.submit(shot("good")) for _ in range(2)]

    def places(wire, jobs):
        return [wire.ask(GetEvents(job)).status.queue_position for job in jobs]

    assert places(bob, his) == [0, 2] and places(anna, hers) == [1, 3, 4]
    (tmp_path / "go").touch()
    ended = {}
    for wire, jobs in ((anna, hers), (bob, his)):
        for job in jobs:
            assert wire.finish(job)[0].state == "done"
        ended |= {one.job: one.started for one in wire.ask(DescribeJobs()).jobs if one.job in jobs}
    assert sorted(ended, key=lambda job: ended[job]) == [his[0], hers[0], his[1], hers[1], hers[2]]


def test_a_priority_changes_whose_job_is_next_and_only_admins_give_a_high_one(anna, bob, tina, running, scene, shot):
    bob.upload_scene(scene)
    first, second, his = anna.submit(shot("good")), anna.submit(shot("good")), bob.submit(shot("good"))

    def places(**jobs):
        listed = {one.job: one.queue_position for one in tina.ask(ListJobs()).jobs}
        return [listed[job] for job in (first, second, his)]

    assert places() == [1, 2, 0]
    assert code_of(bob.ask(SetPriority(first, "low"))) == "unknown-job"
    assert code_of(bob.ask(SetPriority(his, "high"))) == "bad-request"
    assert bob.ask(SetPriority(his, "low")).status.queue_position == 2 and places() == [0, 1, 2]
    assert tina.ask(SetPriority(second, "high")).status.queue_position == 0 and places() == [1, 0, 2]
    hers, all_of_them = anna.ask(DescribeTurns()), tina.ask(DescribeTurns())
    assert (hers.user, hers.role, all_of_them.user, all_of_them.role) == ("anna", "artist", "tina", "admin")
    assert [(one.job, one.priority) for one in hers.jobs[:2]] == [(second, "high"), (first, "normal")]
    assert (his, "low") in [(one.job, one.priority) for one in all_of_them.jobs]
    for job in (first, second, his):
        tina.cancel(job)
    assert not {first, second, his} & {one.job for one in tina.ask(DescribeTurns()).jobs}


def test_the_command_orders_jobs_and_lists_their_priority(anna, running, shot, service, keys, capsys):
    job = anna.submit(shot("good"))
    own = ["--client-key", str(keys / "anna.key_secret"), "--server-key", str(keys / "server.key")]
    command = ["jobs", "--backend", service.address, *own]
    assert main([*command, "--priority", job, "low"]) == 0
    capsys.readouterr()
    assert main(command) == 0
    assert "0 ahead, low" in next(line for line in capsys.readouterr().out.splitlines() if job in line)
    assert main([*command, "--priority", job, "urgent"]) == 1
    assert "--priority: invalid priority 'urgent'" in capsys.readouterr().err
    assert main([*command, "--watch"]) == 1 and "--watch: needs a terminal" in capsys.readouterr().err
    anna.cancel(job)


def test_the_audit_log_says_who_did_what(anna, tina, running, service):
    anna.ask(Cancel("0" * 16))
    tina.ask(SetPriority(running, "high"))
    tina.cancel(running)
    lines = [json.loads(line) for line in (service.data / "logs" / "audit.log").read_text().splitlines()]
    about = [(one["event"], one["user"]) for one in lines if one.get("job") == running]
    assert about == [("submit", "anna"), ("priority", "tina"), ("cancel", "tina")]
    assert lines[0]["event"] == "start" and all(one.get("job") != "0" * 16 for one in lines)


def test_a_role_is_set_while_the_service_runs(anna, bob, running, keys, service):
    assert main(["keys", "set", "bob", "--role", "admin", "--keys", str(keys)]) == 0
    deadline = time.monotonic() + PATIENCE
    while bob.ask(DescribeTurns()).role != "admin" and time.monotonic() < deadline:
        pass
    assert running in [one.job for one in bob.ask(ListJobs()).jobs]
    assert main(["keys", "set", "bob", "--role", "artist", "--keys", str(keys)]) == 0
    while bob.ask(DescribeTurns()).role != "artist" and time.monotonic() < deadline:
        pass
    assert bob.ask(ListJobs()).jobs == [] or running not in [one.job for one in bob.ask(ListJobs()).jobs]


@pytest.mark.parametrize("seed", range(8))
def test_places_in_the_queue_are_those_in_which_jobs_are_taken(tmp_path, shot, seed):
    chance = random.Random(seed)
    with closing(JobStore(tmp_path / "jobs.sqlite")) as store:
        store._db.execute("PRAGMA synchronous = OFF")
        for number in range(30):
            if chance.random() < 0.3:
                store.claim("worker")
            else:
                job = store.submit(str(number), shot(), [], owner=chance.choice("abcc"))
                store.set_priority(job, chance.choice(["low", "normal", "normal", "high"]))
        places = {one.job: one.queue_position for one in store.jobs() if one.state == "queued"}
        taken = [job.job for job in iter(lambda: store.claim("worker"), None)]
        assert [places[job] for job in taken] == list(range(len(taken)))


class RefusesViews(subprocess.Popen):
    """A live view process that answers at once."""

    CODE = """if True:
        from ex4d.service.processes import read_messages, write_message
        output = open(1, "wb", buffering=0)
        for message in read_messages(open(0, "rb", buffering=0)):
            write_message(output, {"error": ["internal", "refused"]})
    """

    def __init__(self, *_):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        super().__init__([sys.executable, "-c", self.CODE], **pipes)
        self.input, self.output = self.stdin, self.stdout


def test_live_views_take_turns(tmp_path, shot, monkeypatch):
    monkeypatch.setattr("ex4d.service.live_views.ChildProcess", RefusesViews)
    order: list[str] = []
    with closing(Inbox()) as inbox:
        views = LiveViewQueue(ServiceSettings(data=tmp_path), inbox)
        try:
            for number in range(3):
                name = f"anna {number}"
                views.ask_view(name.encode(), "anna", 1, shot(), lambda _, name=name: order.append(name))
            views.ask_view(b"bob", "bob", 1, shot(), lambda _: order.append("bob"))
            deadline = time.monotonic() + PATIENCE
            while len(order) < 4 and time.monotonic() < deadline:
                select.select([inbox.readable], [], [], 1.0)
                inbox.run_calls()
        finally:
            views.stop()
    assert order == ["anna 0", "bob", "anna 1", "anna 2"]


def test_the_reason_of_a_failed_job_quotes_no_other_job(anna, bob, running, scene, shot, tmp_path):
    """Bob's job takes down a worker that ran Anna's just before."""
    bob.upload_scene(scene)
    dying, secret = bob.submit(shot("die")), anna.submit(shot("good the secret film"))
    (tmp_path / "go").touch()
    reason = bob.finish(dying)[0].reason
    assert anna.finish(secret)[0].state == "done"
    assert "about to die" in reason
    assert "secret" not in reason and secret not in reason and running not in reason


def test_a_new_key_of_the_same_name_is_the_same_user(service, keys, connect, with_key, running):
    before = (keys / "clients" / "anna.key").read_text()
    (keys / "anna.key_secret").unlink()
    (keys / "clients" / "anna.key").unlink()
    create_keys(keys, "anna")
    assert (keys / "clients" / "anna.key").read_text() != before
    again = connect(service, with_key(keys, "anna"))
    assert running in [one.job for one in again.ask(ListJobs()).jobs]


def test_a_key_file_without_the_name_of_a_client_is_no_key(tmp_path, caplog):
    create_keys(tmp_path, "anna")
    folder = tmp_path / "clients"
    public, _ = load_certificate(folder / "anna.key")
    assert Clients(folder).callback("ex4d", public)
    (folder / "anna.key").rename(folder / "anna 2.key")
    assert not Clients(folder).callback("ex4d", public)
    assert "anna 2.key" in caplog.text


def test_shared_is_one_user_for_all_and_what_was_ones_own_comes_back(
    start_service, keys, connect, with_key, scene, shot
):
    def both(service):
        return [connect(service, with_key(keys, user)) for user in ("anna", "bob")]

    service = start_service(keys=str(keys))
    anna, _ = both(service)
    anna.upload_scene(scene)
    own = anna.submit(shot("good"))
    assert anna.finish(own)[0].state == "done"
    service.stop()

    service.settings["shared"] = True
    service.start()
    anna, bob = both(service)
    assert bob.ask(ListJobs()).jobs == [] and code_of(anna.ask(GetEvents(own))) == "unknown-job"
    anna.upload_scene(scene)
    job = anna.submit(shot("good"))
    events = bob.finish(job)[1]
    assert bob.download(events[-2].sha256) and [one.job for one in bob.ask(ListJobs()).jobs] == [job]
    assert bob.ask(DescribeJobs()).jobs[0].owner == "" and bob.cancel(job).state == "done"
    service.stop()

    service.settings["shared"] = False
    service.start()
    anna, bob = both(service)
    assert [one.job for one in anna.ask(ListJobs()).jobs] == [own] and bob.ask(ListJobs()).jobs == []
    assert anna.ask(BlobStatus([scene.digest])).received == [-1]


def test_flags_name_the_admins(tmp_path):
    parser = argparse.ArgumentParser()
    add_flags(parser, ServiceSettings)
    assert settings_from(parser.parse_args([]), ServiceSettings).admins == ()
    options = parser.parse_args(["--admin", "anna", "--admin", "bob", "--keys", str(tmp_path)])
    assert settings_from(options, ServiceSettings).admins == ("anna", "bob")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"admins": ["anna"]}, "without keys there is one user"),
        ({"admins": ["anna"], "keys": "keys", "shared": True}, "--shared makes all clients one user"),
        ({"admins": ["../x"], "keys": "keys"}, "invalid --admin '../x'"),
    ],
)
def test_an_admin_where_there_can_be_none_is_refused(settings, says):
    with pytest.raises(RequestError, match=says):
        ServiceSettings(**settings)
