"""Options that `ex4d train look`, `start` and `resume` share."""

from __future__ import annotations

import argparse

from ex4d.cli.flags import add_flags
from ex4d.cli.options import add_models_arguments, device
from ex4d.training.settings import CARDS, AdapterShape, TrainingSettings

_START = "what the adapter continues from: published (EX-4D's own), zero, or a file"


def add_where(parser: argparse.ArgumentParser) -> None:
    """Where a run computes and finds weights."""
    parser.add_argument("--device", type=device, default="auto", help="auto, cpu, cuda or cuda:N")
    add_models_arguments(parser)


def add_start_settings(parser: argparse.ArgumentParser, start: str) -> None:
    """What a new run is started with."""
    parser.add_argument("--from", dest="start", default=start, metavar="WHAT", help=_START)
    parser.add_argument("--card", choices=tuple(CARDS), default="80GB", help="GPU memory that the run may take")
    add_flags(parser.add_argument_group("adapter"), AdapterShape)
    add_flags(parser.add_argument_group("training"), TrainingSettings)
