"""Finds the Python interpreter for an environment; environments.py calls this before it creates one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tool_output import telling_line

# Values of UV_PYTHON_DOWNLOADS with which uv must not fetch a Python by itself.
_NO_DOWNLOADS = ("never", "manual", "false", "0")


class SetupError(Exception):
    """Set-up cannot continue; the message says what to do."""


class PythonMissing(SetupError):
    """No usable interpreter of the version that an environment needs."""


class VenvMissing(PythonMissing):
    """An interpreter without a complete venv module, which Debian has in a package of its own."""


def find_python(version: tuple[int, int], *, needs_pip: bool, may_fetch: bool = False) -> Path:
    """The first interpreter of this version that works, from PATH, the `py` launcher, pyenv or uv.

    Args:
        version: major and minor number.
        needs_pip: whether its venv module has to be complete, which Debian splits off; uv does without.
        may_fetch: whether uv may fetch one where none is installed, unless UV_PYTHON_DOWNLOADS forbids it.

    Raises:
        PythonMissing: with one sentence on what to install.
    """
    incomplete = None
    for candidate in _candidates(version):
        probe = _probe(candidate)
        if probe.get("version") != list(version):
            continue
        if probe["venv"] or not needs_pip:
            return Path(probe["executable"])
        incomplete = incomplete or probe["executable"]
    number = dotted(version)
    if incomplete:
        message = (
            f"{incomplete} is Python {number} without its venv module: install that (on Debian and Ubuntu the package "
            f"python{number}-venv), and run this again."
        )
        raise VenvMissing(message)
    refusal = ""
    if may_fetch and (uv := shutil.which("uv")) and os.environ.get("UV_PYTHON_DOWNLOADS", "") not in _NO_DOWNLOADS:
        print(f"[python {number}] fetching it with uv ...", flush=True)
        done = subprocess.run(
            [uv, "python", "install", number], capture_output=True, text=True, env=tool_variables(), errors="replace"
        )
        if found := _output([uv, "python", "find", "--no-project", "--managed-python", number]):
            return Path(found)
        refusal = f" uv could not fetch it: {telling_line(done.stdout + done.stderr)}"
    message = (
        f"Python {number} is needed and was not found: install it (from python.org, your system's packages, "
        f"`pyenv install {number}` or `uv python install {number}`) so that `python{number}` is on PATH, and run this "
        f"again.{refusal}"
    )
    raise PythonMissing(message)


def _candidates(version: tuple[int, int]) -> Iterator[list[str]]:
    """Commands that may start a Python of this version, likely ones first."""
    number = dotted(version)
    if sys.version_info[:2] == version:
        yield [sys.executable]
    for folder in os.get_exec_path():
        for name in (f"python{number}", "python3", "python"):
            if found := shutil.which(name, path=folder):
                yield [found]
    if launcher := shutil.which("py"):
        yield [launcher, f"-{number}"]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    # Newest patch release first; pyenv-win has no bin folder.
    folders = pyenv.glob(f"versions/{number}.*"), pyenv.glob(f"pyenv-win/versions/{number}.*")
    for folder in sorted((f for group in folders for f in group), key=_patch_number, reverse=True):
        for path in (folder / "bin" / "python", folder / "python.exe"):
            if path.exists():
                yield [str(path)]
    if uv := shutil.which("uv"):
        found = _output([uv, "python", "find", "--no-project", "--system", number])
        if found:
            yield [found]


def _patch_number(folder: Path) -> int:
    patch = folder.name.split(".")[2]
    return int(patch) if patch.isdigit() else -1


_PROBE = """
import importlib.util, json, sys
print(json.dumps({
    "version": sys.version_info[:2] if sys.implementation.name == "cpython" and sys.maxsize > 2**32 else None,
    "executable": sys.executable,
    "venv": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
}))
"""


def _probe(command: Sequence[str]) -> dict:
    """What an interpreter reports about itself; empty where it does not start, as a pyenv shim without its version."""
    try:
        return json.loads(_output([*command, "-I", "-c", _PROBE]))
    except ValueError:
        return {}


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=tool_variables()
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def tool_variables() -> dict[str, str]:
    """The user's environment variables, without those that redirect packages or imports out of our folder."""
    redirecting = {"PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV"}
    return {name: value for name, value in os.environ.items() if name not in redirecting}


def dotted(version: Sequence[int]) -> str:
    """`3.11` for (3, 11)."""
    return ".".join(str(number) for number in version)
