"""The set-up page takes the artist from no backend to one that runs on this computer."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import addon_utils
import bpy
import pytest

from blender_addon.connection import backend_setup
from blender_addon.connection.backend_setup import backend_test, find_program, is_installed, program_of
from blender_addon.connection.local_backend import StartError, local_backend

from .conftest import tick_until


def preferences() -> bpy.types.AddonPreferences:
    return bpy.context.preferences.addons["blender_addon"].preferences


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path) -> Path:
    """A computer without a backend; its home folder."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def install(folder: Path) -> Path:
    program = folder / "ex4d"
    folder.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_without_a_backend_start_says_where_to_get_one(nothing_installed):
    preferences().address = "tcp://127.0.0.1:47999"
    assert not is_installed(preferences().serve_command) and find_program() is None
    with pytest.raises(RuntimeError, match="not installed on this computer; the add-on's preferences say how"):
        bpy.ops.ex4d.start_backend()
    with pytest.raises(RuntimeError, match="install the backend with: uv tool install"):
        bpy.ops.ex4d.use_found_backend()
    with pytest.raises(RuntimeError, match=r"cannot run 'ex4d'.*install the backend"):
        bpy.ops.ex4d.test_backend()
    assert not local_backend.running


def test_a_backend_that_uv_has_installed_is_found_beside_the_path(nothing_installed):
    """A Blender that was started from a menu has not the PATH of a terminal."""
    program = install(nothing_installed / ".local" / "bin")
    assert bpy.ops.ex4d.use_found_backend() == {"FINISHED"}
    assert program_of(preferences().serve_command) == [str(program)] and is_installed(preferences().serve_command)


def test_any_program_can_be_picked_also_in_a_folder_with_spaces(nothing_installed):
    program = install(nothing_installed / "my programs")
    assert bpy.ops.ex4d.pick_backend(filepath=str(program)) == {"FINISHED"}
    assert program_of(preferences().serve_command) == [str(program)] and is_installed(preferences().serve_command)
    with pytest.raises(RuntimeError, match="does not exist; choose the ex4d program"):
        bpy.ops.ex4d.pick_backend(filepath=str(program.with_name("other")))


# What the doctor of a computer without weights prints, a note of a library before it.
DOCTOR = """warming up
{"verb": "doctor", "exit_code": 0, "result": {"findings": [
 {"name": "ex4d", "finding": "0.1.0", "problem": ""},
 {"name": "GPU", "finding": "none that PyTorch can use: everything runs on the CPU", "problem": ""},
 {"name": "engine preview", "finding": "Apache-2.0: free for any use", "problem": ""},
 {"name": "engine wan", "finding": "unavailable: needs a GPU", "problem": ""}]}}
"""


def test_test_says_what_this_backend_can_do(tmp_path):
    program = install(tmp_path / "programs")
    (tmp_path / "doctor.json").write_text(DOCTOR)
    program.write_text(f'#!/bin/sh\ntest "$1 $2" = "doctor --json" && cat "{tmp_path}/doctor.json"\n')
    preferences().serve_command = f'"{program}" serve --device cpu'
    assert bpy.ops.ex4d.test_backend() == {"FINISHED"} and backend_test.running
    assert not bpy.ops.ex4d.test_backend.poll()
    tick_until(lambda: not backend_test.running, "the doctor")
    assert backend_test.problem == ""
    assert [(one.name, one.works) for one in backend_test.abilities] == [
        ("GPU", True),
        ("engine preview", True),
        ("engine wan", False),
    ]


def test_a_program_that_is_no_backend_is_said_to_be_none(backend_python):
    preferences().serve_command = f'"{backend_python}" -c "print(42)" serve'
    bpy.ops.ex4d.test_backend()
    tick_until(lambda: not backend_test.running, "the program")
    assert "not the command of a backend: 42" in backend_test.problem and not backend_test.abilities


def test_a_command_without_its_verb_is_named():
    with pytest.raises(StartError, match="'ex4d --help' has no 'serve'"):
        program_of("ex4d --help")


def test_a_test_under_way_ends_with_the_add_on(nothing_installed):
    program = install(nothing_installed / "bin")
    os.environ["PATH"] += f"{os.pathsep}/bin{os.pathsep}/usr/bin"
    preferences().serve_command = f"{program} serve"
    bpy.ops.ex4d.test_backend()
    process = backend_test._process
    backend_setup.unregister()
    assert process.poll() is not None and not backend_test.running


def test_preferences_outlive_the_extension():
    chosen = preferences()
    chosen.address, chosen.client_secret, chosen.licence = "tcp://192.0.2.7:47747", "/keys/me.key_secret", "RESEARCH"
    addon_utils.disable("blender_addon", default_set=True)
    assert "blender_addon" not in bpy.context.preferences.addons, "Blender forgets them"
    addon_utils.enable("blender_addon", default_set=True)
    chosen = preferences()
    assert (chosen.address, chosen.client_secret) == ("tcp://192.0.2.7:47747", "/keys/me.key_secret")
    assert chosen.licence == "RESEARCH"
    assert not chosen.is_property_set("serve_command"), "what was never set follows the default"
