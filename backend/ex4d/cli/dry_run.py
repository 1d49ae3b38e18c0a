"""The option --dry-run: says about how much time, memory and disk a verb needs, and makes nothing."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ex4d.cli.report import Report

if TYPE_CHECKING:
    from ex4d.pipeline.estimate import Estimate


def add_dry_run_argument(parser: argparse._ActionsContainer) -> None:
    """For verbs that work long or write much."""
    parser.add_argument("--dry-run", action="store_true", help="estimate time, memory and disk; make nothing")


def tell(estimate: Estimate, folder: Path, report: Report) -> None:
    """Report an estimate of a command that writes into a folder; note if the disk has no room for it."""
    from ex4d.pipeline.disk_room import free_bytes
    from ex4d.pipeline.estimate import START_SECONDS, time_text
    from ex4d_core.sizes import size_text

    seconds = None if estimate.seconds is None else estimate.seconds + START_SECONDS
    free = free_bytes(folder)
    report.add("time", seconds, time_text(seconds))
    report.add("memory", estimate.memory_bytes, f"at most about {size_text(estimate.memory_bytes)}")
    if estimate.gpu_bytes:
        least = ""
        if estimate.gpu_least_bytes < estimate.gpu_bytes:
            least = f" for full speed, at least {size_text(estimate.gpu_least_bytes)}"
        report.add("gpu_memory", estimate.gpu_bytes, f"about {size_text(estimate.gpu_bytes)}{least}")
    report.add("disk", estimate.disk_bytes, f"about {size_text(estimate.disk_bytes)} of {size_text(free)} free")
    report.add("estimate", {**asdict(estimate), "free_bytes": free}, "")
    for text in estimate.basis:
        report.note(text)
    if estimate.disk_bytes > free:
        report.note(f"the disk of {folder} has no room for this: free some space, or choose another folder")
