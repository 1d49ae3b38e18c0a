"""List, download and check the published weights of the engine wan and of the depth estimators.

  ex4d models list              which parts are here, how large they are, and their licences
  ex4d models fetch [PART ...]  download what wan needs, or the named parts; resumes interrupted downloads
  ex4d models check [PART ...]  compare files with the published ones (reads every byte; --quick reads headers only)

Weights are in the folder of --models.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ex4d.cli.options import machine_settings
from ex4d.weights.catalogue import PARTS, Part
from ex4d_core.errors import RequestError

if TYPE_CHECKING:
    from ex4d.weights.inventory import CheckLayout

SUMMARY = "list, download and check the weights of the engine wan and of the depth estimators"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The action, its parts, and the folder of weights."""
    parser.add_argument("action", choices=("list", "fetch", "check"))
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(part.name for part in PARTS))
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="weights; default: $EX4D_MODELS, else user data")
    parser.add_argument("--quick", action="store_true", help="check keys and shapes only, not every byte")


def run(options: argparse.Namespace) -> int:
    """List, fetch or check."""
    models = machine_settings(options).models
    known = {part.name: part for part in PARTS}
    unknown = [name for name in options.parts if name not in known]
    if unknown:
        raise RequestError(f"unknown part {unknown[0]!r}: expected {', '.join(known)}")
    parts = [known[name] for name in options.parts or known]
    if options.action == "list":
        return _list(models, parts)
    if options.action == "check":
        return _check(models, parts, bool(options.parts), options.quick)
    return _fetch(models, parts if options.parts else [part for part in parts if part.needed])


def _list(models: Path, parts: Sequence[Part]) -> int:
    from rich.table import Table

    from ex4d.cli.options import plain_console
    from ex4d.weights.inventory import files_here
    from ex4d.weights.places import list_loras

    engine = Table("part", "what", "here", "GB", "licence", box=None)
    depth = Table("depth estimator", "here", "GB", "where", "licence", box=None)
    for part in parts:
        here, complete = files_here(models, part)
        state = "yes" if complete else (f"{len(here)} of {len(part.files)} files" if here else "no")
        if part.kind == "depth":
            depth.add_row(part.name, state, f"{part.bytes / 1e9:.2f}", ", ".join(part.repositories), part.licence)
        else:
            engine.add_row(part.name, part.title, state, f"{part.bytes / 1e9:.1f}", part.licence)
    console = plain_console()
    for table in (engine, depth):
        if table.rows:
            console.print(table)
    loras = ", ".join(path.stem for path in list_loras(models)) or "none"
    console.print(f"folder: {models}\nLoRAs for --loras: {loras}")
    return 0


def _check(models: Path, parts: Sequence[Part], named: bool, quick: bool) -> int:
    from ex4d.cli.options import progress_bar
    from ex4d.weights.inventory import check_part

    wrong = 0
    width = max(len(part.name) for part in parts) + 1
    with progress_bar() as bar:
        for part in parts:
            # Visible once there are bytes to read; a missing part has none.
            task = bar.add_task(part.name, total=None, visible=False)
            findings = check_part(
                models,
                part,
                quick=quick,
                progress=lambda done, total, task=task: bar.update(task, completed=done, total=total, visible=True),
                check_layout=_layout_check(part),
            )
            for finding in findings:
                # A part that is optional and was not asked for may be missing.
                if finding.missing and not part.needed and not named:
                    continue
                wrong += not finding.right
                verdict = "ok" if finding.right else "MISSING" if finding.missing else "WRONG"
                print(f"{verdict:8}{part.name:{width}}{finding.text}")
            bar.update(task, visible=False)
    return 1 if wrong else 0


def _layout_check(part: Part) -> CheckLayout | None:
    """The check of the room that has the part's network."""
    if part.kind == "wan":
        from ex4d.generation.wan.layouts import check_layout
    elif part.kind == "depth":
        from ex4d.depth.estimator_choice import check_layout
    else:
        return None
    return check_layout


def _fetch(models: Path, parts: Sequence[Part]) -> int:
    from ex4d.weights.fetch import fetch_part

    for part in parts:
        print(f"{part.name}: {part.title}, {part.bytes / 1e9:.1f} GB; {part.licence}")
        for path in fetch_part(models, part):
            print(f"  {path}")
    return 0
