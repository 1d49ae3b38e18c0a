"""The command ``ex4d``, with a verb for each task of the backend; every verb is a module of `ex4d.cli`."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

from ex4d.cli.checkout import CHECKOUT_VERBS, run_in_checkout
from ex4d_core import __version__
from ex4d_core.errors import is_expected, user_message

# Every verb is a module of `ex4d.cli` with SUMMARY, add_arguments(parser) and run(arguments) -> exit code.
# They import what they need when they run, so that `ex4d --help` does not wait for torch.
VERBS = ("demo", "addon", "serve", "reconstruct", "render", "generate", "models", "jobs", "doctor")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 when done, 1 when the work failed with a reason (printed), 2 for a wrong command line, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in CHECKOUT_VERBS:
        return _run(words[0], lambda: run_in_checkout(words[0], words[1:]))
    options = build_parser().parse_args(words)
    return _run(options.verb, lambda: options.run(options))


def run_program(name: str, program: ModuleType, arguments: Sequence[str] | None = None) -> int:
    """Run a verb that is a program of its own; see `main` for what it returns.

    Args:
        program: a module with SUMMARY, add_arguments and run, as verbs are.
    """
    parser = _Parser(prog=f"ex4d {name}", description=program.__doc__, formatter_class=_HelpFormatter)
    program.add_arguments(parser)
    options = parser.parse_args(arguments)
    return _run(name, lambda: program.run(options))


def _run(verb: str, work: Callable[[], int]) -> int:
    """Do a verb's work, and say in one sentence what went wrong where the user can act on it."""
    # Files may have names that are no UTF-8, which are printed as they are.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    # As after Ctrl-C, so that processes of ours are ended and files put away; `serve` has its own way.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return work()
    except KeyboardInterrupt:
        print(f"ex4d {verb}: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if not is_expected(error):
            raise
        print(f"ex4d {verb}: {user_message(error)}", file=sys.stderr)
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
    for name, summary in CHECKOUT_VERBS.items():
        verbs.add_parser(name, help=summary, add_help=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
