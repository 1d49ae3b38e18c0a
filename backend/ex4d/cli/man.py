"""Print the manual page of ex4d and all its verbs, made from the parsers that --help uses.

ex4d man > ~/.local/share/man/man1/ex4d.1       afterwards: man ex4d
"""

from __future__ import annotations

import argparse

from ex4d.cli.report import Report

SUMMARY = "print the manual page"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ex4d man`, which has none of its own."""


def run(options: argparse.Namespace, report: Report) -> int:
    """Run `ex4d man`."""
    page = manual_page()
    report.say(page)
    report.add("page", page, "")
    return 0


def manual_page() -> str:
    """The page as roff, for man(1)."""
    from argparse_manpage.manpage import Manpage

    from ex4d.cli.main import build_parser

    return str(Manpage(build_parser(), format="pretty"))
