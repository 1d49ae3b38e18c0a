"""Decides what the demo needs on this machine, sets it up, and becomes `ex4d demo`.

Two processes, two Pythons: the backend's, and Blender's. Blender is a wheel for the Python at hand where there is one,
and otherwise an installed Blender. The backend is small without an NVIDIA GPU (environment `demo`), and that of the
tests where it is there already or a GPU is.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import environments
import system_packages
from addon_package import addon_module
from cpu_torch import tool_with_cpu_torch
from environment_builder import usable_python
from environments import BACKEND, BLENDERS, DEMO, DEMO_CUDA_MEGABYTES, WINDOWS, Environment
from interpreters import PythonMissing, SetupError, dotted, find_python

# The wheel of Blender for each Python; the first is tried first, after the Python that runs this.
BLENDER_FOR = {(3, 11): BLENDERS["5.0"], (3, 13): BLENDERS["5.2"]}
# Pythons that the backend runs on, with an installed Blender.
BACKEND_PYTHONS = ((3, 11), (3, 13), (3, 12), (3, 10))


@dataclass(frozen=True)
class Plan:
    """What the demo runs with.

    Attributes:
        backend: the environment of the backend.
        blender: an environment with the module bpy, or an installed Blender.
    """

    backend: Environment
    blender: Environment | Path

    @property
    def environments(self) -> tuple[Environment, ...]:
        """What has to be set up."""
        return (self.backend, self.blender) if isinstance(self.blender, Environment) else (self.backend,)

    @property
    def program(self) -> Path:
        """The Blender to name to `ex4d demo`."""
        return self.blender.python if isinstance(self.blender, Environment) else self.blender


def main() -> None:
    """Create what is missing, and become `ex4d demo`."""
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description="Run the whole chain on the sample clip: backend, Blender, camera, take, movie strip. The first "
        "run installs what is missing into .venv/, after saying how much.",
    )
    parser.add_argument("-o", "--out", type=Path, help="folder for the results (default: outputs/demo)")
    parser.add_argument("--blender", help="a Blender executable, 4.2 or later (default: a wheel of Blender in .venv/)")
    options, more = parser.parse_known_args()
    with environments.exit_on_setup_error():
        plan = plan_for(named_blender(options.blender))
        environments.ensure(*plan.environments)
    out = options.out or Path(os.path.relpath(environments.ROOT / "outputs" / "demo"))
    command = [str(plan.backend.command("ex4d")), "demo", "--blender", str(plan.program), "--out", str(out), *more]
    if WINDOWS:
        # exec there starts a second process and lets the shell go on at once.
        sys.exit(subprocess.call(command))
    os.execv(command[0], command)


def named_blender(name: str | None) -> Path | None:
    """The program that the user named.

    Raises:
        SetupError: there is none of that name.
    """
    if name is None:
        return None
    program = shutil.which(name)
    if program is None:
        message = f"no Blender found at {name!r}: name an executable with --blender, or leave it out"
        raise SetupError(message)
    return Path(program)


def plan_for(blender: Path | None = None) -> Plan:
    """What to run with on this machine; what is set up already comes first.

    Args:
        blender: an installed Blender to use; None for the wheel that fits a Python of this machine, or else any.

    Raises:
        SetupError: no fitting Python, or neither a wheel of Blender nor an installed one can be used.
    """
    backend = ready_backend()
    if blender:
        return Plan(backend or new_backend(backend_python()), blender)
    ready = next((one for one in BLENDERS.values() if one.libraries and not environments.missing_part(one)), None)
    if ready and backend:
        return Plan(backend, ready)
    version = blender_python()
    if version is None:
        return with_installed_blender(backend, "no wheel of Blender fits a Python of this machine (3.11 or 3.13)")
    wheel = ready or BLENDER_FOR[version]
    missing = system_packages.missing_libraries(wheel.libraries)
    if missing and not system_packages.can_install():
        # Its own package has brought these libraries, or others.
        if installed := installed_blender():
            return Plan(backend or new_backend(version), installed)
    elif missing:
        system_packages.require_libraries(wheel.libraries)
    return Plan(backend or new_backend(version), wheel)


def with_installed_blender(backend: Environment | None, why: str) -> Plan:
    """The plan with a Blender that the user has installed.

    Raises:
        SetupError: there is none; says why one is needed.
    """
    installed = installed_blender()
    if installed is None:
        message = (
            f"{why}, and no Blender 4.2 or later was found: install Python 3.11 or 3.13 (`uv python install 3.11`), or "
            f"{addon_module('blenders').HOW_TO_GET_BLENDER}"
        )
        raise SetupError(message)
    print(f"{why}; using {installed}", flush=True)
    return Plan(backend or new_backend(backend_python()), installed)


def installed_blender() -> Path | None:
    """An installed Blender executable that is recent enough."""
    found = addon_module("blenders").find_executable()
    return found and found.program


def blender_python() -> tuple[int, int] | None:
    """A Python of this machine, or one that uv may fetch, for which there is a wheel of Blender; None without one."""
    machine = platform.machine().lower()
    if (sys.platform, machine) not in {("linux", "x86_64"), ("darwin", "arm64"), ("win32", "amd64")}:
        return None
    return first_python(tuple(BLENDER_FOR))


def backend_python() -> tuple[int, int]:
    """A Python of this machine, or one that uv may fetch, on which the backend runs.

    Raises:
        PythonMissing: there is none.
    """
    if found := first_python(BACKEND_PYTHONS):
        return found
    find_python(DEMO.python_version, needs_pip=False)
    raise AssertionError("unreachable: a missing Python is an error")


def first_python(versions: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The first of these versions that is here: that of this Python if it is one of them, else in their order."""
    running = sys.version_info[:2]
    ordered = sorted(versions, key=lambda version: version != running)
    for may_fetch in (False, True):
        for version in ordered if not may_fetch else versions[:1]:
            try:
                find_python(version, needs_pip=False, may_fetch=may_fetch)
            except PythonMissing:
                continue
            return version
    return None


def ready_backend() -> Environment | None:
    """A backend that is set up already."""
    wanted = [BACKEND] if has_nvidia() else [*demo_variants(), BACKEND]
    return next((one for one in wanted if environments.missing_part(one) != "environment"), None)


def demo_variants() -> Iterator[Environment]:
    """The environment `demo` as it may have been set up: of any Python, with and without CUDA's libraries."""
    for version in BACKEND_PYTHONS:
        yield replace(DEMO, python_version=version)
        yield replace(DEMO, python_version=version, lock_name="demo-cuda")


def new_backend(version: tuple[int, int]) -> Environment:
    """The backend to set up for a Python: with CUDA on a machine with an NVIDIA GPU, small elsewhere if it can be."""
    if has_nvidia():
        print("An NVIDIA GPU is here: the backend gets the CUDA build of PyTorch", flush=True)
        return BACKEND
    demo = replace(DEMO, python_version=version)
    if sys.platform != "linux":
        return demo  # what every index has is a build for processors
    if version == DEMO.python_version and platform.machine() == "x86_64":
        python = usable_python(version)
        if tool := tool_with_cpu_torch(python, version, demo.lock):
            return replace(demo, torch_from=tool)
    why = f"for Python {dotted(version)} only PyTorch's CUDA build can be had here; it runs without a GPU, too"
    print(f"{why}, and takes {(DEMO_CUDA_MEGABYTES - DEMO.megabytes) / 1000:.1f} GB more", flush=True)
    return replace(demo, lock_name="demo-cuda", megabytes=DEMO_CUDA_MEGABYTES)


def has_nvidia() -> bool:
    """Whether this machine has an NVIDIA GPU with its driver."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
