"""The command and environment of Python processes that run modules of this package: services, workers, ranks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import ex4d_core

# What must be importable in such a process, installed or in a checkout, where the two packages have different parents.
_IMPORT_ROOTS = tuple(dict.fromkeys(str(Path(place).parents[1]) for place in (__file__, ex4d_core.__file__)))


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this package with this Python."""
    return [sys.executable, "-m", module, *arguments]


def module_environment() -> dict[str, str]:
    """This process's environment variables, with which `module_command` finds this very package."""
    inherited = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [*_IMPORT_ROOTS, inherited]))}
