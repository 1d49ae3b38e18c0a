"""Build the Blender add-on as an installable zip, with all that it needs inside; takes seconds and needs no Blender."""

from __future__ import annotations

import argparse

from ex4d.cli.report import Report

SUMMARY = "build the Blender add-on's installable zip"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ex4d addon`."""
    from ex4d.addon.command import add_arguments as add_flags

    add_flags(parser)


def run(options: argparse.Namespace, report: Report) -> int:
    """Run `ex4d addon`."""
    from ex4d.addon.command import run as build_zip

    path, platforms = build_zip(options, say=report.say)
    report.add("addon", path, "")
    report.add("platforms", platforms, "")
    return 0
