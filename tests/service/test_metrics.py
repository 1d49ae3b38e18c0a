"""What Prometheus, systemd and readers of the log are told: metrics, the dashboard's names, JSON with each job's id."""

from __future__ import annotations

import json
import logging
import re
import socket
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="metrics need the extra metrics")

from ex4d.service import ServiceError, ServiceSettings
from ex4d.service.job_store import JobStore
from ex4d.service.logs import JsonFormatter, message_of, working_on
from ex4d.service.metrics import Metrics, parse_gpu_memory
from ex4d.service.settings import host_and_port
from ex4d.service.supervision import Supervision
from ex4d_core.errors import RequestError

DEPLOY = Path(__file__).resolve().parents[2] / "docs" / "deploy"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def settings(tmp_path):
    return ServiceSettings(data=tmp_path)


@pytest.fixture
def store(settings):
    with closing(JobStore(settings.database)) as store:
        yield store


def value_of(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def test_a_jobs_wait_stages_frames_and_end_are_counted(settings, store, shot):
    clock, wall = Clock(), Clock()
    metrics = Metrics(settings, store, clock, wall)
    job = store.submit("key", shot(), [], owner="anna")
    wall.now = store.status(job).created + 40
    claim = store.claim("worker")
    metrics.job_changed(job)
    store.set_progress(claim, "render", 0, 3)
    metrics.job_changed(job)
    clock.now += 7
    store.set_progress(claim, "preview", 0, 3)
    for index in range(3):
        store.add_result(claim, "frame", "", index, "ab" * 32, 5)
    metrics.job_changed(job)
    clock.now += 2
    store.finish(claim)
    metrics.job_changed(job)
    assert value_of(metrics, "ex4d_wait_seconds_sum", engine="preview") == pytest.approx(40)
    assert value_of(metrics, "ex4d_stage_seconds_total", engine="preview", stage="render") == 7
    assert value_of(metrics, "ex4d_stage_seconds_total", engine="preview", stage="preview") == 2
    assert value_of(metrics, "ex4d_frames_total", engine="preview") == 3
    assert value_of(metrics, "ex4d_jobs_ended_total", engine="preview", state="done") == 1


def test_jobs_are_counted_by_state_and_user_without_waiting_for_the_service(settings, store, shot):
    metrics = Metrics(settings, store)
    store.submit("first", shot(), [], owner="anna")
    store.claim("worker")
    store.submit("second", shot(), [], owner="anna")
    store.submit("third", shot(), [], owner="bob")
    store._db.execute("BEGIN IMMEDIATE")  # somebody writes
    counts = {user: value_of(metrics, "ex4d_jobs", user=user, state="queued") for user in ("anna", "bob")}
    assert counts == {"anna": 1, "bob": 1} and value_of(metrics, "ex4d_jobs", user="anna", state="running") == 1
    assert value_of(metrics, "ex4d_oldest_queued_seconds", user="bob") >= 0
    store._db.execute("ROLLBACK")
    store.close()
    settings.database.rename(settings.data / "away")
    assert value_of(metrics, "ex4d_job_database_readable") == 0


def test_gpu_memory_is_read_from_the_driver():
    told = "0, 1024, 143771\n1, [N/A], [N/A]\nsomething else\n"
    assert parse_gpu_memory(told) == [("0", 1024 * 2**20, 143771 * 2**20)]


def test_a_service_answers_prometheus_and_every_name_of_the_dashboard_exists(start_service, connect, scene, shot):
    service = start_service(metrics="0", log_format="json")
    address = service.wait_for_log(r"metrics on (http://127\.0\.0\.1:\d+/metrics)")[1]
    wire = connect(service)
    wire.upload_scene(scene)
    job = wire.submit(shot("good"))
    assert wire.finish(job)[0].state == "done"
    wire.download(scene.digest)
    with urllib.request.urlopen(address, timeout=60) as answer:
        text = answer.read().decode()
    names = set(re.findall(r"^(ex4d_\w+)[{ ]", text, re.MULTILINE))
    assert 'ex4d_jobs{state="done",user=""} 1.0' in text and 'ex4d_process_starts_total{process="worker"} 1.0' in text
    assert 'ex4d_jobs_ended_total{engine="preview",state="done"} 1.0' in text
    assert re.search(r'ex4d_bytes_total\{direction="fetch",user=""\} [1-9]', text)
    board = json.loads((DEPLOY / "grafana-ex4d.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = {name for expression in asked for name in re.findall(r"ex4d_\w+", expression)}
    # GPUs and queued jobs that are not here have no sample.
    assert used - names <= {"ex4d_gpu_memory_bytes", "ex4d_oldest_queued_seconds"}
    families = set(re.findall(r"^# TYPE (ex4d_\w+) ", text, re.MULTILINE))
    assert families >= {"ex4d_gpu_memory_bytes", "ex4d_oldest_queued_seconds"} and len(used) > 10
    assert service.stop() == 0
    (log,) = (service.data / "logs").glob("worker-*.log")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(line.get("job") == job and line["process"] != service.process.pid for line in lines)
    lines = [json.loads(line) for line in (service.data / "logs" / "service.log").read_text().splitlines()]
    assert {line["message"] for line in lines if line.get("job") == job} >= {
        f"job {job} runs on cpu",
        f"job {job} is done ",
    }


@pytest.mark.parametrize("address", ["", "x", "host:", "1.2.3.4:99999", "http://host:1", "a b:1"])
def test_an_invalid_address_of_metrics_is_refused(address, tmp_path):
    with pytest.raises(RequestError, match="metrics"):
        ServiceSettings(data=tmp_path, metrics=address)


def test_metrics_are_on_loopback_unless_told_otherwise(settings, store):
    assert host_and_port("9747") == ("127.0.0.1", 9747) and host_and_port("[::]:1") == ("::", 1)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        metrics = Metrics(settings, store)
        try:
            metrics.serve(address)
        except ServiceError as error:
            assert f"--metrics: cannot listen on {address}" in str(error)
        else:
            pytest.fail("two servers listen on one port")


def line_of(text, *args, **more):
    record = logging.makeLogRecord({"name": "ex4d", "msg": text, "args": args, "levelname": "INFO", **more})
    line = JsonFormatter().format(record)
    assert "\n" not in line and line.isascii()
    return json.loads(line)


def test_each_line_of_json_has_its_job():
    told = line_of("job %s submitted%s: %s, %r", "ab12", " by anna", "preview", "job cd34\n\x1b[2J")
    assert told["job"] == "ab12" and told["message"].startswith("job ab12 submitted by anna")
    assert line_of("%s: cancelled job %s", "x", "ab12")["job"] == "ab12"
    assert "job" not in line_of("label %r", "job %s ab12")
    with working_on("ef56"):
        assert line_of("compiled %d kernels", 3)["job"] == "ef56"
    assert "job" not in line_of("idle")


def test_a_reason_quotes_what_a_line_of_json_says():
    try:
        raise ValueError("no such tensor")
    except ValueError as error:
        line = json.dumps(line_of("failed", exc_info=(ValueError, error, error.__traceback__)))
    assert message_of(line).startswith("failed\nTraceback") and message_of(line).endswith("no such tensor")
    assert message_of("{plain") == "{plain" and message_of('{"x": 1}') == '{"x": 1}'


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="systemd runs on Linux")
def test_systemd_hears_of_the_start_the_end_and_the_watchdog(tmp_path):
    clock = Clock()
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        told = Supervision({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"}, clock)
        told.ready("listening")
        assert systemd.recv(999) == b"READY=1\nSTATUS=listening"
        assert told.tick() == 30 and systemd.recv(999) == b"WATCHDOG=1"
        clock.now += 29
        assert told.tick() == 1
        told.stopping()
        assert systemd.recv(999) == b"STOPPING=1", "no watchdog before it is due"
        clock.now += 1
        told.tick()
        assert systemd.recv(999) == b"WATCHDOG=1"
    told.stopping()  # nobody listens any more
    assert Supervision({}).tick() == float("inf")
    other = {"NOTIFY_SOCKET": "@ex4d", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    assert Supervision(other).tick() == float("inf"), "the watchdog is another process's"
