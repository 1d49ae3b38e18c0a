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
VERBS = ("demo", "serve", "reconstruct", "render", "generate", "models", "jobs", "doctor")


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
    """Do a verb's work; print an error that the user can act on as one sentence."""
    # File names that are not UTF-8 are printed as they are.
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
    """Reports an invalid command line in one sentence, without the usage, which would hide it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the paragraphs and indented lines of a description; shows defaults other than None, False and empty."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = []
        for paragraph in text.strip().split("\n\n"):
            is_list = any(line.startswith(" ") for line in paragraph.splitlines())
            paragraphs.append(paragraph if is_list else super()._fill_text(paragraph, width, indent))
        return "\n\n".join(paragraphs)

    def _get_help_string(self, action: argparse.Action) -> str:
        says_nothing = action.default in (None, False, True, "", (), [], argparse.SUPPRESS)
        return (says_nothing and action.help) or super()._get_help_string(action) or ""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line, one subparser a verb."""
    from importlib import import_module

    parser = _Parser(
        prog="ex4d",
        description="Re-shoot finished footage with a new camera (EX-4D): reconstruct, then render or generate; serve "
        "runs the backend for Blender.",
        epilog="Exit codes: 0 done, 1 failed, 2 invalid command line, 130 stopped by Ctrl-C. Environment variables: "
        "EX4D_MODELS, EX4D_LICENCE, EX4D_VRAM_LIMIT_GB.",
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
