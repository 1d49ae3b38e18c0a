"""Measure methods' results on a data set, with and without true views, by a protocol.

  ex4d evaluate DATASET --results ours=takes --results other=frames -o report
  ex4d evaluate DATASET --results ours=takes --protocol ex4d-paper -o report
  ex4d evaluate DATASET --generate ours -o report      make this project's takes by the protocol, and measure them
  ex4d evaluate --votes answers1.csv answers2.csv      count what a study's page saved

Results are found by the names of the tasks (CLIP, or CLIP/RANGE with a protocol that has ranges): NAME.mp4, a folder
NAME of images, or a take's folder. Writes report.json, report.md and report.html; with --study a page for people, too.
What was made and measured before is taken from the folder, so that an interrupted run goes on. The exit code is 1 where
anything is missing, was fitted to the protocol, or is suspicious: the report names it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ex4d.cli.options import add_accept_licence_argument, add_models_arguments, machine_settings
from ex4d.cli.report import Report
from ex4d_core.errors import RequestError

SUMMARY = "measure methods' results on a data set, with and without true views"
DEFAULT_PROTOCOL = "with-truth"
OF_THE_REPORT = ("cache", "report.json", "report.md", "report.html", "study.html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, nargs="?", help="a folder; see the documentation for its layouts")
    parser.add_argument("-o", "--out", type=Path, help="a folder for the report and for what was measured")
    parser.add_argument(
        *("--results",),
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="a method's results; repeatable",
    )
    parser.add_argument(
        "--generate",
        metavar="NAME",
        help="first make takes of all clips as the protocol says, into OUT/NAME, and measure them under this name",
    )
    parser.add_argument(
        "--protocol",
        default=DEFAULT_PROTOCOL,
        help="with-truth, single-views, masks, ex4d-paper, or a .toml file (default: with-truth)",
    )
    parser.add_argument(
        "--layout",
        help="of the data set: dycheck, kubric-4d, parallel-domain-4d, vista4d, true-scenes or folder (default: what "
        "it looks like)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0, or cuda:0+1 for several")
    parser.add_argument("--study", action="store_true", help="also write study.html, which compares methods blindly")
    parser.add_argument("--seed", type=int, default=0, help="of the study's order (default: 0)")
    parser.add_argument(
        "--votes", type=Path, nargs="+", help="count the answers that study.html saved, and nothing else"
    )
    add_models_arguments(parser)
    add_accept_licence_argument(parser)


def run(options: argparse.Namespace, report: Report) -> int:
    if options.votes:
        return _count(options.votes, report)
    if options.dataset is None or options.out is None:
        raise RequestError("give a data set, and --out for the report")
    return _evaluate(options, report)


def _evaluate(options: argparse.Namespace, report: Report) -> int:
    from rich.table import Table

    from ex4d.devices import Devices
    from ex4d.evaluation import Method, evaluate
    from ex4d.evaluation.html_report import write_html
    from ex4d.evaluation.own_takes import generate_takes
    from ex4d.evaluation.protocols import Protocol
    from ex4d.evaluation.report_files import cell, column_names, heading, write_json, write_markdown
    from ex4d.evaluation.results import is_method
    from ex4d.evaluation.user_study import write_study

    methods = [Method.parse(text) for text in options.results]
    protocol = Protocol.load(options.protocol)
    names = [one.name for one in methods]
    if options.generate is not None and (
        options.generate in (*names, *OF_THE_REPORT) or not is_method(options.generate)
    ):
        raise RequestError(f"--generate: {options.generate!r} is taken, or no folder's name: choose another name")
    if options.accept_licence and options.generate is None:
        raise RequestError("--accept-licence: only takes need it: give --generate with it")
    options.out.mkdir(parents=True, exist_ok=True)
    machine, work = machine_settings(options), options.out / "cache"
    if options.generate is not None:
        how = {"layout": options.layout, "device": options.device, "machine": machine, "note": report.note}
        with report.stages() as progress:
            own = options.generate, options.out / options.generate
            methods.insert(0, generate_takes(options.dataset, *own, protocol, work, **how, progress=progress))
    with report.stages() as progress:
        evaluation = evaluate(
            options.dataset,
            methods,
            protocol,
            work,
            layout=options.layout,
            devices=Devices.parse(options.device).resolve().names,
            machine=machine,
            progress=progress,
            note=report.note,
        )
    known = {clip.name: clip.truth or clip.source for clip in evaluation.clips}
    files = [options.out / f"report.{ending}" for ending in ("json", "md", "html")]
    write_json(evaluation, files[0])
    write_markdown(evaluation, files[1])
    write_html(evaluation, files[2], known)
    if options.study:
        files.append(options.out / "study.html")
        report.add("pairs", write_study(evaluation, files[-1], seed=options.seed))
    names = column_names(evaluation)
    table = Table("figure", *(f"{row.method} {row.group}".strip() for row in evaluation.table), box=None)
    for name in names:
        table.add_row(heading(name), *(cell(row, name) for row in evaluation.table))
    report.show(table)
    report.add("table", {f"{row.method} {row.group}".strip(): row.figures for row in evaluation.table}, "")
    report.add("files", files, ", ".join(file.name for file in files))
    report.add("problems", evaluation.problems, "")
    for problem in evaluation.problems:
        report.note(problem)
    report.add("remarks", evaluation.remarks, "")
    for remark in evaluation.remarks:
        report.note(remark)
    return 1 if evaluation.problems or evaluation.remarks else 0


def _count(files: list[Path], report: Report) -> int:
    from ex4d.evaluation.user_study import count_votes

    for method, votes in count_votes(files).items():
        text = f"preferred in {100 * votes.share:.1f} % of {votes.shown} pairs"
        report.add(method, {"wins": votes.wins, "ties": votes.ties, "shown": votes.shown, "share": votes.share}, text)
    return 0
