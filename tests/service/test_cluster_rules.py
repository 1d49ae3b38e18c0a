"""What decides where a cluster's jobs go and what may be shared, without a cluster."""

from __future__ import annotations

import heapq
import random
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from ex4d.pipeline.take import PartRenderer, generate_take
from ex4d.service.cluster_demand import ClusterDemand, workers_to_have
from ex4d.service.cluster_messages import Greeting, VersionError
from ex4d.service.cluster_places import ClusterPlaces
from ex4d.service.cluster_ranges import RangesToRender, SharedShot, ranges_of
from ex4d.service.cluster_rules import (
    GPU_MEMORY,
    Busy,
    left_to_warm,
    models_of,
    resources_of,
    room_of,
    seconds_left,
    waits_for_warm,
)
from ex4d.service.inbox import Inbox
from ex4d.service.settings import ServiceError, ServiceSettings
from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.errors import RequestError
from ex4d_core.scene import SceneWriter
from ex4d_core.scene_manifest import SceneManifest
from ex4d_core.shot import ShotRequest
from ex4d_core.take_files import REQUEST_FILE
from ex4d_core.wan_settings import wan_preset

LOAD = {"A": 120.0, "B": 120.0}


def test_a_shot_waits_for_a_worker_with_its_models_only_while_that_is_shorter_than_loading():
    assert waits_for_warm("A", "", [Busy("A", 60.0)], LOAD)
    assert not waits_for_warm("A", "", [Busy("A", 180.0)], LOAD)
    assert not waits_for_warm("A", "A", [Busy("A", 0.0)], LOAD), "it holds them itself"
    assert not waits_for_warm("A", "", [Busy("B", 0.0)], LOAD)
    assert not waits_for_warm("A", "", [Busy("A", 0.0)], {}), "nobody knows how long loading takes"
    assert not waits_for_warm("", "", [Busy("", 0.0)], LOAD), "a preview loads nothing"


def test_shots_of_the_same_models_do_not_all_wait_for_one_worker():
    queue = [("first", "A"), ("other", "B"), ("second", "A"), ("third", "A")]
    assert left_to_warm(queue, "", [Busy("A", 60.0)], LOAD) == ["first"]
    assert left_to_warm(queue, "", [Busy("A", 60.0), Busy("A", 90.0), Busy("A", 180.0)], LOAD) == ["first", "second"]
    assert left_to_warm(queue, "B", [Busy("A", 60.0)], LOAD) == ["first"]
    assert left_to_warm(queue, "A", [Busy("A", 60.0), Busy("B", 0.0)], LOAD) == ["other"]


def test_an_autoscaler_is_told_of_places_for_all_unfinished_jobs_whenever_that_changes():
    asked = []
    demand = ClusterDemand(resources_of(ServiceSettings(cluster="auto", cluster_gpu_memory=40)), partial(_note, asked))
    for jobs in (0, 2, 2, 1, 0, 5000):
        demand.tell(jobs)
    assert asked[:3] == [[{"GPU": 1, GPU_MEMORY: 40}] * 2, [{"GPU": 1, GPU_MEMORY: 40}], []]
    assert len(asked) == 4 and len(asked[3]) == 1000


def _note(asked: list, *, bundles: list) -> None:
    asked.append(bundles)


def test_workers_leave_down_to_what_jobs_need_and_one():
    assert workers_to_have(capacity=4, jobs=0, working=3) == 3
    assert workers_to_have(capacity=4, jobs=0, working=0) == 1
    assert workers_to_have(capacity=4, jobs=9, working=1) == 4
    assert workers_to_have(capacity=0, jobs=9, working=1) == 0


def test_models_are_told_apart_by_what_is_loaded_and_not_by_prompts_or_steps(shot):
    standard = ShotRequest(shot().scene, shot().camera, engine="wan", wan=wan_preset("standard"))
    other_prompt = ShotRequest(shot().scene, shot().camera, engine="wan", wan=wan_preset("standard", prompt="a cat"))
    assert models_of(shot()) == ""
    assert models_of(standard) == models_of(other_prompt) != ""
    exact = ShotRequest(shot().scene, shot().camera, engine="wan", wan=wan_preset("ex4d-reference"))
    assert models_of(exact) != models_of(standard)


def simulate(warm: bool, seed: int) -> tuple[int, float]:
    """Loads, and the end of the last job, of 60 jobs of two kinds on three workers; each takes 60 s, a load 120 s."""
    choices = random.Random(seed)
    jobs = [(30.0 * number, choices.choice("AB")) for number in range(60)]
    held, free, loads, now = ["A", "B", "A"], [0.0, 0.0, 0.0], 0, 0.0
    queue: list[tuple[float, str]] = []
    events = [at for at, _ in jobs]
    heapq.heapify(events)
    while events:
        now = heapq.heappop(events)
        while jobs and jobs[0][0] <= now:
            queue.append(jobs.pop(0))
        for worker in range(3):
            others = [Busy(held[one], max(free[one] - now, 0.0)) for one in range(3) if one != worker]
            for job in [*queue] if free[worker] <= now else []:
                if warm and waits_for_warm(job[1], held[worker], others, LOAD):
                    continue
                queue.remove(job)
                cold = held[worker] != job[1]
                loads += cold
                held[worker], free[worker] = job[1], now + 60.0 + 120.0 * cold
                heapq.heappush(events, free[worker])
                break
    assert not queue and not jobs
    return loads, max(free)


