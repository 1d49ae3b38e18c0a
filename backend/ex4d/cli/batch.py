"""Make many shots that a file describes: a scene of each footage, and its renders or takes.

One process for each device makes one shot after the other. What is finished is skipped when the same command runs
again, and a shot that fails stops no other. The file is TOML, or CSV with a row for each shot; its fields are the long
options of reconstruct, render and generate:

  [defaults]
  preset = "orbit"
  [[shot]]
  name = "garden"
  footage = "garden.mp4"
  depth = "garden.npz"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ex4d.cli.dry_run import add_dry_run_argument, tell
from ex4d.cli.options import device
from ex4d.cli.report import Report
from ex4d.progress import Progress
from ex4d_core import __version__

if TYPE_CHECKING:
    from ex4d.cli.batch_file import Shot
    from ex4d.cli.batch_run import Outcome

SUMMARY = "make many shots that a file describes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shots", type=Path, help="a .toml or .csv file; relative paths in it start at its folder")
    parser.add_argument("-o", "--out", type=Path, help="folder for all outputs; default: beside the file, named as it")
    parser.add_argument(
        "--device",
        type=device,
        action="append",
        help="auto, cpu, cuda:N, or cuda:N+M for the engine wan; repeat it for a process each; default: a process for "
        "every GPU, else one on the processor",
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="SHOT",
        help="make only this shot: its name, or its number in the file from 1; repeatable. Processes on several "
        "machines may make shots of one file so",
    )
    parser.add_argument("--list", action="store_true", help="print the names of the shots, and make nothing")
    parser.add_argument("--scenes", action="store_true", help="make only the scenes of the shots")
    add_dry_run_argument(parser)


def run(options: argparse.Namespace, report: Report) -> int:
    from ex4d.cli.batch_estimate import estimate_shots
    from ex4d.cli.batch_file import LOG, REPORT, STATE, BatchError, read_batch
    from ex4d.cli.batch_locks import single_shots, whole_batch
    from ex4d.cli.batch_run import BatchState, run_shots
    from ex4d.pipeline.disk_room import require_room

    folder = (options.out or options.shots.with_suffix("")).absolute()
    if folder.exists() and not folder.is_dir():
        raise BatchError(f"{folder} is a file; give a folder with --out")
    shots = _chosen(read_batch(options.shots, folder), options)
    if options.list:
        for shot in shots:
            report.say(shot.name)
        report.add("shots", [shot.name for shot in shots], "")
        return 0
    if not shots:
        report.add("shots", [], f"{options.shots}: every shot is of a scene that is there")
        return 0
    devices = options.device or ["auto"]
    state = BatchState(folder)
    state.require_ours(shots)
    estimate, unreadable = estimate_shots(shots, state, devices[0], disk_only=not options.dry_run)
    if options.dry_run:
        for name, reason in unreadable.items():
            report.note(f"shot {name} is not in the estimate: {reason}")
        report.add("shots", [shot.name for shot in shots], f"{len(shots)} in {folder}")
        tell(estimate, folder, report)
        return 0
    require_room(folder, estimate.disk_bytes, f"the rest of {len(shots)} shots")
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: dict[Path, Outcome] = {}
    is_whole = not (options.only or options.scenes)
    with ExitStack() as stack:
        if is_whole:
            stack.enter_context(whole_batch(folder))
            how: dict[str, Any] = {"log": LOG}
        else:
            let_go = stack.enter_context(single_shots(shots, folder, state.is_finished, report.note))
            how = {"log": f"{STATE}/{shots[0].name}.log", "ended": let_go}
        how["progress"] = stack.enter_context(_progress(report))
        try:
            run_shots(shots, folder, devices, outcomes=outcomes, **how)
        finally:
            rows = _rows(shots, outcomes)
            if is_whole:
                _write_report(folder / REPORT, options.shots, rows)
    notes: dict[str, list[str]] = {}
    for row in rows:
        for note in row["notes"]:
            notes.setdefault(note, []).append(row["name"])
    for note, names in notes.items():
        report.note(f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: {note}")
    report.show(_table(rows))
    failed = [row for row in rows if row["state"] == "failed"]
    for row in failed:
        report.say(f"! {row['name']}: {row['error']}")
    report.add("shots", rows, "")
    if is_whole:
        report.add("report", folder / REPORT)
    return 1 if failed else 0


def _chosen(shots: list[Shot], options: argparse.Namespace) -> list[Shot]:
    """The shots that are asked for; with --scenes their scenes, each as a shot of its first one's name."""
    from ex4d.cli.batch_file import BatchError, Shot

    if options.only:
        by_name = {str(number): shot for number, shot in enumerate(shots, 1)} | {shot.name: shot for shot in shots}
        if unknown := [name for name in options.only if name not in by_name]:
            raise BatchError(
                f"--only: {options.shots} has no shot {', '.join(unknown)}; it has {len(shots)}: "
                f"{', '.join(shot.name for shot in shots[:10])}{'...' if shots[10:] else ''}"
            )
        shots = list(dict.fromkeys(by_name[name] for name in options.only))
    if options.scenes:
        scenes = {shot.scene.out: Shot(shot.name, None, shot.scene) for shot in reversed(shots) if shot.scene}
        shots = list(reversed(scenes.values()))
    return shots


def _rows(shots: Sequence[Shot], outcomes: dict[Path, Outcome]) -> list[dict[str, Any]]:
    """The report of every shot."""
    from ex4d.cli.batch_run import Outcome

    rows = []
    for shot in shots:
        view = outcomes.get(shot.view.out, Outcome())
        scene = Outcome() if shot.scene is None else outcomes.get(shot.scene.out, Outcome())
        rows.append(
            {
                "name": shot.name,
                "state": view.state,
                "error": view.error or None,
                "verb": shot.view.verb,
                "out": str(shot.view.out),
                "seconds": round(view.seconds, 3),
                "device": view.device or None,
                "scene": None if shot.scene is None else str(shot.scene.out),
                "scene_state": None if shot.scene is None else scene.state,
                "scene_seconds": round(scene.seconds, 3),
                "notes": list(dict.fromkeys([*scene.notes, *view.notes])) if view.state != "skipped" else [],
                "result": {**scene.result, **view.result},
            }
        )
    return rows


def _write_report(path: Path, file: Path, rows: list[dict[str, Any]]) -> None:
    from ex4d.cli.batch_run import write_json

    states = [row["state"] for row in rows]
    count = {state: states.count(state) for state in dict.fromkeys(states)}
    write_json(path, {"ex4d": __version__, "file": str(file.absolute()), "count": count, "shots": rows})


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table("shot", "state", "seconds", "output", box=None)
    for row in rows:
        seconds = f"{row['seconds'] + row['scene_seconds']:.1f}" if row["state"] == "done" else ""
        table.add_row(row["name"], row["state"], seconds, row["out"])
    return table


@contextmanager
def _progress(report: Report) -> Iterator[Progress]:
    """At a terminal one bar that names shot and stage, and one for the shots; elsewhere lines in a log."""
    if report.quiet or not sys.stderr.isatty():
        with report.stages() as progress:
            yield progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    described = TextColumn("{task.description:32}", markup=False)
    with Bars(described, BarColumn(), MofNCompleteColumn(), console=Console(stderr=True)) as bars:
        shots, stage = bars.add_task("shots", total=None), bars.add_task("")

        def show(text: str, done: int, total: int) -> None:
            over, _, rest = text.partition(" of ")
            if total or not over.isdigit():
                bars.update(stage, description=text, completed=done, total=total or None)
            else:
                bars.update(shots, completed=int(over), total=int(rest.split()[0]))

        yield show
