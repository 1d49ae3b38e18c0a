"""The demo's Blender: what an executable's own Python lacks is added, and what is wrong with it is one sentence."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from ex4d.addon.blenders import Blender
from ex4d.cli.main import main
from ex4d.demo.blender_packages import blender_modules, last_line_of
from ex4d.demo.chain import _only_one_demo

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="writes shell scripts that stand in for a Blender")


def blender_that(folder: Path, *lines: str, name: str = "blender", version: str = "4.2.3 LTS") -> Path:
    """A program that has Blender's version, and otherwise runs these lines of shell."""
    path = folder / name
    script = ["#!/bin/sh", f'[ "$1" = --version ] && echo "Blender {version}" && exit 0', *lines]
    path.write_text("\n".join(script) + "\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> str:
    """A Python with numpy and nothing else, as Blender has; the line that runs a script with it like Blender does."""
    import numpy

    packages = tmp_path_factory.mktemp("packages")
    for folder in ("numpy", "numpy.libs"):
        source = Path(numpy.__file__).parents[1] / folder
        if source.is_dir():
            (packages / folder).symlink_to(source)
    return (
        f'while [ "$1" != --python ]; do shift; done; PYTHONPATH="{packages}:$PYTHONPATH" exec {sys.executable} -S "$2"'
    )


def test_a_blender_without_pyzmq_and_msgpack_gets_the_wheels_of_the_addons_zip(bare_python, tmp_path):
    program = blender_that(tmp_path, bare_python)
    with blender_modules(Blender.at(program)) as folder:
        assert {"blender_addon", "ex4d_core", "zmq", "msgpack"} <= {path.name for path in folder.iterdir()}
        check = tmp_path / "check.py"
        check.write_text("import numpy, zmq, msgpack; print(zmq.__file__)", encoding="utf-8")
        done = subprocess.run(
            Blender.at(program).script(check), env={"PYTHONPATH": str(folder)}, capture_output=True, text=True
        )
        assert done.stdout.startswith(str(folder)), done.stderr


def test_a_python_that_has_both_gets_nothing_beside_our_packages():
    with blender_modules(Blender.at(sys.executable)) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["blender_addon", "ex4d_core"]


@pytest.mark.parametrize(
    ("lines", "version", "message"),
    [
        (["exit 0"], "4.1.1", "is Blender 4.1: expected 4.2 or later"),
        (
            ["echo 'ImportError: libX11.so.6: cannot open shared object file' >&2", "echo 'Blender quit'", "exit 1"],
            "4.2.3",
            "does not run a script: ImportError: libX11.so.6: cannot open shared object file",
        ),
    ],
)
def test_a_blender_that_cannot_be_used_is_one_sentence_before_anything_is_shown(
    lines, version, message, tmp_path, capfd
):
    program = blender_that(tmp_path, *lines, version=version)
    assert main(["demo", "--blender", str(program), "--out", str(tmp_path / "out")]) == 1
    told = capfd.readouterr().err
    assert message in told and "reconstruct" not in told and "Traceback" not in told
    assert len(told.strip().splitlines()) == 1


def test_a_failure_inside_blender_is_told_in_the_logs_own_words(tmp_path, capfd):
    """A Python that answers the first question, and fails when it imports bpy."""
    program = blender_that(
        tmp_path,
        f'case "$1" in *probe.py) exec {sys.executable} "$1" ;; esac',
        "echo 'Traceback (most recent call last):' >&2",
        "echo 'ImportError: libSM.so.6: cannot open shared object file: No such file or directory' >&2",
        "exit 1",
        name="python-with-bpy",
    )
    assert main(["demo", "--blender", str(program), "--out", str(tmp_path / "out")]) == 1
    told = capfd.readouterr().err.splitlines()[-1]
    assert told.startswith("ex4d demo: Blender failed (exit code 1): ImportError: libSM.so.6: cannot open shared")
    assert told.endswith(f"log: {tmp_path / 'out' / 'blender.log'}")


def test_without_any_blender_the_demo_says_how_to_get_one(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("ex4d.addon.blenders.find_blender", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 1
    assert "no Blender found: install Blender 4.2 or later" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_last_line_of_a_log_is_the_exception_and_not_the_farewell():
    log = "Traceback\nValueError: 3 is too many\nError: script failed, file: 'x.py', exiting.\n\nBlender quit\n"
    assert last_line_of(log) == "ValueError: 3 is too many"
    assert last_line_of("Segmentation fault\n\nBlender quit\n") == "Segmentation fault"


def test_a_second_demo_in_the_same_folder_says_that_it_waits(tmp_path, capfd):
    worked = threading.Event()

    def second() -> None:
        with _only_one_demo(tmp_path):
            worked.set()

    first = FileLock(tmp_path / ".lock")
    with first:
        thread = threading.Thread(target=second)
        thread.start()
        told = ""
        while "another demo is running" not in told:
            told += capfd.readouterr().err
        assert not worked.is_set()
    thread.join()
    assert worked.is_set() and str(tmp_path) in told


def test_warp_starts_without_a_word(tmp_path):
    """Neither the missing driver nor an old Python is the user's concern; what else it says stays."""
    program = (
        "from ex4d.warp_start import start_warp; start_warp(); start_warp(); import warp; print(warp.config.log_level)"
    )
    done = subprocess.run([sys.executable, "-W", "default", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", "30")


def test_what_else_is_written_while_warp_starts_is_passed_on(tmp_path):
    program = (
        "import os, warp; from ex4d import warp_start\n"
        "warp.init = lambda: os.write(2, b'Could not find or load the NVIDIA CUDA driver.\\nA real error.\\n')\n"
        "warp_start.start_warp()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == "A real error.\n"
