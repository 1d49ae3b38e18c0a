"""What scripts/demo.py decides to set up: what is there, what fits the Pythons at hand, and the machine."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import demo_setup
import environments
import try_bare_system
from cpu_torch import tool_with_cpu_torch
from environments import BACKEND, BLENDERS, DEMO
from interpreters import PythonMissing, SetupError


@pytest.fixture
def machine(monkeypatch):
    """A Linux machine without a GPU, environments, Blenders and uv, whose Pythons a test chooses."""

    def choose(*pythons: str, ready=(), blender=None, nvidia=False, running="3.11", torch_from=""):
        versions = [tuple(map(int, number.split("."))) for number in pythons]

        def find(version, *, needs_pip, may_fetch=False):
            if version not in versions:
                raise PythonMissing(f"Python {version} is missing")
            return Path(sys.executable)

        running = tuple(map(int, running.split(".")))
        monkeypatch.setattr(demo_setup, "find_python", find)
        monkeypatch.setattr(demo_setup, "usable_python", lambda version: find(version, needs_pip=False))
        monkeypatch.setattr(sys, "version_info", (*running, 0))
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(demo_setup.platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(environments, "missing_part", lambda one: "" if one in ready else "environment")
        monkeypatch.setattr(demo_setup, "has_nvidia", lambda: nvidia)
        monkeypatch.setattr(demo_setup, "installed_blender", lambda: blender)
        monkeypatch.setattr(demo_setup, "tool_with_cpu_torch", lambda *_: torch_from)
        monkeypatch.setattr(demo_setup.system_packages, "missing_libraries", lambda names: [])

    return choose


@pytest.mark.parametrize(
    ("python", "wheel"), [("3.11", BLENDERS["5.0"]), ("3.13", BLENDERS["5.2"])], ids=["Debian 12", "Debian 13"]
)
def test_the_wheel_of_blender_follows_the_python_at_hand(machine, python, wheel):
    machine(python, running=python)
    plan = demo_setup.plan_for()
    assert plan.blender == wheel
    assert plan.backend.python_version == wheel.python_version
    assert plan.environments == (plan.backend, wheel)


def test_the_python_that_runs_comes_first_and_any_other_fitting_one_next(machine):
    machine("3.11", "3.13", running="3.13")
    assert demo_setup.plan_for().blender == BLENDERS["5.2"]
    machine("3.12", "3.13", running="3.12")
    assert demo_setup.plan_for().blender == BLENDERS["5.2"]


def test_a_python_without_a_wheel_uses_an_installed_blender(machine, capsys):
    machine("3.12", running="3.12", blender=Path("/opt/blender/blender"))
    plan = demo_setup.plan_for()
    assert plan.blender == plan.program == Path("/opt/blender/blender")
    assert plan.environments == (replace(DEMO, python_version=(3, 12), lock_name="demo-cuda", megabytes=4430),)
    assert "using /opt/blender/blender" in capsys.readouterr().out


def test_without_a_fitting_python_and_a_blender_it_says_what_to_install(machine):
    machine("3.12", running="3.12")
    with pytest.raises(
        SetupError, match=r"no wheel of Blender fits.*no Blender 4\.2 or later was found: install Python"
    ):
        demo_setup.plan_for()


def test_a_named_blender_is_taken_and_a_wrong_name_refused(machine):
    machine("3.11")
    program = Path(sys.executable)
    assert demo_setup.plan_for(program).program == program
    with pytest.raises(SetupError, match="no Blender found at 'no-such-blender'"):
        demo_setup.named_blender("no-such-blender")


def test_a_gpu_brings_the_cuda_build(machine):
    machine("3.11", nvidia=True)
    assert demo_setup.plan_for().backend == BACKEND


def test_pytorchs_build_for_processors_is_taken_from_whichever_tool_has_it(machine):
    machine("3.11", torch_from="pip")
    assert demo_setup.plan_for().backend == replace(DEMO, torch_from="pip")


def test_what_is_set_up_already_is_used(machine):
    machine("3.11", "3.13", ready=(BACKEND, BLENDERS["4.5"]))
    assert demo_setup.plan_for() == demo_setup.Plan(BACKEND, BLENDERS["4.5"])
    small = replace(DEMO, python_version=(3, 13), lock_name="demo-cuda")
    machine("3.11", "3.13", ready=(BACKEND, small, BLENDERS["5.2"]))
    assert demo_setup.plan_for() == demo_setup.Plan(small, BLENDERS["5.2"])


def test_a_user_without_blenders_libraries_may_use_an_installed_blender(machine, monkeypatch):
    machine("3.11", blender=Path("/usr/bin/blender"))
    monkeypatch.setattr(demo_setup.system_packages, "missing_libraries", lambda names: ["libX11.so.6"])
    monkeypatch.setattr(demo_setup.system_packages, "can_install", lambda: False)
    assert demo_setup.plan_for().blender == Path("/usr/bin/blender")


def answering(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="writes shell scripts that stand in for pip and uv")
def test_pip_and_uv_are_asked_whether_they_have_the_pinned_build(tmp_path, monkeypatch):
    lock = tmp_path / "demo.txt"
    lock.write_text("torch==2.13.0+cpu ; x \\\n    --hash=sha256:aa11\n    # via\n", encoding="utf-8")
    listing = 'case "$*" in *--version) echo pip ;; *) echo "Available versions: 2.15.0, {}, 2.13.0" ;; esac'
    with_it = answering(tmp_path, "python-1", listing.format("2.13.0+cpu"))
    without = answering(tmp_path, "python-2", listing.format("2.14.0"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tool_with_cpu_torch(with_it, (3, 11), lock) == "pip"
    assert tool_with_cpu_torch(without, (3, 11), lock) == ""
    answering(tmp_path, "uv", "echo 'torch==2.13.0+cpu --hash=sha256:bb22'")
    assert tool_with_cpu_torch(without, (3, 11), lock) == "", "another file of that version is not the pinned one"
    answering(tmp_path, "uv", "echo 'torch==2.13.0+cpu --hash=sha256:bb22 --hash=sha256:aa11'")
    assert tool_with_cpu_torch(without, (3, 11), lock) == "uv"


def test_the_lock_names_a_build_that_can_be_asked_for(tmp_path, monkeypatch):
    """A python that lists whatever it is told to stands for pip; the lock is the project's own."""
    if sys.platform == "win32":
        pytest.skip("writes a shell script that stands in for pip")
    asked = answering(tmp_path, "python", 'case "$*" in *--version) echo pip ;; *) echo "2.13.0+cpu" ;; esac')
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tool_with_cpu_torch(asked, (3, 11), environments.LOCKS / "demo.txt") == "pip"


def test_a_bare_system_says_what_it_lacks_before_it_starts(monkeypatch):
    monkeypatch.setattr(try_bare_system.os, "geteuid", lambda: 1000, raising=False)
    if sys.platform == "linux":
        assert try_bare_system.why_not() == "this user is not root"
        monkeypatch.setattr(try_bare_system.os, "geteuid", lambda: 0)
        monkeypatch.setenv("PATH", "")
        assert try_bare_system.why_not().startswith("debootstrap and unshare and git not found")


@pytest.mark.slow
def test_the_scripts_run_on_a_bare_debian(tmp_path):
    """The short form: no environment, only what the system's Python can do; a minute or two with debootstrap."""
    if problem := try_bare_system.why_not():
        pytest.skip(problem)
    if not (environments.ROOT / ".git").exists():
        pytest.skip("needs a checkout, whose last commit is copied in")
    command = [
        sys.executable,
        "scripts/try_bare_system.py",
        "--suite",
        "bookworm",
        "--short",
        "--folder",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=environments.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "usage: demo.py" in done.stdout and "ex4d-" in done.stdout
    assert list(tmp_path.iterdir()) == []
