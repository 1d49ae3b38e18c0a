"""Benchmarks of `ex4d bench`: each prints a table with ratios; no test depends on them."""

from __future__ import annotations

import os
from pathlib import Path

from ex4d.subprocesses import module_environment

# Of `ex4d bench generate`, in its order. Defined here, so that the command line does not import torch.
PARTS = ("passes", "jobs", "memory", "gpus", "decode", "live", "files", "switch", "cold")
# Those that need no files of weights; measured only where they are asked for.
FURTHER_PARTS = ("fewer", "attention", "peer")
# Of `ex4d bench train`, in its order; and the sizes of its experiment on learning.
TRAINING_PARTS = ("masks", "steps", "learning")
TOYS = ("tiny", "full")


def bench_environment() -> dict[str, str]:
    """This process's environment variables, with which `python -m bench.MODULE` finds these packages."""
    environment = module_environment()
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).resolve().parents[1])
    return environment
