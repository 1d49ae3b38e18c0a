"""The command line that `ex4d addon` and `scripts/build_addon.py` share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .published_wheels import PLATFORMS
from .zip_file import SOURCE, build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("-o", "--output", type=Path, help="the zip to write (default: outputs/ex4d-<version>.zip)")
    parser.add_argument(
        "--platform",
        action="append",
        choices=list(PLATFORMS),
        metavar="NAME",
        help=f"a system to build for; repeat it for several: {', '.join(PLATFORMS)} (default: all in one zip)",
    )
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder of the add-on (default: this project's)")


def run(options: argparse.Namespace, folder: Path = Path("outputs")) -> None:
    """Build the zip, by default into a folder, and say where it is and how it was validated."""
    platforms = list(dict.fromkeys(options.platform or PLATFORMS))
    built = build(options.source, options.output, platforms, folder, print)
    size = built.stat().st_size / 1e6
    print(f"{os.path.relpath(built)}: {size:.1f} MB, for {', '.join(platforms)}. To install: drag it into Blender.")
