"""Where a cluster's workers and shots go: what a worker takes of a node, and which shots wait for a warm worker.

A shot goes to a worker that holds its models already, if waiting for it is shorter than loading. The rule has a few
lines, so that it can be simulated: a shot waits only while all of these hold

    no worker that is free holds its models (it would take it)
    the time to load them is known, from when they were loaded before
    some busy worker that holds them, and that no shot before it waits for, is expected to be free earlier than that

Without the part about shots before it, all shots of a busy set of models would wait for the one worker that has it: in
`scripts/simulate_cluster.py` one shot in a hundred then waits longer than any load takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ex4d.service.settings import ServiceSettings
from ex4d_core.reconstruction import AnyRequest
from ex4d_core.shot import ShotRequest

# A resource of nodes, which whoever starts Ray there declares.
GPU_MEMORY = "gpu_memory_gb"


@dataclass(frozen=True)
class Busy:
    """Another worker, as far as the rule needs it.

    Attributes:
        models: what it holds, or is loading; "" for nothing.
        free_in: seconds until it is expected to take the next job; 0 for now, infinity if nobody can tell.
    """

    models: str
    free_in: float


def models_of(request: AnyRequest) -> str:
    """What a worker must load for a job, in a text that is equal for equal models; "" for nothing that takes long."""
    if not isinstance(request, ShotRequest) or request.engine != "wan":
        return ""
    wan = request.wan
    loras = ",".join(f"{lora.name}*{lora.weight:g}" for lora in wan.loras)
    return f"wan {wan.precision} {wan.fp8_attention} {wan.adapter} {loras}"


def waits_for_warm(
    models: str, held: str, others: Iterable[Busy], load_seconds: Mapping[str, float], ahead: int = 0
) -> bool:
    """Whether a free worker leaves a shot to another one.

    Args:
        models: that the shot needs; see `models_of`.
        held: by the free worker.
        others: all other workers.
        load_seconds: how long models took to load, by their text.
        ahead: shots before it in the queue that wait for the same models.
    """
    if models in ("", held) or models not in load_seconds:
        return False
    free = sorted(other.free_in for other in others if other.models == models)
    return ahead < len(free) and free[ahead] < load_seconds[models]


def left_to_warm(
    queue: Iterable[tuple[str, str]], held: str, others: Sequence[Busy], load_seconds: Mapping[str, float]
) -> list[str]:
    """The shots of a queue that a free worker leaves to others.

    Args:
        queue: ids of shots, and the models that they need, in their order.
        held, others, load_seconds: as for `waits_for_warm`.
    """
    left, ahead = [], Counter[str]()
    for shot, models in queue:
        if waits_for_warm(models, held, others, load_seconds, ahead[models]):
            left.append(shot)
        ahead[models] += 1
    return left


def seconds_left(elapsed: float, done: int, total: int) -> float:
    """Until a stage is over, at the pace so far; infinity before its first step is done."""
    return elapsed * (total - done) / done if done > 0 else float("inf")


def resources_of(settings: ServiceSettings) -> dict[str, Any]:
    """What Ray reserves for a worker, as options of an actor."""
    memory = {GPU_MEMORY: settings.cluster_gpu_memory} if settings.cluster_gpu_memory else {}
    if settings.cluster_cores:
        return {"num_cpus": settings.cluster_cores, "resources": memory}
    return {"num_cpus": 0, "num_gpus": 1, "resources": memory}


def room_of(node: Mapping[str, float], resources: Mapping[str, Any]) -> int:
    """How many workers a node's resources are enough for."""
    wanted = {"CPU": resources["num_cpus"], "GPU": resources.get("num_gpus", 0), **resources["resources"]}
    return min(int(node.get(name, 0) / amount) for name, amount in wanted.items() if amount)
