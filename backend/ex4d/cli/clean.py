"""Show caches and leftovers of ex4d with their sizes, and remove them.

  kernels    our compiled kernels in Warp's cache; the next run compiles them again
  download   partial downloads of weights that nothing has written to for a day
  converted  weights as the engine wan uses them, beside the weights; the next load from these makes them again
  temporary  temporary folders of processes that were killed more than a day ago
  service    jobs of the service that ended more than --days DAYS ago, and footage and results unused for as long

Weights, scenes and takes stay. A service must not be running on the data folder meanwhile.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ex4d.cli.options import confirmed, machine_settings
from ex4d.cli.report import Report
from ex4d_core.sizes import size_text

SUMMARY = "show and remove caches and leftovers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ex4d clean`."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--yes", action="store_true", help="remove without asking")
    what.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="data folder of the service; default: the user's")
    parser.add_argument(
        "--days", type=float, default=30.0, metavar="DAYS", help="age of the service's jobs and files to remove"
    )
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="weights; default: $EX4D_MODELS, else user data")


def run(options: argparse.Namespace, report: Report) -> int:
    """Run `ex4d clean`."""
    from rich.table import Table

    from ex4d.leftovers import compiled_kernels, converted_weights, interrupted_downloads, temporary_folders
    from ex4d.service import ServiceError, ServiceSettings, prunable, prune
    from ex4d.service.folder_lock import locked

    if not options.days >= 0:
        raise ServiceError(f"invalid --days {options.days:g}: expected a number of days, 0 or more")
    machine = machine_settings(options)
    settings = ServiceSettings(machine=machine, **({} if options.data is None else {"data": options.data}))
    with locked(settings.data, create=False):
        of_models = [*interrupted_downloads(machine.models), *converted_weights(machine.models)]
        found = [*compiled_kernels(), *of_models, *temporary_folders()]
        old = prunable(settings, options.days)
        rows = [{"kind": one.kind, "path": one.path, "bytes": one.bytes} for one in found]
        if old.jobs or old.bytes:
            rows.append({"kind": "service", "path": settings.data, "bytes": old.bytes, "jobs": old.jobs})
        total = sum(row["bytes"] for row in rows)
        table = Table("kind", "size", "where", box=None)
        for row in rows:
            jobs = f", {row['jobs']} old jobs" if "jobs" in row else ""
            table.add_row(row["kind"], size_text(row["bytes"]), f"{row['path']}{jobs}")
        report.show(table if rows else "nothing to remove")
        report.add("found", rows, "")
        report.add("bytes", total, size_text(total) if rows else "")
        removed = bool(rows) and not options.dry_run
        if removed and not options.yes:
            removed = confirmed("Remove all of it?")
            if not removed:
                report.note("nothing was removed; add --yes to remove it")
        if removed:
            for one in found:
                one.remove()
            if old.jobs or old.bytes:
                prune(settings, options.days)
        report.add("removed", removed, "")
    return 0
