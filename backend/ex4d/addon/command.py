"""The command line that `ex4d addon` and `scripts/build_addon.py` share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from .published_wheels import PLATFORMS
from .zip_file import LINKS, SOURCE, build


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
    parser.add_argument("--website", metavar="URL", help="the project's website, which Blender's preferences show")
    parser.add_argument("--issues", metavar="URL", help="where to report bugs, for the add-on's preferences")
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder of the add-on (default: this project's)")


def run(
    options: argparse.Namespace, folder: Path = Path("outputs"), say: Callable[[str], None] = print
) -> tuple[Path, list[str]]:
    """Build the zip, by default into a folder; returns its path and its platforms.

    Args:
        say: called with how it was validated, and at last with where it is.
    """
    platforms = list(dict.fromkeys(options.platform or PLATFORMS))
    links = {key: address for key in LINKS if (address := getattr(options, key))}
    built = build(options.source, options.output, platforms, folder, say, links)
    size = built.stat().st_size / 1e6
    say(f"{os.path.relpath(built)}: {size:.1f} MB, for {', '.join(platforms)}. To install: drag it into Blender.")
    return built, platforms
