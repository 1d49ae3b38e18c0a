"""The backend that the add-on starts on this computer: its command, its end, and what the sidebar says of it."""

from __future__ import annotations

from pathlib import Path

import bpy
import pytest

from blender_addon.connection.local_backend import WINDOWS, local_backend, words_of
from blender_addon.connection.session import session

from .conftest import backend_environment, free_address, tick_until
from .enabled import add_on, preferences


@pytest.fixture
def serve(backend_python, tmp_path, monkeypatch) -> str:
    """The command that a user has in the preferences, and an address where nobody listens yet."""
    monkeypatch.setenv("PYTHONPATH", backend_environment()["PYTHONPATH"])
    preferences().address = free_address()
    command = f'"{backend_python}" -m ex4d serve --data "{tmp_path / "data"}" --device cpu'
    preferences().serve_command = command
    return command


def test_a_local_backend_is_started_used_and_stopped(serve):
    assert local_backend.text() == ""
    assert bpy.ops.ex4d.start_backend() == {"FINISHED"}
    assert "is running; its log is" in local_backend.text()
    with pytest.raises(RuntimeError, match="running"):
        bpy.ops.ex4d.start_backend()
    tick_until(lambda: session().connected, "the backend that was started")
    assert bpy.ops.ex4d.stop_backend() == {"FINISHED"}
    tick_until(lambda: not local_backend.running, "its end")
    assert local_backend.text() == ""
    with pytest.raises(RuntimeError, match="No backend was started from here"):
        bpy.ops.ex4d.stop_backend()


def test_disabling_the_add_on_stops_what_it_started(serve):
    bpy.ops.ex4d.start_backend()
    process = local_backend._process
    add_on().unregister()
    assert process.poll() is not None and not local_backend.running
    add_on().register()


def test_a_backend_that_does_not_start_says_why(backend_python):
    preferences().serve_command = f'"{backend_python}" -c "print(1); raise SystemExit(\'no such device\')"'
    bpy.ops.ex4d.start_backend()
    tick_until(lambda: not local_backend.running, "its end")
    text, _, log = local_backend.text().partition(". Its log is ")
    assert text.startswith("the local backend ended: no such device; ")
    assert Path(log).expanduser() == local_backend.log


@pytest.mark.parametrize(
    ("prints", "shown"),
    [("'first' + chr(10) + 5000 * 'x'", 199 * "x" + "…"), ("chr(10)", "it printed nothing (exit code 3)")],
)
def test_what_the_sidebar_says_of_it_is_short(backend_python, prints, shown):
    """Neither the command line, which the preferences show, nor a page of a log."""
    preferences().serve_command = f'"{backend_python}" -c "print({prints}); raise SystemExit(3)"'
    bpy.ops.ex4d.start_backend()
    tick_until(lambda: not local_backend.running, "its end")
    assert local_backend.text().startswith(f"the local backend ended: {shown}; ")


@pytest.mark.skipif(WINDOWS, reason="Windows ends processes with ordinary codes")
def test_a_backend_that_was_killed_is_not_blamed_on_what_it_printed_last(serve):
    bpy.ops.ex4d.start_backend()
    local_backend._process.kill()
    tick_until(lambda: not local_backend.running, "its end")
    text = local_backend.text()
    assert text.startswith("the local backend was killed by signal 9; start it again. Its log")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("no-such-command serve", "'no-such-command serve' is not installed on this computer"),
        ("", "the backend command is empty"),
        ('ex4d "serve', "has an open quotation mark"),
    ],
)
def test_a_command_that_cannot_be_run_is_named(command, says):
    preferences().serve_command = command
    with pytest.raises(RuntimeError, match=says):
        bpy.ops.ex4d.start_backend()


def test_windows_paths_are_split_as_windows_does():
    command = r'"C:\Program Files\ex4d\ex4d.exe" serve --data "D:\my takes"'
    assert words_of(command, windows=True) == [r"C:\Program Files\ex4d\ex4d.exe", "serve", "--data", r"D:\my takes"]


def test_a_command_with_an_address_of_its_own_keeps_it(backend_python):
    command = f'"{backend_python}" -c "import sys; print(sys.argv[1:])" --address=tcp://127.0.0.1:5'
    preferences().serve_command = command
    bpy.ops.ex4d.start_backend()
    tick_until(lambda: not local_backend.running, "its end")
    assert local_backend.last_line() == "['--address=tcp://127.0.0.1:5']"


def test_another_computers_backend_is_not_started_here():
    preferences().address = "tcp://192.0.2.1:47747"
    with pytest.raises(RuntimeError, match="on another computer; start it there"):
        bpy.ops.ex4d.start_backend()
