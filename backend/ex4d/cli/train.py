"""Train an adapter of EX-4D's kind on a data set of encoded samples (see ex4d dataset build), and export it.

  ex4d train look CLIPS RUN --name NAME  all of it: a folder of clips becomes the adapter NAME for --adapter and Blender
  ex4d train start DATASET RUN           start a run
  ex4d train resume RUN                  continue one, exactly where its last state is
  ex4d train export RUN -o FILE          write its adapter to one file

Several GPUs: accelerate launch --num_processes 4 -m ex4d train start DATASET RUN
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from inspect import cleandoc
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from ex4d.cli import train_look
from ex4d.cli.flags import add_flags, given, settings_from
from ex4d.cli.options import add_models_arguments, add_overwrite_argument, machine_settings, positive_number
from ex4d.cli.report import Report
from ex4d.cli.train_options import add_start_settings, add_where
from ex4d.training.settings import AdapterShape, TrainingSettings
from ex4d_core.errors import RequestError

if TYPE_CHECKING:
    from ex4d.training.session import Session

SUMMARY = "train an adapter on your own footage, and export it"


def start_run(options: argparse.Namespace, report: Report) -> int:
    """Start a run: train an adapter on a data set."""
    from ex4d.training.base_model import find_base, find_start
    from ex4d.training.run_folder import RunFolder
    from ex4d.training.session import Session, configure
    from ex4d.training.shards import Dataset

    machine, run = machine_settings(options), RunFolder(options.run)
    where = machine.models, machine.model_path
    settings, shape = settings_from(options, TrainingSettings), settings_from(options, AdapterShape)
    dataset, base = Dataset.open(options.dataset), find_base(*where)
    config = configure(settings, shape, dataset, base, find_start(options.start, *where), options.card)
    if run.exists and _is_first():
        run.require_same(config)
        raise RequestError(f"{run.folder} has this very run already: continue it with ex4d train resume {run.folder}")
    return _train(Session(run, config, *where), options, report)


def resume_run(options: argparse.Namespace, report: Report) -> int:
    """Continue a run exactly where its last state is.

    Its settings are those that it was started with. Options that change what it computes are refused, with the
    difference; those of states, samples and memory are not.
    """
    from ex4d.training.session import Session

    machine = machine_settings(options)
    session = Session.resume(options.run, machine.models, machine.model_path, options.dataset)
    changed = replace(session.config, settings=replace(session.config.settings, **given(options, TrainingSettings)))
    session.run.require_same(changed)
    return _train(Session(session.run, changed, machine.models, machine.model_path), options, report)


def export_run(options: argparse.Namespace, report: Report) -> int:
    """Write a run's adapter to one file with the published names.

    With --name it goes where --adapter NAME and Blender's Final Settings find it; with -o it goes anywhere. The
    original EX-4D loads a .ckpt of the published size (rank 16, 1024 hidden channels).
    """
    from ex4d.training.export import adapter_place, export_adapter_file
    from ex4d.training.run_folder import RunFolder

    if (options.out is None) == (options.name is None):
        raise RequestError("give either --name, the adapter's name, or -o, a file")
    target = options.out or adapter_place(machine_settings(options).models, options.name)
    step = export_adapter_file(RunFolder(options.run), target, options.step, overwrite=options.overwrite)
    report.add("adapter", target)
    report.add("step", step)
    if options.name is not None:
        report.say(f"use it with --engine wan --adapter {options.name}, or choose it in Blender's Final Settings")
    return 0


def _train(session: Session, options: argparse.Namespace, report: Report) -> int:
    from ex4d.devices import torch_device

    with report.stages() as progress:
        step = session.train(
            str(torch_device(options.device)),
            options.until,
            progress,
            on_tensor=lambda done, total: progress("load", done, total),
            say=report.note,
        )
    if _is_first():
        report.add("run", session.run.folder)
        report.add("step", step, f"{step} of {session.config.settings.steps}")
        report.add("logs", session.run.logs)
    return 0


def _is_first() -> bool:
    """Whether this is the first of the processes that accelerate's launcher started, or alone."""
    import os

    return os.environ.get("RANK", "0") == "0"


def _add_until(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--until", type=positive_number, metavar="STEP", help="end after this step; resume goes on")


def _add_start_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="a data set: a folder or an address")
    parser.add_argument("run", type=Path, help="a folder for the run's states, logs and samples")
    _add_until(parser)
    add_start_settings(parser, "zero")
    add_where(parser)


def _add_resume_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("--dataset", default="", help="where the data set is now, if it has moved")
    _add_until(parser)
    add_flags(parser.add_argument_group("training"), TrainingSettings, unset=True)
    add_where(parser)


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="a .ckpt or .safetensors file")
    parser.add_argument("--name", help="name of the adapter in the folder of weights")
    parser.add_argument("--step", type=positive_number, metavar="STEP", help="of this state; default: the last one")
    add_overwrite_argument(parser, "a file of that name")
    add_models_arguments(parser)


ACTIONS = {
    name: SimpleNamespace(SUMMARY=summary, __doc__=cleandoc(run.__doc__ or ""), add_arguments=add_arguments, run=run)
    for name, summary, add_arguments, run in (
        ("look", train_look.SUMMARY, train_look.add_arguments, train_look.run),
        ("start", "start a run on a data set", _add_start_arguments, start_run),
        ("resume", "continue a run where its last state is", _add_resume_arguments, resume_run),
        ("export", "write a run's adapter to one file", _add_export_arguments, export_run),
    )
}
