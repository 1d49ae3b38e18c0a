"""Python processes that run modules of this package (services, workers, ranks): command, environment, end."""

from __future__ import annotations

import os
import subprocess
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


def stop_process(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Have a process end, by force if it has not within ``seconds``; it has ended when this returns."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
