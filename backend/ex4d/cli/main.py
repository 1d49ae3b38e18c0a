"""The command ``ex4d``: one verb for each thing the backend does. The verbs stand in `ex4d.cli`."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from ex4d_core import __version__
from ex4d_core.errors import is_expected, user_message

# Every verb is a module of `ex4d.cli` with SUMMARY, add_arguments(parser) and run(arguments) -> exit code.
# They import what they need when they run, so that `ex4d --help` does not wait for torch.
VERBS = ("demo", "serve", "reconstruct", "render", "generate", "models", "parity", "jobs", "doctor", "bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 when done, 1 when the work failed with a reason (printed), 2 for a wrong command line, 130 after Ctrl-C.
    """
    options = build_parser().parse_args(arguments)
    # Files may have names that are no UTF-8, which are printed as they are.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    # As after Ctrl-C, so that processes of ours are ended and files put away; `serve` has its own way.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print(f"ex4d {options.verb}: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if not is_expected(error):
            raise
        print(f"ex4d {options.verb}: {user_message(error)}", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one sentence: a verb's whole usage, before it, would hide that."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the paragraphs of a description, and its indented lines; shows defaults, but not those that say nothing."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = []
        for paragraph in text.strip().split("\n\n"):
            is_list = any(line.startswith(" ") for line in paragraph.splitlines())
            paragraphs.append(paragraph if is_list else super()._fill_text(paragraph, width, indent))
        return "\n\n".join(paragraphs)

    def _get_help_string(self, action: argparse.Action) -> str:
        says_nothing = action.default in (None, False, True, "", (), argparse.SUPPRESS)
        return (says_nothing and action.help) or super()._get_help_string(action) or ""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line, one subparser a verb."""
    from importlib import import_module

    parser = _Parser(
        prog="ex4d",
        description="Move the camera after the shoot: footage to depth, DW-Mesh, masks and new frames (EX-4D).",
    )
    parser.add_argument("--version", action="version", version=f"ex4d {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name in VERBS:
        module = import_module(f"ex4d.cli.{name}")
        verb = verbs.add_parser(
            name,
            help=module.SUMMARY,
            description=module.__doc__,
            formatter_class=_HelpFormatter,
        )
        module.add_arguments(verb)
        verb.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
