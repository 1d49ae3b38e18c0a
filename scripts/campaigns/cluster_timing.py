"""What the front's work for shots and clients costs, and whether `cluster_model` tells how long four nodes take.

The shots only wait, for as long as their labels say, so that the time is that of the queue, the rule for warm models
and the cluster, whatever the processor has to do besides.
"""

from __future__ import annotations

import random
import time
import uuid
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from campaigns.cluster_split import FourNodes
from campaigns.outcome import Outcome
from campaigns.service import PATIENCE, Service, ask, connected, shot, workplace, write_scene
from cluster_model import ClusterModel, Costs, Kind
from ex4d_core.client import Client, Conversation
from ex4d_core.job_status import FINAL_STATES
from ex4d_core.messages import EventsReply, GetEvents, Hello, Submit, Submitted
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest
from ex4d_core.transfers import Sent, scene_blobs, upload_blobs
from ex4d_core.wan_settings import Lora, WanSettings

_NODES, _BEATS, _QUICK = 4, 2000, 200
_LOAD = 4.0
_KINDS = (Kind("preview", 0.5, 0.5), Kind("final", 0.5, 2.0, _LOAD, 3))
# Shots come at this pace on average: the nodes are busy for most of the time.
_PAUSE = 0.7
_TOLERANCE = 0.15


@dataclass(frozen=True)
class _Planned:
    at: float
    kind: Kind
    models: str


def run(seed: int, count: int) -> Outcome:
    """Measure the front, and run ``count`` shots at random times on four nodes."""
    outcome = Outcome()
    with workplace() as folder:
        scene = write_scene(folder / "scene")
        (folder / "one").mkdir()
        _measure_front(Service(folder / "one"), scene, outcome)
        plan = _plan(random.Random(seed), count)
        (folder / "four").mkdir()
        with closing(FourNodes(folder)) as nodes:
            place: dict[str, Any] = {"cluster": nodes.address, "cluster_cores": 1, "cluster_shared": False}
            overhead, real = _run_plan(Service(folder / "four", **place), scene, plan)
    model = ClusterModel(_NODES, Costs())
    for one in plan:
        model.send_at(one.at, replace(one.kind, seconds=one.kind.seconds + overhead), one.models)
    told = model.run()
    ends = {"makespan": (max(real.values()), told.makespan), "mean turnaround": (_mean(plan, real), told.turnaround)}
    outcome.figures["seconds of a shot besides its own"] = round(overhead, 3)
    for name, (measured, modelled) in ends.items():
        outcome.figures[name] = f"{measured:.1f} s, by the model {modelled:.1f} s"
        near = abs(modelled / measured - 1) <= _TOLERANCE
        outcome.require(near, f"the model's {name} is {modelled:.1f} s, the cluster's {measured:.1f} s")
    return outcome


def _measure_front(service: Service, scene: Scene, outcome: Outcome) -> None:
    """Processor time of the front for a sign of life, and for a shot with all of its messages."""
    try:
        with closing(connected(service.address)) as client:
            client.run(upload_blobs(scene_blobs(scene), Sent()), timeout=PATIENCE)
            began = _processor_time(service)
            for _ in range(_BEATS):
                ask(client, Hello("campaign"))
            between = _processor_time(service)
            for number in range(_QUICK):
                client.run(_follow(shot(scene, f"quick {number}")), timeout=PATIENCE)
            ended = _processor_time(service)
            outcome.figures["ms of the front for a sign of life"] = round(1e3 * (between - began) / _BEATS, 3)
            outcome.figures["ms of the front for a shot"] = round(1e3 * (ended - between) / _QUICK, 2)
    finally:
        service.stop()


def _processor_time(service: Service) -> float:
    times = psutil.Process(service.process.pid).cpu_times()
    return times.user + times.system


def _plan(choices: random.Random, count: int) -> list[_Planned]:
    at, plan = 0.0, []
    for _ in range(count):
        (kind,) = choices.choices(_KINDS, [kind.share for kind in _KINDS])
        plan.append(_Planned(at, kind, kind.models(choices)))
        at += choices.expovariate(1 / _PAUSE)
    return plan


def _run_plan(service: Service, scene: Scene, plan: list[_Planned]) -> tuple[float, dict[int, float]]:
    """Seconds that a shot takes besides its own, and when each shot of a plan was done, after the first was sent."""
    try:
        with closing(connected(service.address)) as client:
            _wait_for_nodes(client, service.log)
            client.run(upload_blobs(scene_blobs(scene), Sent()), timeout=PATIENCE)
            request, began = shot(scene, "timed 0 0"), time.monotonic()
            for number in range(2 * _NODES):
                client.run(_follow(replace(request, label=f"timed 0 0 {number}")), timeout=PATIENCE)
            overhead = (time.monotonic() - began) / (2 * _NODES)
            return overhead, _follow_all(client, scene, plan)
    finally:
        service.stop()


def _follow_all(client: Client, scene: Scene, plan: list[_Planned]) -> dict[int, float]:
    tasks, ends, began = {}, {}, time.monotonic()
    while len(ends) < len(plan):
        now = time.monotonic() - began
        while len(tasks) < len(plan) and plan[len(tasks)].at <= now:
            tasks[len(tasks)] = client.start(_follow(_request(scene, plan[len(tasks)], len(tasks))))
        client.wait(0.01)
        client.require_answer(PATIENCE)
        for number, task in tasks.items():
            if task.done and number not in ends:
                if task.error is not None:
                    raise task.error
                ends[number] = time.monotonic() - began
    return ends


def _request(scene: Scene, one: _Planned, number: int) -> ShotRequest:
    request = shot(scene, f"timed {one.kind.load_seconds} {one.kind.seconds} {number}")
    if not one.models:
        return request
    return replace(request, engine="wan", wan=WanSettings(loras=(Lora(one.models.replace(" ", "_")),)))


def _follow(request: ShotRequest) -> Conversation[None]:
    """Submit a shot, and wait for its end."""
    submitted: Submitted = yield Submit(uuid.uuid4().hex, request.to_wire())
    last, state = 0, "queued"
    while state not in FINAL_STATES:
        reply: EventsReply = yield GetEvents(submitted.job, last, 5.0)
        last, state = reply.status.events, reply.status.state
    if state != "done":
        raise RuntimeError(f"a shot {request.label!r} is {state}: {reply.status.reason}")


def _wait_for_nodes(client: Client, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while sum("core" in one for one in client.ask(Hello("campaign"), timeout=PATIENCE).devices) < _NODES:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the workers are not there: {log.read_text()[-2000:]}")
        time.sleep(0.2)


def _mean(plan: list[_Planned], ends: dict[int, float]) -> float:
    return sum(ends[number] - one.at for number, one in enumerate(plan)) / len(plan)
