"""Build the Blender add-on as an installable zip, with all that it needs inside; takes seconds and needs no Blender."""

from __future__ import annotations

import argparse

SUMMARY = "build the Blender add-on's installable zip"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ex4d addon`."""
    from ex4d.addon.command import add_arguments as add_flags

    add_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Run `ex4d addon`."""
    from ex4d.addon.command import run as build_zip

    build_zip(options)
    return 0
