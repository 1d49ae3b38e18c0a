"""Takes an artist from nothing to a backend on this computer: what to install, which command, and what it can do.

`draw_setup` is a part of the preferences' page; `backend_test` runs ``ex4d doctor`` without making Blender wait.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..scheduler import scheduler
from .local_backend import WINDOWS, StartError, local_backend, words_of

INSTALL_COMMAND = 'uv tool install ".[depth]"'
_BUDGET_SECONDS = 0.0005


@dataclass(frozen=True)
class Ability:
    """Something that a backend can do, or why it cannot."""

    name: str
    text: str
    works: bool


class BackendTest:
    """One run of ``ex4d doctor``, and what it found.

    Attributes:
        abilities: engines, estimators and devices; empty before the first run is over.
        problem: why the command does not work; "" if it does.
    """

    def __init__(self) -> None:
        """Start without a result."""
        self.abilities: list[Ability] = []
        self.problem = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it is under way."""
        return self._process is not None

    def start(self, command: str) -> None:
        """Run the doctor of the program that a backend command runs.

        Raises:
            StartError: the command has no ``serve``, or cannot be run.
        """
        self.stop()
        self.abilities, self.problem = [], ""
        words = [*program_of(command), "doctor", "--json"]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - open until the test ends
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            self.stop()
            raise StartError(
                f"cannot run {words[0]!r}: {error.strerror}; install the backend, or choose its command"
            ) from error

    def step(self) -> None:
        """Note the result when it is there; the scheduler calls it in every tick."""
        if self._process is None or self._output is None or self._process.poll() is None:
            return
        self._output.seek(0)
        text = self._output.read().decode("utf-8", errors="replace")
        self.stop()
        try:
            self.abilities = abilities_in(text)
        except (ValueError, KeyError, TypeError):
            last = next((line for line in reversed(text.splitlines()) if line.strip()), iface_("it printed nothing"))
            self.problem = iface_("This is not the command of a backend: {text}").format(text=last[:200])
        _redraw_preferences()

    def stop(self) -> None:
        """End it, and wait for that."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
        if self._output is not None:
            self._output.close()
        self._process = self._output = None


def program_of(command: str) -> list[str]:
    """The program of a backend command, with what stands before its verb: ["ex4d"] of "ex4d serve --device cpu".

    Raises:
        StartError: the command has no ``serve``.
    """
    words = words_of(command)
    if "serve" not in words[1:]:
        raise StartError(f"the backend command {command!r} has no 'serve'; as installed it is: ex4d serve")
    return words[: words.index("serve", 1)]


def command_of(program: Path) -> str:
    """The backend command that runs a program."""
    return f'"{program}" serve' if WINDOWS else f"{shlex.quote(str(program))} serve"


def find_program() -> Path | None:
    """The installed ``ex4d``: on the PATH, or where uv and pipx put it, which Blender's PATH often lacks."""
    name = "ex4d.exe" if WINDOWS else "ex4d"
    found = shutil.which("ex4d")
    usual = Path.home() / ".local" / "bin" / name
    return Path(found) if found else usual if usual.is_file() else None


def is_installed(command: str) -> bool:
    """Whether the program of a backend command is on this computer."""
    try:
        program = words_of(command)[0]
    except StartError:
        return False
    return shutil.which(os.path.expanduser(program)) is not None


def abilities_in(report: str) -> list[Ability]:
    """Engines, estimators and devices in what ``ex4d doctor --json`` printed.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    findings = json.JSONDecoder().raw_decode(report, report.index("{"))[0]["result"]["findings"]
    wanted = ("GPU", "cuda:", "engine ", "estimator ")
    return [
        Ability(one["name"], one["finding"], not one["finding"].startswith("unavailable"))
        for one in findings
        if one["name"].startswith(wanted)
    ]


def draw_setup(layout: bpy.types.UILayout, chosen: Any) -> None:
    """Draw the steps from nothing to a running backend.

    Args:
        layout: of the preferences' page.
        chosen: the add-on's preferences.
    """
    box = layout.box()
    there = is_installed(chosen.serve_command)
    box.label(text="Backend on This Computer", icon="DESKTOP")
    if not there:
        box.label(text="1. Install uv, open a terminal in the folder of the EX-4D project, and run:")
        row = box.row(align=True)
        row.label(text=INSTALL_COMMAND, icon="CONSOLE", translate=False)
        row.operator("ex4d.copy_text", text="", icon="COPYDOWN").text = INSTALL_COMMAND
        box.label(text="2. Choose the command that it has installed:")
    row = box.row(align=True)
    row.alert = not there
    row.prop(chosen, "serve_command")
    row.operator("ex4d.pick_backend", text="", icon="FILEBROWSER")
    if not there and find_program() is not None:
        box.operator("ex4d.use_found_backend", icon="VIEWZOOM")
    row = box.row(align=True)
    row.operator("ex4d.test_backend", icon="CHECKMARK")
    verb = "ex4d.stop_backend" if local_backend.running else "ex4d.start_backend"
    row.operator(verb, icon="PAUSE" if local_backend.running else "PLAY")
    _draw_result(box)
    if text := local_backend.text():
        box.label(text=text, icon="INFO" if local_backend.running else "ERROR", translate=False)


def _draw_result(box: bpy.types.UILayout) -> None:
    if backend_test.running:
        box.label(text="Testing; the first time this takes a minute", icon="SORTTIME")
    elif backend_test.problem:
        box.label(text=backend_test.problem, icon="ERROR", translate=False)
    for one in backend_test.abilities:
        box.label(text=f"{one.name}: {one.text}", icon="CHECKMARK" if one.works else "X", translate=False)


def _redraw_preferences() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "PREFERENCES":
                area.tag_redraw()


backend_test = BackendTest()


def register() -> None:
    """Look after the test in every tick."""
    scheduler.every_tick(backend_test.step, _BUDGET_SECONDS)


def unregister() -> None:
    """End a test that is under way."""
    backend_test.stop()
