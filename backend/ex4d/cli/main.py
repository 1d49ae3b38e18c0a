"""The command ``ex4d``: finds the verb, parses its options, runs it, and turns its end into an exit code.

Every verb is a module of `ex4d.cli` with SUMMARY, add_arguments(parser) and run(options, report) -> exit code, or with
ACTIONS, a name and such a namespace for each verb below it (`ex4d models fetch`). They import what they need when they
run, so that `ex4d --help` does not wait for torch.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from ex4d.cli.checkout import CHECKOUT_VERBS, run_in_checkout
from ex4d.cli.original import routed
from ex4d.cli.parsing import parse, under_flags
from ex4d.cli.report import Report, add_report_arguments
from ex4d.config import ConfigError
from ex4d.machine import ENVIRONMENT
from ex4d_core import __version__
from ex4d_core.errors import is_expected, user_message

VERBS = (
    *("demo", "addon", "serve", "reconstruct", "remap", "render", "generate", "distort", "camera", "batch", "original"),
    *("models", "jobs", "keys", "dataset", "train", "evaluate", "doctor", "clean", "completion", "man"),
)

# Exit codes. 128 + the signal's number is what shells report for a program that a signal ended.
DONE, FAILED, WRONG_USAGE, INTERRUPTED, BROKEN_PIPE, TERMINATED = 0, 1, 2, 130, 141, 143

_DESCRIPTION = "Re-shoot finished footage with a new camera (EX-4D): footage to depth, DW-Mesh, masks and new frames."
_EPILOG = """
Usual order: reconstruct, then render or generate; batch does both for many shots; serve runs the backend for Blender.

  ex4d reconstruct clip.mp4 --depth depth.npz --fov 55
  ex4d generate clip_scene --preset orbit --amount 30 -o take

Exit codes: 0 done, 1 failed with a reason, 2 wrong usage, 130 after Ctrl-C, 141 when the reader of a pipe has gone,
143 after SIGTERM.

Environment variables (a flag goes before its variable, a variable before the configuration file):
""" + "\n".join(f"  {name:21} {meaning}" for name, (meaning, _) in ENVIRONMENT.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code (wrong usage raises SystemExit, as argparse does)."""
    if "_ARGCOMPLETE" in os.environ:  # the shell asks for completions, see `ex4d completion`
        import argcomplete

        argcomplete.autocomplete(build_parser())
    words = routed(list(sys.argv[1:] if arguments is None else arguments))
    if words and words[0] in CHECKOUT_VERBS:
        return _run(Report(words[0]), lambda report: run_in_checkout(words[0], words[1:]))
    if not words or words[0] not in VERBS:
        build_parser().parse_args(words)  # prints help, the version, or what is wrong
        return WRONG_USAGE
    verb = import_module(f"ex4d.cli.{words.pop(0)}")
    name = verb.__name__.rpartition(".")[2]
    actions = getattr(verb, "ACTIONS", {})
    if actions and (not words or words[0] not in actions):
        _verb_parser(name, verb).parse_args(words)
        return WRONG_USAGE
    if actions:
        action = words.pop(0)
        name, verb = f"{name} {action}", actions[action]
    return run_program(name, verb, words)


def run_program(name: str, program: Any, arguments: Sequence[str] | None = None) -> int:
    """Run a verb; see `main` for what it returns.

    Args:
        name: behind `ex4d` on the command line.
        program: a module or namespace with SUMMARY, add_arguments and run.
        arguments: behind the name; None for the process's own.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        parser = _verb_parser(name, program)
        options = parse(parser, name, words, VERBS)
    except ConfigError as error:
        print(f"ex4d {name}: {error}", file=sys.stderr)
        return WRONG_USAGE
    return _run(Report.of(name, options), lambda report: program.run(options, report), parser)


def verb_parser(name: str) -> argparse.ArgumentParser:
    """The parser of a verb that has no actions, by its name."""
    return _verb_parser(name, import_module(f"ex4d.cli.{name}"))


def parse_verb(name: str, words: Sequence[str]) -> argparse.Namespace:
    """The options of a verb, as the command line would parse them; wrong usage raises SystemExit."""
    return parse(verb_parser(name), name, words, VERBS)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line, for help, documentation and completion."""
    parser = _Parser(prog="ex4d", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=_HelpFormatter)
    parser.add_argument("--version", action="version", version=f"ex4d {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name in VERBS:
        _fill(verbs, name, import_module(f"ex4d.cli.{name}"))
    for name, summary in CHECKOUT_VERBS.items():
        verbs.add_parser(name, help=summary, add_help=False)
    return parser


def _verb_parser(name: str, verb: Any) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"ex4d {name}", description=verb.__doc__, formatter_class=_HelpFormatter)
    return _with_arguments(parser, verb)


def _fill(verbs: Any, name: str, verb: Any) -> None:
    described = {"help": verb.SUMMARY, "description": verb.__doc__, "formatter_class": _HelpFormatter}
    _with_arguments(verbs.add_parser(name, **described), verb)


def _with_arguments(parser: argparse.ArgumentParser, verb: Any) -> argparse.ArgumentParser:
    if actions := getattr(verb, "ACTIONS", {}):
        below = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        for name, action in actions.items():
            _fill(below, name, action)
    else:
        verb.add_arguments(parser)
        add_report_arguments(parser)
    return parser


def _run(report: Report, work: Callable[[Report], int], parser: argparse.ArgumentParser | None = None) -> int:
    """Do a verb's work, and say in one sentence what went wrong where the user can act on it.

    Args:
        parser: whose flags the fields of settings are called by; None for none.
    """
    # Files may have names that are no UTF-8, which are printed as they are.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    # As after Ctrl-C, so that processes of ours are ended and files put away; `serve` has its own way.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        code, error = work(report), ""
        sys.stdout.flush()
    except KeyboardInterrupt:
        code, error = INTERRUPTED, "stopped"
    except SystemExit as ended:
        if ended.code != TERMINATED:
            raise
        code, error = TERMINATED, "stopped by SIGTERM"
    except BrokenPipeError:
        return _leave_pipe()
    except Exception as failure:
        code, error = FAILED, under_flags(user_message(failure), parser)
        if report.verbose or not is_expected(failure):
            traceback.print_exception(failure)
    try:
        report.finish(code, error)
        sys.stdout.flush()
    except BrokenPipeError:
        return _leave_pipe()
    return code


def _leave_pipe() -> int:
    """End quietly, as in `ex4d jobs | head`: the reader has what it wanted. Python must not flush into the pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


class _Parser(argparse.ArgumentParser):
    """Reports an invalid command line in one sentence, without the usage, which would hide it."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


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


if __name__ == "__main__":
    sys.exit(main())
