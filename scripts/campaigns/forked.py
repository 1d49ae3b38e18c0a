"""`ForkedProcess`: a process of its own that has its modules loaded from the beginning, so that it starts at once.

It is forked from a server process of `multiprocessing`, and has the environment of whoever started it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

_LOADED = ["campaigns.serve", "campaigns.artist", "campaigns.victim"]


class ForkedProcess:
    """A function that runs in a process, whose output goes into a log; like `subprocess.Popen` otherwise.

    Attributes:
        pid: of the process.
    """

    def __init__(self, function: str, arguments: Sequence[Any], log: Path):
        """Start ``module:function``, whose result is the exit code."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_LOADED)
        self._process = context.Process(target=_run, args=(function, tuple(arguments), log, dict(os.environ)))
        # Each process would load the program of this one again, pytest for one.
        with patch.dict(sys.modules, {"__main__": ModuleType("__main__")}):
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def kill(self) -> None:
        """End it at once, and wait for that."""
        self._process.kill()
        self._process.join()

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def wait(self, timeout: float) -> int | None:
        """Wait for its end; returns its exit code, None if it still runs."""
        self._process.join(timeout)
        return self._process.exitcode


def _run(function: str, arguments: tuple[Any, ...], log: Path, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    module, _, name = function.partition(":")
    sys.exit(getattr(import_module(module), name)(*arguments))
