"""What hangs is told, and does not hold up others: jobs without progress, and a stopped live view process."""

import os
import signal
import time
from dataclasses import replace

import pytest

from ex4d.cli.main import main
from ex4d_core import stages
from ex4d_core.client import Client
from ex4d_core.job_status import JobSilence, JobStatus
from ex4d_core.messages import AskSilence, Error, EventsReply, Hello, Silence
from ex4d_core.remote_take import RemoteTake
from ex4d_core.stages import silence_text
from ex4d_core.view_messages import GetView, View


def test_silence_is_told_from_twenty_seconds_on():
    assert silence_text(19.9, 300) == ""
    assert silence_text(20.4, 300) == "no progress for 20 s, stopped at 300 s"


def test_the_service_tells_how_long_a_job_made_no_progress(service, wire, scene, shot):
    wire.upload_scene(scene)
    job = wire.submit(shot("stubborn"))
    wire.wait_for_half(job)
    first = next(one for one in wire.ask(AskSilence()).jobs if one.job == job)
    second = next(one for one in wire.ask(AskSilence()).jobs if one.job == job)
    assert 0 <= first.seconds < second.seconds and first.limit == 300
    wire.cancel(job)
    wire.finish(job)


def test_clients_and_lists_say_so(service, wire, scene, shot, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stages, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr("ex4d_core.remote_job._EVENT_WAIT_SECONDS", 0.1)
    client = Client(service.address)
    remote = RemoteTake(tmp_path / "take", request=shot("stubborn"), scene=scene)
    task = client.start(remote.conversation())
    while "no progress for" not in remote.stage:
        client.wait()
        assert not task.done
    assert remote.stage.startswith("halfway, no progress for") and remote.eta_seconds() is None
    assert main(["jobs", "--backend", service.address]) == 0
    assert "no progress" in capsys.readouterr().out
    remote.cancel(client)
    while not task.done:
        client.wait()
    client.close()


def test_a_service_that_cannot_tell_is_asked_once(tmp_path, shot):
    """It refuses the message as an unknown type."""
    from ex4d_core.conversations import RequestRefused

    remote = RemoteTake(tmp_path, request=shot(), job="j")
    reply = EventsReply(JobStatus("j", "", "preview", "running", "render", 1, 2), [])
    assert list(remote._ask_silence(reply)) == []
    asked = remote._ask_silence(reply)
    assert next(asked) == AskSilence()
    with pytest.raises(StopIteration):
        asked.throw(RequestRefused("bad-message", "unknown type"))
    assert list(remote._ask_silence(reply)) == []
    newer = RemoteTake(tmp_path, request=shot(), job="j")
    assert list(newer._ask_silence(reply)) == []
    asked = newer._ask_silence(reply)
    next(asked)
    with pytest.raises(StopIteration):
        asked.send(Silence([JobSilence("other", 50.0, 300.0), JobSilence("j", 35.2, 300.0)]))
    assert newer.silence == "no progress for 35 s, stopped at 300 s"


def test_a_stopped_live_view_process_is_replaced_within_seconds_and_others_are_served(
    start_service, connect, scene, shot
):
    service = start_service(stalled_view_seconds=4.0)
    wire, other = connect(service), connect(service)
    wire.upload_scene(scene)
    request = shot("view")
    view = GetView(replace(request, camera=request.camera.frames(1, 2), first_frame=1).to_wire())
    assert isinstance(wire.ask(view), View)
    pid = int(service.wait_for_log(r"live view process (\d+) started")[1])
    os.kill(pid, signal.SIGSTOP)
    began, asked = time.monotonic(), wire.send(view)
    assert not isinstance(other.ask(Hello()), Error)
    answered, reply = wire.receive()
    assert answered == asked and isinstance(reply, View), "computed by the next process, not refused"
    assert time.monotonic() - began < 60, "and not after the two minutes that a first view may take"
    service.wait_for_log(rf"live view process {pid} hangs; it is replaced")
