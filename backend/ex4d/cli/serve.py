"""Run the backend service that Blender talks to.

The default address accepts only this machine and needs no keys. Any other address needs CURVE keys: create them with
--create-keys, once for each client. A running service accepts a new client at once.
"""

from __future__ import annotations

import argparse
import itertools
import sys

from ex4d.cli.flags import add_flags, settings_from
from ex4d.cli.keys import report_created
from ex4d.cli.options import add_accept_licence_argument, add_machine_arguments, machine_settings
from ex4d.cli.parsing import refuse_without_effect
from ex4d.cli.report import Report

SUMMARY = "run the backend service that Blender talks to"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ex4d serve`."""
    from ex4d.service import ServiceSettings
    from ex4d.service.logs import LOG_FORMATS

    add_flags(parser, ServiceSettings)
    parser.add_argument(
        "--device",
        action="append",
        help="cpu, cuda:0, ...: one worker each; cuda:0+1: one worker on two GPUs; default: all GPUs, or cpu",
    )
    parser.add_argument(
        "--create-keys",
        metavar="CLIENT",
        nargs="?",
        const="client",
        help="create keys for a client of this name (default: 'client'), and the service's own if it has none; then "
        "stop",
    )
    parser.add_argument(
        "--log-format",
        choices=LOG_FORMATS,
        default=LOG_FORMATS[0],
        help="json: a line of JSON for each event, with the job that it is about",
    )
    add_machine_arguments(parser)
    add_accept_licence_argument(parser)


def run(options: argparse.Namespace, report: Report) -> int:
    """Run `ex4d serve`."""
    from ex4d.service import ServiceSettings, create_keys, run_service

    if options.create_keys is not None:
        served = set(options.typed) - {"create_keys", "keys", "data", "json", "quiet", "verbose"}
        refuse_without_effect(options, sorted(served), "with --create-keys, which starts no service")
    _start_logging(report, options.log_format)
    machine, devices = machine_settings(options), options.device or visible_devices()
    settings = settings_from(options, ServiceSettings, devices=devices, machine=machine)
    if options.create_keys is not None:
        files = create_keys(settings.keys or settings.data / "keys", options.create_keys)
        report_created(files, options.create_keys, report)
        return 0
    return run_service(settings)


def _start_logging(report: Report, log_format: str) -> None:
    """Log in colour at a terminal; in a file or a journal, or as JSON, log a line with its time for each event."""
    import logging

    from ex4d.service.logs import BoundedStreamHandler, start_log

    level = logging.DEBUG if report.verbose else logging.WARNING if report.quiet else logging.INFO
    if log_format == "json" or not sys.stderr.isatty():
        start_log(BoundedStreamHandler(sys.stderr), level, log_format=log_format)
        return
    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False)
    start_log(handler, level, "%(message)s")


def visible_devices() -> list[str]:
    """All GPUs that the driver lists and CUDA_VISIBLE_DEVICES leaves visible, or else the CPU.

    This asks the driver, so that this process need not import torch.

    Raises:
        ServiceError: the driver does not reply.
    """
    import logging
    import os
    import shutil
    import subprocess

    from ex4d.service import ServiceError

    command = shutil.which("nvidia-smi")
    if command is None:
        return ["cpu"]
    try:
        listed = subprocess.run(
            [command, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        )
    except subprocess.TimeoutExpired as error:
        raise ServiceError("nvidia-smi does not respond; repair the driver, or set --device") from error
    if listed.returncode:
        output = (listed.stdout or listed.stderr).strip().partition("\n")[0] or f"exit code {listed.returncode}"
        logging.getLogger(__name__).warning(
            "using the CPU, since nvidia-smi finds no GPU: %s; repair the driver if there is one", output
        )
        return ["cpu"]
    count = sum(line.strip().isdigit() for line in listed.stdout.splitlines())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # CUDA numbers the visible devices from 0 on, and stops at the first unknown one.
        names = list(itertools.takewhile(lambda name: name not in ("", "-1"), map(str.strip, visible.split(","))))
        count = min(count, len(names))
    return [f"cuda:{index}" for index in range(count)] or ["cpu"]
