"""A backend on this computer, started and stopped from Blender: the user's own ``ex4d serve`` command as a process.

Only a process that was started here is ever stopped. Its output goes to a log file.
"""

from __future__ import annotations

import atexit
import os
import shlex
import subprocess
from pathlib import Path

from ex4d_core.errors import Ex4dError

WINDOWS = os.name == "nt"
# A backend that is asked to end finishes its frame and stops its workers.
STOP_SECONDS = 5.0
# So much of its last line of output fits into the sidebar; the log has the rest.
_SHOWN_LETTERS = 200
_TAIL_BYTES = 4096


class StartError(Ex4dError):
    """The command cannot be run."""


class LocalBackend:
    """The backend's process, if it was started here.

    Attributes:
        log: file that holds what it printed.
    """

    def __init__(self) -> None:
        """Start without a process."""
        self.log: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._asked_to_end = False

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, command: str, address: str, log: Path) -> None:
        """Run ``command``, with ``--address`` added if it names none.

        Raises:
            StartError: it cannot be run, or runs already.
            OSError: the log cannot be written.
        """
        if self.running:
            raise StartError("the backend that was started from here is already running")
        words = words_of(command)
        if not any(word == "--address" or word.startswith("--address=") for word in words):
            words += ["--address", address]
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as output:
            try:
                self._process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=not WINDOWS,
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
            except OSError as error:
                raise StartError(
                    f"cannot run {words[0]!r}: {error.strerror}; "
                    "give the full path of the ex4d command in the preferences"
                ) from error
        self.log, self._asked_to_end = log, False

    def ask_to_end(self) -> None:
        """Ask it to end, without waiting for that; asked again, it is killed."""
        if self._process is not None and self.running:
            (self._process.kill if self._asked_to_end else self._process.terminate)()
            self._asked_to_end = True

    def stop(self) -> None:
        """End it and wait for that, as when Blender or the add-on ends."""
        if self._process is not None and self.running:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def text(self) -> str:
        """Its state, for people; "" when nothing was started."""
        if self._process is None:
            return ""
        code = self._process.poll()
        if self._asked_to_end:
            return "the local backend is stopping" if code is None else ""
        if code is None:
            return f"the local backend is running; its log is {self._log_place()}"
        if code < 0:  # what it printed last has nothing to do with that
            what = f"was killed by signal {-code}; start it again"
        else:
            said = self.last_line() or f"it printed nothing (exit code {code})"
            what = f"ended: {said}; check that, or the backend command in the preferences, and start it again"
        return f"the local backend {what}. Its log is {self._log_place()}"

    def last_line(self) -> str:
        """Its last line of output, shortened for the sidebar."""
        if self.log is None:
            return ""
        try:
            with open(self.log, "rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = log.read().decode("utf-8", errors="replace").split("\n")
        except OSError:
            return ""
        line = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return line if len(line) <= _SHOWN_LETTERS else line[: _SHOWN_LETTERS - 1] + "…"

    def _log_place(self) -> str:
        """The log's path, as short as it can be written."""
        if self.log is None:
            return ""
        try:
            return str(Path("~") / self.log.relative_to(Path.home()))
        except (ValueError, RuntimeError):  # elsewhere, or there is no home folder
            return str(self.log)


def words_of(command: str, windows: bool = WINDOWS) -> list[str]:
    """Split a command line as this system's shell does: backslashes are parts of paths on Windows.

    Raises:
        StartError: it is empty, or has an open quotation mark.
    """
    try:
        words = shlex.split(command, posix=not windows)
    except ValueError as error:
        raise StartError(f"the backend command {command!r} has an open quotation mark: {error}") from error
    if not words:
        raise StartError("the backend command is empty; with the backend installed it is: ex4d serve")
    return [word.strip('"') for word in words] if windows else words


local_backend = LocalBackend()


def register() -> None:
    """End it with Blender."""
    atexit.register(local_backend.stop)


def unregister() -> None:
    """End it with the add-on."""
    atexit.unregister(local_backend.stop)
    local_backend.stop()
