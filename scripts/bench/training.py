"""`ex4d bench train`: what training costs, how fast masks are simulated, and whether an adapter learns geometry."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from bench.learning import measure_learning
from bench.learning_sizes import EXPERIMENTS
from bench.measuring import Row
from ex4d.devices import cpu_cores, torch_device

# That train adapters on one GPU at the same time.
_PROCESSES = 6


def measure_training(
    parts: Collection[str],
    *,
    scratch: Path | None = None,
    toy: str | None = None,
    seeds: int = 3,
    minutes: float = math.inf,
) -> Iterator[Row]:
    """Yield the rows of some of `bench.TRAINING_PARTS`, in their order.

    Args:
        scratch: a folder that keeps what `learning` has done; by default one that is removed at the end.
        toy: a key of `EXPERIMENTS`; by default "full" on a GPU and "tiny" without.
        seeds: adapters of each kind of masks.
        minutes: after which `learning` stops, to be continued from ``scratch``.
    """
    device = torch_device("auto")
    if "masks" in parts:
        from bench.training_masks import measure_masks

        yield from measure_masks()
    if "steps" in parts:
        from bench.training_steps import measure_steps

        yield from measure_steps()
    if "learning" in parts:
        experiment = EXPERIMENTS[toy or ("tiny" if device.type == "cpu" else "full")]
        processes = 1 if device.type == "cpu" else min(_PROCESSES, max(1, cpu_cores() // 2))
        how = {"seeds": seeds, "minutes": minutes, "processes": processes}
        with tempfile.TemporaryDirectory(prefix="ex4d-learning-") as folder:
            yield from measure_learning(experiment, scratch or Path(folder), device, **how)
