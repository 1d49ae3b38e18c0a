"""Where a shot goes in a cluster: to a worker that holds its models already, if waiting for it is shorter than loading.

A rule of a few lines, so that it can be simulated: a shot waits for a warm worker only while all of these hold

    no worker that is free holds its models (it would take it)
    the time to load them is known, from when they were loaded before
    some busy worker that holds them is expected to be free earlier than that
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ex4d_core.reconstruction import ReconstructionRequest
from ex4d_core.shot import ShotRequest


@dataclass(frozen=True)
class Busy:
    """Another worker, as far as the rule needs it.

    Attributes:
        models: what it holds, or is loading; "" for nothing.
        free_in: seconds until it is expected to take the next job; 0 for now, infinity if nobody can tell.
    """

    models: str
    free_in: float


def models_of(request: ShotRequest | ReconstructionRequest) -> str:
    """What a worker must load for a job, in a text that is equal for equal models; "" for nothing that takes long."""
    if isinstance(request, ReconstructionRequest) or request.engine != "wan":
        return ""
    wan = request.wan
    loras = ",".join(f"{lora.name}*{lora.weight:g}" for lora in wan.loras)
    return f"wan {wan.precision} {wan.fp8_attention} {wan.adapter} {loras}"


def waits_for_warm(models: str, held: str, others: Iterable[Busy], load_seconds: Mapping[str, float]) -> bool:
    """Whether a free worker leaves a shot to another one.

    Args:
        models: that the shot needs; see `models_of`.
        held: by the free worker.
        others: all other workers.
        load_seconds: how long models took to load, by their text.
    """
    if models in ("", held) or models not in load_seconds:
        return False
    soonest = min((other.free_in for other in others if other.models == models), default=float("inf"))
    return soonest < load_seconds[models]


def seconds_left(elapsed: float, done: int, total: int) -> float:
    """Until a stage is over, at the pace so far; infinity before its first step is done."""
    return elapsed * (total - done) / done if done > 0 else float("inf")
