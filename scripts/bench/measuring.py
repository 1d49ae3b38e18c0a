"""Shared by the benchmarks: a row of a table, the description of the machine, and the median of several runs."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
import torch

from ex4d_core import __version__


@dataclass(frozen=True)
class Row:
    """One row of the table: what was measured, the figure with its unit, and a remark."""

    what: str
    figure: str
    remark: str = ""


def machine() -> str:
    """The date, machine and versions of a measurement."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = f"ex4d {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    return f"{date.today():%d %b %Y}, {os.cpu_count()} cores ({platform.machine()}), {gpu}, {versions}"


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall time after a warm-up run, work on a GPU included."""
    work()
    times = []
    for _ in range(repeats):
        wait_for_gpu()
        start = time.perf_counter()
        work()
        wait_for_gpu()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def median_ms(work: Callable[[], object], repeats: int = 5) -> float:
    """`median_seconds` in milliseconds."""
    return 1000 * median_seconds(work, repeats)


def wait_for_gpu() -> None:
    """Wait until all work on a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
