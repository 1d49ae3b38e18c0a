"""Workers on the nodes of a Ray cluster: two nodes on this machine, and a service whose jobs run there."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from campaigns.ray_nodes import RayNodes
from ex4d_core.messages import Hello

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="workers on a cluster need the extra cluster")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A cluster with one node; a test may add others."""
    nodes = RayNodes(tmp_path_factory.mktemp("ray"), Path(__file__).parent)
    nodes.add()
    yield nodes
    nodes.stop()


@pytest.fixture
def start_on_cluster(start_service, nodes, monkeypatch):
    def start(**settings):
        return start_service(cluster=nodes.address, cluster_cores=1, **settings)

    for name, value in nodes.environment.items():
        monkeypatch.setenv(name, value)
    return start


def frames_of(events):
    return sorted(event.index for event in events if event.kind == "frame")


def test_a_job_runs_on_a_node_that_sees_none_of_the_services_files(start_on_cluster, connect, scene, shot):
    service = start_on_cluster(cluster_shared=False)
    wire = connect(service)
    wire.upload_scene(scene)
    status, events = wire.finish(wire.submit(shot("good")))
    assert (status.state, status.attempt) == ("done", 1), status.reason
    assert frames_of(events) == [0, 1, 2, 3, 4, 5]
    for event in events:
        assert event.kind != "frame" or wire.download(event.sha256) == f"frame {event.index} of gradient".encode()
    (device,) = wire.ask(Hello()).devices
    assert "of node" in device


def test_a_job_whose_worker_dies_goes_to_the_next_one_and_says_why(
    start_on_cluster, connect, scene, shot, nodes, tmp_path
):
    service = start_on_cluster()
    wire = connect(service)
    wire.upload_scene(scene)
    go = tmp_path / "go"
    job = wire.submit(shot(f"wait {go}"))
    wire.wait_for_half(job)
    (worker,) = nodes.workers()
    worker.kill()
    go.touch()
    status, events = wire.finish(job)
    assert (status.state, status.attempt) == ("done", 2)
    assert frames_of(events) == [0, 1, 2, 3, 4, 5]
    service.wait_for_log(r"the worker on cpu of node \S+ (died|was lost)")


def test_a_job_that_kills_its_workers_fails_and_the_next_one_runs(start_on_cluster, connect, scene, shot):
    service = start_on_cluster()
    wire = connect(service)
    wire.upload_scene(scene)
    deadly, good = wire.submit(shot("die")), wire.submit(shot("good"))
    status, _ = wire.finish(deadly)
    assert (status.state, status.attempt) == ("failed", 3)
    assert "in 3 attempts" in status.reason
    assert wire.finish(good)[0].state == "done"


def test_jobs_of_a_node_that_dies_run_on_another(start_on_cluster, connect, scene, shot, nodes, tmp_path):
    short_lived = nodes.add()
    service = start_on_cluster()
    wire = connect(service)
    wire.upload_scene(scene)
    go = tmp_path / "go"
    jobs = [wire.submit(shot(f"wait {go}")) for _ in range(2)]
    for job in jobs:
        wire.wait_for_half(job)
    nodes.kill(short_lived)
    go.touch()
    ends = [wire.finish(job) for job in jobs]
    assert sorted((status.state, status.attempt) for status, _ in ends) == [("done", 1), ("done", 2)]
    assert [frames_of(events) for _, events in ends] == [[0, 1, 2, 3, 4, 5]] * 2


def test_a_driver_that_dies_finds_its_queue_again_and_leaves_no_worker(
    start_on_cluster, connect, scene, shot, nodes, tmp_path
):
    service = start_on_cluster()
    wire = connect(service)
    wire.upload_scene(scene)
    go = tmp_path / "go"
    jobs = [wire.submit(shot(f"wait {go}")), wire.submit(shot("good"))]
    wire.wait_for_half(jobs[0])
    (old,), (driver,) = nodes.workers(), service.worker_pids()
    os.kill(driver, signal.SIGKILL)
    go.touch()
    ends = [wire.finish(job)[0] for job in jobs]
    assert [(status.state, status.attempt) for status in ends] == [("done", 2), ("done", 1)]
    psutil.wait_procs([old])


def test_a_cancelled_job_stops_and_its_worker_takes_the_next(start_on_cluster, connect, scene, shot, nodes, tmp_path):
    service = start_on_cluster()
    wire = connect(service)
    wire.upload_scene(scene)
    job = wire.submit(shot(f"count {tmp_path / 'never'}"))
    wire.wait_for_half(job)
    workers = nodes.workers()
    assert wire.cancel(job).state == "cancelled"
    assert wire.finish(wire.submit(shot("good")))[0].state == "done"
    assert nodes.workers() == workers, "it need not load its models again"
