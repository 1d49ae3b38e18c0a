"""Finds shared libraries that a bare system lacks, and installs their packages as root, or says which line does it.

A wheel of Blender brings most of its libraries; those of the X server, of keyboards and of OpenGL are the system's,
and it does not even start without a window where they are missing. The list is what `ldd` shows of each wheel.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from interpreters import SetupError
from tool_output import telling_line


@dataclass(frozen=True)
class Packages:
    """The names of one package in the package managers that we know."""

    apt: str
    dnf: str
    pacman: str


LIBRARIES = {
    "libX11.so.6": Packages("libx11-6", "libX11", "libx11"),
    "libXrender.so.1": Packages("libxrender1", "libXrender", "libxrender"),
    "libXfixes.so.3": Packages("libxfixes3", "libXfixes", "libxfixes"),
    "libXi.so.6": Packages("libxi6", "libXi", "libxi"),
    "libXext.so.6": Packages("libxext6", "libXext", "libxext"),
    "libxkbcommon.so.0": Packages("libxkbcommon0", "libxkbcommon", "libxkbcommon"),
    "libSM.so.6": Packages("libsm6", "libSM", "libsm"),
    "libICE.so.6": Packages("libice6", "libICE", "libice"),
    "libGL.so.1": Packages("libgl1", "libglvnd-glx", "libglvnd"),
    # Blender 4.2 alone.
    "libXxf86vm.so.1": Packages("libxxf86vm1", "libXxf86vm", "libxxf86vm"),
    "libgomp.so.1": Packages("libgomp1", "libgomp", "gcc-libs"),
}
BLENDER_4_2 = tuple(LIBRARIES)
BLENDER = BLENDER_4_2[:-2]

INSTALL = {
    "apt": ("apt-get", "install", "-y", "--no-install-recommends"),
    "dnf": ("dnf", "install", "-y"),
    "pacman": ("pacman", "-S", "--noconfirm", "--needed"),
}


def missing_libraries(names: Sequence[str]) -> list[str]:
    """Which shared libraries the loader does not find; none on other systems than Linux."""
    return [] if sys.platform != "linux" else [name for name in names if not _loads(name)]


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def require_libraries(names: Sequence[str]) -> None:
    """Make sure that libraries are here: as root by installing their packages, after saying so.

    Raises:
        SetupError: with the line to run, or what the package manager said.
    """
    missing = missing_libraries(names)
    if not missing:
        return
    lacks = f"Blender needs libraries that this system lacks: {', '.join(missing)}"
    manager = package_manager()
    if manager is None:
        message = f"{lacks}. Install their packages, and run this again."
        raise SetupError(message)
    install_packages(lacks, manager, [getattr(LIBRARIES[name], manager) for name in missing])
    if still := missing_libraries(missing):
        message = f"{manager} installed the packages, but {', '.join(still)} cannot be loaded yet. Install what has it."
        raise SetupError(message)


def install_packages(reason: str, manager: str, packages: Sequence[str]) -> None:
    """Install packages as root, after saying so.

    Raises:
        SetupError: this user is not root, or the package manager failed.
    """
    command = [*INSTALL[manager], *packages]
    if os.geteuid() != 0:
        message = f"{reason}. Run `sudo {' '.join(command)}`, and then this again."
        raise SetupError(message)
    print(f"{reason}. Installing as root: {' '.join(command)}", flush=True)
    done = _run(command)
    if done.returncode and manager == "apt":
        # A fresh container has no lists of packages.
        done = _run(["apt-get", "update"])
        done = done if done.returncode else _run(command)
    if done.returncode:
        message = f"{command[0]} failed: {telling_line(done.stdout)} Install the packages, and run this again."
        raise SetupError(message)


def can_install() -> bool:
    """Whether this user may install packages, with a package manager that we know."""
    return sys.platform == "linux" and os.geteuid() == 0 and package_manager() is not None


def package_manager() -> str | None:
    """The package manager of this system, if it is one that we know."""
    return next((name for name, command in INSTALL.items() if shutil.which(command[0])), None)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
    )
