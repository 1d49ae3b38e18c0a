"""Workers on the nodes of a Ray cluster on this machine, and a service whose jobs run there; all tests share it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest

from campaigns.ray_nodes import RayNodes
from ex4d.pipeline.coverage import SceneCoverage
from ex4d_core.cameras import CameraPath
from ex4d_core.messages import Hello
from ex4d_core.view_messages import Coverage, GetCoverage

PATIENCE = 240.0
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="workers on a cluster need the extra cluster")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A cluster with one node; a test may add others."""
    nodes = RayNodes(tmp_path_factory.mktemp("ray"), Path(__file__).parent)
    nodes.add()
    yield nodes
    nodes.stop()


@pytest.fixture(scope="module")
def service(service_process, nodes, tmp_path_factory):
    """Its nodes see none of its files, as if they were other machines."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in nodes.environment.items():
            patch.setenv(name, value)
        place = {"cluster": nodes.address, "cluster_cores": 1, "cluster_shared": False}
        service = service_process(tmp_path_factory.mktemp("service") / "data", **place)
        yield service
        assert service.stop() == 0


@pytest.fixture
def wire(service, connect, scene):
    wire = connect(service)
    wire.upload_scene(scene)
    return wire


def frames_of(events):
    return sorted(event.index for event in events if event.kind == "frame")


def test_a_job_runs_on_a_node_and_its_files_come_back(wire, shot):
    status, events = wire.finish(wire.submit(shot("good")))
    assert (status.state, status.attempt) == ("done", 1), status.reason
    assert frames_of(events) == [0, 1, 2, 3, 4, 5]
    for event in events:
        assert event.kind != "frame" or wire.download(event.sha256) == f"frame {event.index} of gradient".encode()
    (device,) = wire.ask(Hello()).devices
    assert "of node" in device


def test_an_error_there_is_the_jobs_own_and_the_worker_goes_on(wire, shot, nodes):
    workers = nodes.workers()
    status, _ = wire.finish(wire.submit(shot("refuse")))
    assert (status.state, status.reason) == ("failed", "this shot cannot be made; choose another")
    assert nodes.workers() == workers


def test_a_cancelled_job_stops_and_its_worker_takes_the_next(wire, shot, nodes, tmp_path):
    job = wire.submit(shot(f"count {tmp_path / 'never'}"))
    wire.wait_for_half(job)
    workers = nodes.workers()
    assert wire.cancel(job).state == "cancelled"
    assert wire.finish(wire.submit(shot("good")))[0].state == "done"
    assert nodes.workers() == workers, "it need not load its models again"


def test_a_driver_that_dies_finds_its_queue_again_and_leaves_no_worker(service, wire, shot, nodes, tmp_path):
    go = tmp_path / "go"
    jobs = [wire.submit(shot(f"wait {go}")), wire.submit(shot("good"))]
    wire.wait_for_half(jobs[0])
    (old,), (driver,) = nodes.workers(), service.worker_pids()
    os.kill(driver, signal.SIGKILL)
    go.touch()
    ends = [wire.finish(job)[0] for job in jobs]
    assert [(status.state, status.attempt) for status in ends] == [("done", 2), ("done", 1)]
    psutil.wait_procs([old])


def test_jobs_of_a_worker_and_of_a_node_that_die_run_on_others(service, wire, shot, nodes, tmp_path):
    short_lived = nodes.add()
    go = tmp_path / "go"
    jobs = [wire.submit(shot(f"wait {go}")) for _ in range(2)]
    for job in jobs:
        wire.wait_for_half(job)
    nodes.kill(short_lived)
    service.wait_for_log(r"the worker on cpu of node \S+ (was lost|died)")
    (worker,) = nodes.workers()
    worker.kill()
    go.touch()
    ends = [wire.finish(job) for job in jobs]
    assert [(status.state, status.attempt) for status, _ in ends] == [("done", 2), ("done", 2)]
    assert [frames_of(events) for _, events in ends] == [[0, 1, 2, 3, 4, 5]] * 2


def test_a_job_is_not_blamed_for_a_node_that_was_drained(wire, shot, nodes, tmp_path):
    drained = nodes.add()
    go = tmp_path / "go"
    jobs = [wire.submit(shot(f"wait {go}")) for _ in range(2)]
    for job in jobs:
        wire.wait_for_half(job)
    nodes.drain(drained)
    nodes.kill(drained)
    go.touch()
    ends = [wire.finish(job)[0] for job in jobs]
    assert [(status.state, status.attempt) for status in ends] == [("done", 1)] * 2


def test_a_head_that_dies_is_told_and_the_next_one_gets_the_jobs(service, wire, shot, nodes, tmp_path):
    go = tmp_path / "go"
    job = wire.submit(shot(f"wait {go}"))
    wire.wait_for_half(job)
    nodes.kill_head()
    deadline = time.monotonic() + PATIENCE
    while not any("ray start --head" in device for device in wire.ask(Hello()).devices):
        assert time.monotonic() < deadline, wire.ask(Hello()).devices
        time.sleep(0.1)
    go.touch()
    nodes.start_head()
    nodes.add()
    status, events = wire.finish(job)
    assert (status.state, status.attempt) == ("done", 1), "the job is not to blame"
    assert frames_of(events) == [0, 1, 2, 3, 4, 5]


def test_coverage_of_a_long_shot_is_computed_by_idle_workers_too(service, wire, scene, shot):
    """To the same values as here, bit for bit."""
    request, frames = shot("coverage"), 200
    poses = np.repeat(request.camera.world_to_camera[:1], frames, axis=0)
    poses[:, 0, 3] = np.linspace(0.0, -2.0, frames)
    camera = CameraPath(poses, request.camera.intrinsics[0], *request.camera.size)
    long = replace(request, camera=camera, source_frames=tuple(number % 6 for number in range(frames)))
    log, deadline = service.data / "logs" / "cluster.log", time.monotonic() + PATIENCE
    wire.ask(GetCoverage(long.part(0, 1).to_wire()))  # starts the process
    with service.live_views_paused():
        asked = wire.send(GetCoverage(long.to_wire()))
        while "coverage of shots of scene" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
    answered, reply = wire.receive()
    assert answered == asked and isinstance(reply, Coverage), reply
    assert dict(SceneCoverage(scene, device="cpu").of(long).to_wire()) == {
        name: getattr(reply, name) for name in ("seen", "view_angle", "remembered")
    }
    assert 0 < min(reply.seen) < max(reply.seen) == 1


def test_idle_workers_leave_their_nodes_and_come_back_for_jobs(service_process, connect, scene, shot, tmp_path):
    """As an autoscaler needs it, which ends nodes that nobody uses."""
    nodes = RayNodes(tmp_path, Path(__file__).parent)
    nodes.add(2)
    place = {"cluster": nodes.address, "cluster_cores": 1, "cluster_shared": False, "cluster_idle_minutes": 0.01}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in nodes.environment.items():
            patch.setenv(name, value)
        service = service_process(tmp_path / "data", **place)
    wire = connect(service)
    wire.upload_scene(scene)
    for turn in range(2):
        go = tmp_path / f"go {turn}"
        jobs = [wire.submit(shot(f"wait {go}")) for _ in range(2)]
        for job in jobs:
            wire.wait_for_half(job)  # both at once
        go.touch()
        assert [wire.finish(job)[0].state for job in jobs] == ["done", "done"]
        service.wait_for_log("had no work for a while and left its node")
        service.log.clear()
    assert len(wire.ask(Hello()).devices) == 1
    assert service.stop() == 0
    nodes.stop()
