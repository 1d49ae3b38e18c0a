"""The package pycolmap: whether it is here, its threads and seeds, and how its work is ended early."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ex4d.installation import install_command
from ex4d_core.cameras import CameraError

SEED = 0  # of everything random, so that a clip is solved alike each time


class SolverUnavailableError(CameraError):
    """The camera cannot be solved here, since pycolmap is not installed."""


def why_no_solver() -> str:
    """Why this Python cannot solve cameras, and what helps; "" where it can."""
    if find_spec("pycolmap") is not None:
        return ""
    return f"solving the camera needs pycolmap, which this Python lacks; install it with: {install_command('colmap')}"


def colmap() -> ModuleType:
    """The package, which reports problems as exceptions and otherwise keeps quiet.

    Raises:
        SolverUnavailableError: it is not installed.
    """
    if reason := why_no_solver():
        raise SolverUnavailableError(reason)
    import pycolmap  # pyright: ignore[reportMissingImports] (the extra colmap)

    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    return pycolmap


class Cancellation:
    """Ends COLMAP's work when a progress callback raises, which its own threads must not see.

    Use `report` as the callback, give `token` to the package, and wrap the call in `ending`.
    """

    def __init__(self, package: ModuleType, progress: Callable[[float], None]) -> None:
        """Start with work that goes on.

        Args:
            progress: called with the share that is done; what it raises ends the work.
        """
        self.token: Any = package.CancellationToken()
        self._progress = progress
        self._raised: BaseException | None = None
        self._lock = threading.Lock()

    def report(self, share: float) -> None:
        """Tell how much is done; remembers what the callback raises, and asks the package to end."""
        with self._lock:
            if self._raised is not None:
                return
            try:
                self._progress(min(1.0, share))
            except BaseException as error:
                self._raised = error
                self.token.cancel()

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Afterwards raises what the callback raised, instead of what the package made of it."""
        try:
            yield
        finally:
            if self._raised is not None:
                raise self._raised
