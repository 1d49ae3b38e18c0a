"""Run the backend service that Blender talks to.

On this machine's own address no keys are needed. Any other address needs CURVE keys: make them with --create-keys,
once for each client. A service that runs already lets a new client in at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backend.commands.options import add_machine_arguments, use_machine_arguments
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


def run(options: argparse.Namespace) -> int:
    import logging

    from rich.console import Console
    from rich.logging import RichHandler

    from backend.service import ServiceSettings, create_keys, run_service

    use_machine_arguments(options)

    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False)],
    )
    chosen = {"data": options.data, "keys": options.keys}
    settings = ServiceSettings(
        address=options.address,
        devices=tuple(options.device or _devices()),
        hang_seconds=options.hang_seconds,
        keep_days=options.keep_days,
        cache_gb=options.cache_gb,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    if options.create_keys is not None:
        for path in create_keys(settings.keys or settings.data / "keys", options.create_keys):
            print(path)
        return 0
    return run_service(settings)


def _devices() -> list[str]:
    """All GPUs that the driver lists, or the processor. Asking the driver spares this process the weight of torch."""
    import shutil
    import subprocess

    command = shutil.which("nvidia-smi")
    if command is None:
        return ["cpu"]
    listed = subprocess.run(
        [command, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=30, check=False
    )
    return [f"cuda:{line.strip()}" for line in listed.stdout.splitlines() if line.strip().isdigit()] or ["cpu"]
