"""Run the backend service that Blender talks to.

On this machine's own address no keys are needed. Any other address needs CURVE keys: make them with --create-keys,
once for each client. A service that runs already lets a new client in at once.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

from ex4d.cli.options import add_accept_licence_argument, add_machine_arguments, machine_settings
from ex4d_core.messages import DEFAULT_ADDRESS

SUMMARY = "run the backend service that Blender talks to"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", default=DEFAULT_ADDRESS, help="where to listen")
    parser.add_argument("--data", type=Path, help="folder for jobs, blobs and keys; default: the user's data folder")
    parser.add_argument("--keys", type=Path, help="folder of CURVE keys; default: keys in the data folder")
    parser.add_argument(
        "--device",
        action="append",
        help="cpu, cuda:0, ...; one worker each, cuda:0+1 being one on two; default: all GPUs, or cpu",
    )
    parser.add_argument("--hang-seconds", type=float, default=300.0, help="a job without progress for so long is ended")
    parser.add_argument("--keep-days", type=float, default=30.0, help="finished jobs are forgotten after so many days")
    parser.add_argument(
        "--cache-gb", type=float, default=50.0, help="footage and results that nobody needs may take so much room"
    )
    parser.add_argument(
        "--create-keys",
        metavar="CLIENT",
        nargs="?",
        const="client",
        help="make keys for a client of this name ('client' if none is given), and the service's own if it has none; "
        "then stop",
    )
    parser.add_argument("--verbose", action="store_true", help="log every event")
    add_machine_arguments(parser)
    add_accept_licence_argument(parser)


def run(options: argparse.Namespace) -> int:
    from ex4d.service import ServiceSettings, create_keys, run_service

    _start_logging(options.verbose)
    chosen = {"data": options.data, "keys": options.keys}
    settings = ServiceSettings(
        address=options.address,
        devices=tuple(options.device or visible_devices()),
        machine=machine_settings(options),
        hang_seconds=options.hang_seconds,
        keep_days=options.keep_days,
        cache_gb=options.cache_gb,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    if options.create_keys is not None:
        made = create_keys(settings.keys or settings.data / "keys", options.create_keys)
        print(f"Give these two files to {options.create_keys}, then delete the first one here:", file=sys.stderr)
        print(made.client_secret, made.server_public, sep="\n")
        return 0
    return run_service(settings)


def _start_logging(verbose: bool) -> None:
    """In colour for people at a terminal; in a file or a journal a line for each event, with its time."""
    import logging

    level = logging.DEBUG if verbose else logging.INFO
    if not sys.stderr.isatty():
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
        return
    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler])


def visible_devices() -> list[str]:
    """All GPUs that the driver lists and CUDA_VISIBLE_DEVICES leaves visible, or else the processor.

    Asking the driver spares this process the weight of torch.

    Raises:
        ServiceError: the driver does not answer.
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
        raise ServiceError("nvidia-smi does not answer; mend the driver, or name the devices with --device") from error
    if listed.returncode:
        said = (listed.stdout or listed.stderr).strip().partition("\n")[0] or f"exit code {listed.returncode}"
        logging.getLogger(__name__).warning(
            "the processor will do all the work, since nvidia-smi finds no GPU: %s; mend the driver if there is one",
            said,
        )
        return ["cpu"]
    count = sum(line.strip().isdigit() for line in listed.stdout.splitlines())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # CUDA numbers those that it is shown from 0 on, and stops at the first that it does not know.
        names = list(itertools.takewhile(lambda name: name not in ("", "-1"), map(str.strip, visible.split(","))))
        count = min(count, len(names))
    return [f"cuda:{index}" for index in range(count)] or ["cpu"]
