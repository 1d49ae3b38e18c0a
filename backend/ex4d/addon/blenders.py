"""Finds the Blenders of this machine: executables, and Pythons that have Blender as the module `bpy`.

Looked for in this order: this Python, `blender` on PATH, the folders where Blender is usually installed, and the
environments of a source checkout.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OLDEST = (4, 2)
HOW_TO_GET_BLENDER = (
    "install Blender 4.2 or later (from blender.org or your system's packages) so that `blender` is on PATH, or name "
    "it with --blender"
)
_CHECKOUT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Blender:
    """A Blender that can run a script.

    Attributes:
        program: an executable, or a Python that has bpy.
        is_python: which of both.
    """

    program: Path
    is_python: bool

    @classmethod
    def at(cls, program: str | Path) -> Blender:
        """The Blender at a path: a program whose name begins with "python" is a Python that has bpy."""
        return cls(Path(program), Path(program).stem.lower().startswith("python"))

    def script(self, path: Path) -> list[str]:
        """The command line that runs a script without a window; its own arguments follow."""
        if self.is_python:
            return [str(self.program), str(path)]
        # Blender's Python ignores PYTHONPATH by default.
        flags = ["--background", "--factory-startup", "--python-use-system-env", "--python-exit-code", "1"]
        return [str(self.program), *flags, "--python", str(path)]

    def version(self) -> tuple[int, int] | None:
        """Major and minor number that an executable reports; None if it does not start, or is a Python."""
        if self.is_python:
            return None
        found = re.search(r"^Blender (\d+)\.(\d+)", _output([str(self.program), "--version"]), re.MULTILINE)
        return (int(found.group(1)), int(found.group(2))) if found else None

    def tool(self) -> list[str]:
        """The command of Blender's extension tool, which builds and validates add-ons; empty where it has none."""
        if not self.is_python:
            # The tool needs no factory start-up, and that option would have to come before it.
            return [str(self.program), "--command", "extension"]
        environment = self.program.parent.parent
        libraries = environment / "Lib" if os.name == "nt" else next(environment.glob("lib/python*"), environment)
        tool = next(libraries.glob("site-packages/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py"), None)
        return [str(self.program), "-I", str(tool)] if tool else []


def find_blender() -> Blender | None:
    """The first Blender of this machine that is recent enough; None without one."""
    if importlib.util.find_spec("bpy"):
        return Blender(Path(sys.executable), is_python=True)
    return next(_recent_executables(), None) or next(_checkout_environments(), None)


def find_executable() -> Blender | None:
    """The first Blender executable of this machine that is recent enough; None without one."""
    return next(_recent_executables(), None)


def find_tool() -> Blender | None:
    """The first Blender that has the extension tool, ready environments of a checkout first, as they start faster."""
    candidates = list(_checkout_environments())
    if importlib.util.find_spec("bpy"):
        candidates.append(Blender(Path(sys.executable), is_python=True))
    return next((one for one in candidates if one.tool()), None) or find_executable()


def _recent_executables() -> Iterator[Blender]:
    for program in _executables():
        blender = Blender(program, is_python=False)
        if (version := blender.version()) and version >= OLDEST:
            yield blender


def _executables() -> Iterator[Path]:
    """Files that are probably a Blender executable, the newest of each folder first."""
    if found := shutil.which("blender"):
        yield Path(found)
    home = Path.home()
    if sys.platform == "win32":
        names = ("PROGRAMFILES", "PROGRAMW6432", "LOCALAPPDATA", "PROGRAMFILES(X86)")
        folders = [Path(os.environ[name]) for name in names if os.environ.get(name)]
        patterns = [(folder, "Blender Foundation/Blender */blender.exe") for folder in folders]
        patterns += [(folder, "Steam/steamapps/common/Blender/blender.exe") for folder in folders]
    elif sys.platform == "darwin":
        patterns = [(folder, "Blender*.app/Contents/MacOS/Blender") for folder in (Path("/Applications"), home)]
        patterns.append((home / "Applications", "Blender*.app/Contents/MacOS/Blender"))
    else:
        patterns = [(folder, "blender*/blender") for folder in (Path("/opt"), Path("/usr/local"), home)]
        patterns += [(home / name, "blender*/blender") for name in ("Applications", "apps", "bin", "opt", "Downloads")]
        patterns += [(Path("/snap/bin"), "blender"), (home / ".steam/steam/steamapps/common/Blender", "blender")]
        patterns += [(Path("/var/lib/flatpak/exports/bin"), "org.blender.Blender")]
        patterns += [(home / ".local/share/flatpak/exports/bin", "org.blender.Blender")]
    for folder, pattern in patterns:
        try:
            yield from sorted(
                (path for path in folder.glob(pattern) if os.access(path, os.X_OK)), key=_age, reverse=True
            )
        except OSError:
            continue  # a folder that is not ours to read


def _checkout_environments() -> Iterator[Blender]:
    """Ready environments with bpy that scripts/environments.py made; those of the newest Blender first."""
    stamps = (_CHECKOUT / ".venv").glob("blender-*/ex4d-setup.json")
    for stamp in sorted(stamps, key=_age, reverse=True):
        python = stamp.parent / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        if python.exists():
            yield Blender(python, is_python=True)


def _age(path: Path) -> list[int]:
    """The numbers in a path, by which versions are compared: 4.10 is newer than 4.2."""
    return [int(number) for number in re.findall(r"\d+", str(path))]


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
