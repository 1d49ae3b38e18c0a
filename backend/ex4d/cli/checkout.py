"""Verbs of the source checkout, `ex4d bench` and `ex4d parity`: their programs are in scripts/, not in the wheel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ex4d.subprocesses import module_command, module_environment
from ex4d_core.errors import Ex4dError

# What each does, for `ex4d --help`.
CHECKOUT_VERBS = {
    "bench": "measure this machine (in a source checkout)",
    "parity": "compare results with the original EX-4D's (in a source checkout)",
}
_SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


class NoCheckoutError(Ex4dError):
    """The verb needs a source checkout, and this is an installed wheel."""


def run_in_checkout(verb: str, arguments: Sequence[str]) -> int:
    """Run a verb's program in a process of its own; returns its exit code.

    Raises:
        NoCheckoutError: this package is not part of a source checkout.
    """
    if not (_SCRIPTS / verb / "__main__.py").is_file():
        raise NoCheckoutError("needs a source checkout: clone the repository and run pip install -e . in it")
    environment = module_environment()
    environment["PYTHONPATH"] += os.pathsep + str(_SCRIPTS)
    with subprocess.Popen(module_command(verb, *arguments), env=environment) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # Ctrl+C reaches the program, too, which puts its files away
            return process.wait()
