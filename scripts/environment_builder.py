"""Builds one environment, a line of output per step; environments.py decides which, and when."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from interpreters import SetupError, VenvMissing, dotted, find_python, tool_variables
from system_packages import can_install, install_packages, package_manager
from tool_output import telling_line

if TYPE_CHECKING:
    from environments import Environment

WINDOWS = os.name == "nt"
# With less than this left after a failure, the disk is taken for its reason: the tool's own words may be lost.
_FULL = 20 * 2**20


class InstallFailed(SetupError):
    """venv, pip or uv ended with an error."""


def usable_python(version: tuple[int, int]) -> Path:
    """A Python that environments can be made with: found, fetched by uv, or completed by Debian's package as root.

    Raises:
        PythonMissing: there is none; says what to install.
    """
    try:
        return find_python(version, needs_pip=shutil.which("uv") is None, may_fetch=True)
    except VenvMissing:
        if not can_install() or package_manager() != "apt":
            raise
        number = dotted(version)
        install_packages(f"Python {number} lacks its venv module", "apt", [f"python{number}-venv"])
        return find_python(version, needs_pip=True)


class Builder:
    """Builds one environment.

    Args:
        root: the checkout, which is installed, too, if the environment wants it.
        lock_file: descriptor of the set-up's lock, which installers inherit.
    """

    def __init__(self, environment: Environment, root: Path, lock_file: int) -> None:
        self.environment = environment
        self.root = root
        self.lock_file = lock_file
        self.uv = shutil.which("uv")
        # Only pip may know a place with PyTorch's build for processors.
        self.tool = "uv" if self.uv and environment.torch_from != "pip" else "pip"

    def build(self, *, whole: bool, stamp: dict[str, str]) -> None:
        """Build the environment as a whole, or install only the project in it.

        Raises:
            PythonMissing: no interpreter of the needed version.
            InstallFailed: a tool failed, or the disk is full; an unfinished environment was removed.
        """
        environment = self.environment
        environment.log.write_bytes(b"")
        # Found first: a missing Python should not cost the user the environment that is there.
        python = usable_python(environment.python_version) if whole else None
        # The stamp goes first and comes last: whatever is cut short in between is not taken for an environment.
        environment.stamp.unlink(missing_ok=True)
        with self._removed_if_unfinished():
            if python:
                self._create(python)
                self._install_lock()
            if environment.installs_project:
                self._install_project()
            unfinished = environment.stamp.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
            os.replace(unfinished, environment.stamp)

    @contextlib.contextmanager
    def _removed_if_unfinished(self) -> Iterator[None]:
        """Remove what a failure or Ctrl-C leaves behind, so that the disk does not stay full."""
        folder = self.environment.folder
        try:
            yield
        except BaseException as error:
            try:
                full = shutil.disk_usage(folder.parent).free < _FULL
            except OSError:
                full = False
            if folder.exists():
                print(f"[{self.environment.name}] removing what is unfinished", flush=True)
                shutil.rmtree(folder, ignore_errors=True)
            if full and isinstance(error, (InstallFailed, OSError)):
                message = (
                    f"The disk of {folder.parent} is full: {self.environment.name} needs "
                    f"{self.environment.megabytes / 1000:.1f} GB there. What was unfinished is removed; free some "
                    "space, and run this again."
                )
                raise InstallFailed(message) from error
            raise

    def _create(self, python: Path) -> None:
        folder = self.environment.folder
        if folder.exists():
            try:
                shutil.rmtree(folder)
            except OSError as error:
                message = f"Cannot replace {folder}: {error.strerror}. End the programs that use it and run this again."
                raise SetupError(message) from error
        label = f"creating it with {python}"
        if self.uv:
            seed = ["--seed"] if self.tool == "pip" else []
            self._step(label, [self.uv, "venv", "--no-project", *seed, "--python", str(python), str(folder)])
        else:
            self._step(label, [str(python), "-m", "venv", str(folder)])

    def _install_lock(self) -> None:
        lock = self.environment.lock
        count = len(re.findall(r"^[A-Za-z0-9]", lock.read_text(encoding="utf-8"), re.MULTILINE))
        label = f"installing up to {count} packages from {lock.relative_to(self.root).as_posix()} with {self.tool}"
        # Compiled here, once: the first start of Blender or the service would else do it while the user waits. The demo
        # is for a look, and needs a seventh less room without.
        if self.environment.compiled:
            options = ["--compile-bytecode"] if self.tool == "uv" else ["--compile"]
        else:
            options = [] if self.tool == "uv" else ["--no-compile"]
        options += ["--torch-backend", "cpu"] if self.environment.torch_from == "uv" else []
        self._step(label, [*self._installer(), "--require-hashes", "--no-deps", *options, "-r", str(lock)])

    def _install_project(self) -> None:
        options = ["--no-deps", "--no-build-isolation", "--editable", str(self.root)]
        self._step("installing the project, editable", [*self._installer(), *options])

    def _installer(self) -> list[str]:
        python = str(self.environment.python)
        if self.tool == "uv":
            return [str(self.uv), "pip", "install", "--python", python]
        quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        return [python, "-m", "pip", "install", *quiet]

    def _step(self, label: str, command: Sequence[str]) -> None:
        start = time.monotonic()
        line = f"[{self.environment.name}] {label} ..."
        print(line, end="", flush=True)
        # Where this process is killed outright, its installer lives on; it inherits the lock file, and with it the
        # lock, so that a new set-up waits for it instead of working in the same folder.
        inherited = {} if WINDOWS else {"pass_fds": (self.lock_file,)}
        with self.environment.log.open("ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            begins = log.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root,
                env=tool_variables(),
                **inherited,
            )
            try:
                while True:
                    try:
                        code = process.wait(timeout=1.0)
                        break
                    except subprocess.TimeoutExpired:
                        if sys.stdout.isatty():
                            print(f"\r{line} {time.monotonic() - start:.0f} s", end="", flush=True)
            except BaseException:
                # Ctrl-C: nothing may go on writing into a folder that the next run removes.
                process.terminate()
                process.wait()
                print(flush=True)
                raise
        elapsed = f"{time.monotonic() - start:.1f} s"
        print(f"\r{line} {elapsed}" if sys.stdout.isatty() else f" {elapsed}", flush=True)
        if code:
            output = self.environment.log.read_bytes()[begins:].decode(errors="replace")
            message = (
                f"{self.tool} failed (exit code {code}) while {label}: {telling_line(output)}\nAll of its output is in "
                f"{self.environment.log}."
            )
            raise InstallFailed(message)