@pytest.mark.parametrize("seed", range(4))
def test_in_a_simulation_the_rule_saves_loads_and_ends_sooner(seed):
    (cold_loads, cold_end), (warm_loads, warm_end) = simulate(False, seed), simulate(True, seed)
    assert warm_loads < cold_loads / 2
    assert warm_end < cold_end


def test_time_left_comes_from_the_pace():
    assert seconds_left(10.0, 1, 4) == 30.0
    assert seconds_left(10.0, 0, 4) == float("inf")


def test_a_node_has_room_for_as_many_workers_as_all_of_its_resources_are_enough_for():
    gpus = resources_of(ServiceSettings(cluster="auto", cluster_gpu_memory=40.0))
    assert room_of({"CPU": 64.0, "GPU": 8.0, GPU_MEMORY: 141.0}, gpus) == 3
    assert room_of({"CPU": 64.0, "GPU": 8.0}, gpus) == 0
    cores = resources_of(ServiceSettings(cluster="auto", cluster_cores=4))
    assert room_of({"CPU": 15.0}, cores) == 3


def test_settings_of_a_cluster_need_one():
    for wrong in ({"cluster_cores": 2}, {"cluster": "ray://head:10001"}, {"cluster": "auto", "preload": "standard"}):
        with pytest.raises(RequestError):
            ServiceSettings(**wrong)


def test_a_cluster_that_anybody_could_use_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="workers on a cluster need the extra cluster")
    settings = ServiceSettings(cluster="auto", data=tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    for mode in ("", "token"):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        with pytest.raises(ServiceError, match="RAY_AUTH_MODE"):
            ClusterPlaces(settings, Inbox())
    monkeypatch.setenv("RAY_AUTH_TOKEN", "1" * 64)
    assert not ClusterPlaces(settings, Inbox()).devices()


def test_a_node_with_another_version_is_refused_by_its_name():
    node = Greeting("0.1.0", "10.0.0.7", "", "cpu", "")
    node.require_version("0.1.0")
    with pytest.raises(VersionError, match=r"0\.1\.0.*0\.2\.0.*10\.0\.0\.7"):
        node.require_version("0.2.0")


def test_ranges_are_dealt_out_ahead_of_the_owner_who_renders_what_a_lost_helper_had():
    shot = SharedShot((0, 10, 20, 30, 40, 45))
    assert shot.take() is None, "the owner has not begun"
    assert shot.is_for_owner(0)
    assert shot.take() == 1
    assert shot.frames(1) == (10, 20)
    assert not shot.is_for_owner(1)
    assert shot.give_back(1, rendered=False), "the owner waits for it"
    assert shot.take() == 2
    assert not shot.give_back(2, rendered=True)
    assert not shot.is_for_owner(2)
    shot.end()
    assert shot.take() is None


@pytest.fixture
def ball(tmp_path):
    """A scene of 40 frames in which a square moves before a wall, and a shot of it from the side."""
    frames, width, height = 40, 48, 32
    still = CameraPath(np.repeat(np.eye(4)[None], frames, axis=0), intrinsics_matrix(45.0, 45.0, 24, 16), width, height)
    manifest = SceneManifest("square", frames, width, height, Fraction(24), "centered", (2.0, 4.0), 3.0)
    with SceneWriter(tmp_path / "scene") as writer:
        depth = np.full((frames, height, width), 4.0, np.float32)
        for index in range(frames):
            depth[index, 8:24, index // 2 + 4 : index // 2 + 20] = 2.0
        color = np.random.default_rng(1).integers(0, 256, (frames, height, width, 3)).astype(np.uint8)
        writer.array("color", color.shape, np.uint8).write(color)
        writer.array("depth", depth.shape, np.float32).write(depth)
        still.save(writer.path("source_camera"))
        scene = writer.finish(manifest)
    moved = still.world_to_camera.copy()
    moved[:, 0, 3] = np.linspace(0, 0.5, frames)
    return scene, ShotRequest(scene.digest, CameraPath(moved, still.intrinsics, width, height))


class Files:
    """A sink that keeps what it gets."""

    def __init__(self):
        self.found = {}

    def progress(self, stage, done, total): ...

    def estimate(self, number, path): ...

    def frame(self, index, path):
        self.found[index] = path.read_bytes()

    def file(self, name, path, sha256=""):
        self.found[name] = path.read_bytes()


def test_a_take_whose_frames_others_have_rendered_is_equal_bit_for_bit(ball, tmp_path):
    scene, request = ball
    alone, together = Files(), Files()
    (tmp_path / "work").mkdir()
    generate_take(scene, request, device="cpu", sink=alone, work_folder=tmp_path / "work")
    ranges = ranges_of(request)
    assert ranges == (0, 16, 32, 40)
    shared = SharedShot(ranges)

    def want(number):
        if shared.is_for_owner(number):
            rendering.supply(number, None)
        while (taken := shared.take()) is not None:
            helped.append(taken)
            rendering.supply(taken, list(helper.frames(range(*shared.frames(taken)))))

    helped, helper = [], PartRenderer(scene, request, device="cpu")
    rendering = RangesToRender(ranges, want)
    generate_take(scene, request, device="cpu", sink=together, work_folder=tmp_path / "work", render=rendering)
    assert helped == [1, 2]
    assert together.found.keys() == alone.found.keys()
    for name, content in alone.found.items():
        assert name == REQUEST_FILE or together.found[name] == content, name


def test_short_shots_and_finals_are_not_shared(ball, shot):
    assert ranges_of(shot()) == ranges_of(replace(ball[1], engine="wan")) == ()
