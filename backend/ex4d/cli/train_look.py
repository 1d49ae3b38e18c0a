"""`ex4d train look`: a folder of a production's clips becomes an adapter, by the commands that each do a part of it."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from ex4d.cli.flags import settings_from
from ex4d.cli.options import add_overwrite_argument, machine_settings, positive_number, size
from ex4d.cli.report import Report
from ex4d.cli.train_options import add_start_settings, add_where
from ex4d.subprocesses import module_command, module_environment
from ex4d.training.settings import CARD_SAMPLES, AdapterShape, TrainingSettings
from ex4d_core.errors import RequestError
from ex4d_core.schema import Field, Settings, fields_of

SUMMARY = "all of it: a folder of clips to an adapter in use"


def run(options: argparse.Namespace, report: Report) -> int:
    """Make an adapter of a folder of clips: data set, training, export. Repeated, the command continues its work.

    Each part is a command of its own, which is shown. The adapter continues from EX-4D's own, with samples and memory
    for the card, and is then there for --adapter NAME and in Blender's Final Settings.
    """
    from ex4d.training.base_model import find_base, find_start
    from ex4d.training.export import adapter_place
    from ex4d.training.run_folder import RunFolder

    machine, run_folder = machine_settings(options), RunFolder(options.run)
    target = adapter_place(machine.models, options.name)
    # Hours before they would stop the work.
    find_base(machine.models, machine.model_path)
    settings = settings_from(options, TrainingSettings)
    if run_folder.exists:
        settings = run_folder.config().settings
    else:
        find_start(options.start, machine.models, machine.model_path)
    settings.batch_of(options.gpus)
    replace = target.exists()
    if replace and not options.overwrite and not run_folder.has_exported(target):
        raise RequestError(
            f"the adapter {options.name} exists, and is not of the run {options.run} ({target}): choose another "
            "--name, or --overwrite"
        )
    for words in commands(options, replace=replace):
        report.note(f"runs: {shlex.join(words)}")
        command = process_of([*words, *(["--quiet"] if options.quiet else [])], options.gpus)
        # With --json, stdout has this command's document alone.
        output = sys.stderr if report.as_json else None
        code = subprocess.run(command, check=False, env=module_environment(), stdout=output).returncode
        if code:
            raise RequestError(
                f"ex4d {' '.join(words[1:3])} ended with code {code}, as said above; repeat this command to continue"
            )
    report.add("adapter", target)
    report.say(f"use it with --engine wan --adapter {options.name}, or choose it in Blender's Final Settings")
    return 0


def commands(options: argparse.Namespace, *, replace: bool) -> list[list[str]]:
    """The commands, of which those that have done their part already end at once.

    Args:
        replace: the adapter that exists; without it, one that has come into being since is kept.
    """
    data, run_folder = options.run / "data", options.run
    frames, width, height = CARD_SAMPLES[options.card]
    frames, (width, height) = options.frames or frames, options.size or (width, height)
    models = ["--models", str(options.models)] if options.models else []
    models += [word for path in options.model_path or () for word in ("--model-path", str(path))]
    sample = ["--frames", str(frames), "--size", f"{width}x{height}"]
    sample += ["--prompt", options.prompt] if options.prompt else []
    device = [] if options.device == "auto" else ["--device", options.device]
    build = ["ex4d", "dataset", "build", str(options.clips), "-o", str(data), *sample, *device, *models]
    words = changed_words(options, TrainingSettings)
    if (run_folder / "run.json").is_file():
        train = ["ex4d", "train", "resume", str(run_folder), *words, *device, *models]
    else:
        begin = ["--from", options.start, "--card", options.card, *changed_words(options, AdapterShape)]
        train = ["ex4d", "train", "start", str(data), str(run_folder), *begin, *words, *device, *models]
    export = ["ex4d", "train", "export", str(run_folder), "--name", options.name, *models]
    export += ["--overwrite"] if replace else []
    return [build, train, export]


def changed_words(options: argparse.Namespace, kind: type[Settings]) -> list[str]:
    """The flags of a settings type that say something else than its defaults."""
    return [
        word
        for entry in fields_of(kind)
        if entry.option is not None and getattr(options, entry.name) != entry.default
        for word in _words(entry, getattr(options, entry.name))
    ]


def _words(entry: Field, value: Any) -> list[str]:
    flag = (entry.option.flag if entry.option else "") or f"--{entry.name.replace('_', '-')}"
    if not isinstance(value, bool):
        return [flag, str(value)]
    optional = type(None) in get_args(entry.annotation)
    return [f"--no-{flag[2:]}" if optional and not value else flag]


def process_of(words: Sequence[str], gpus: int) -> list[str]:
    """The process of a command: this Python, and accelerate's launcher where several GPUs train."""
    if gpus == 1 or words[2] not in ("start", "resume"):
        return module_command("ex4d", *words[1:])
    how = ["--multi_gpu", "--num_processes", str(gpus), "--num_machines", "1", "--mixed_precision", "no"]
    return module_command("accelerate.commands.launch", *how, "--dynamo_backend", "no", "-m", *words)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ex4d train look`."""
    parser.add_argument("clips", type=Path, help="a folder of clips, or a .csv file: see ex4d dataset build")
    parser.add_argument("run", type=Path, help="a folder for the data set, and the run's states and logs")
    parser.add_argument("--name", required=True, help="name of the adapter")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="of clips without a caption")
    parser.add_argument("--frames", type=positive_number, metavar="N", help="of a sample; default: as --card has it")
    parser.add_argument("--size", type=size, metavar="WxH", help="of a sample; default: as --card has it")
    parser.add_argument("--gpus", type=positive_number, default=1, metavar="N", help="how many GPUs train")
    add_overwrite_argument(parser, "an adapter of that name")
    add_start_settings(parser, "published")
    add_where(parser)
