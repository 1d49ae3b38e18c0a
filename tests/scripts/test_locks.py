"""The locks: what is installed is what was pinned, wherever it comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import environments

LOCKS = sorted(environments.LOCKS.glob("*.txt"))


def requirements(lock: Path) -> list[str]:
    """A lock's requirements, each with its hashes, as one line each."""
    joined = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def pinned(name: str, python: tuple[int, int] = (3, 11)) -> dict[str, str]:
    """A lock's packages and their versions, as on a Linux machine with Python 3.11 or 3.13."""
    found = {}
    for line in requirements(environments.LOCKS / f"{name}.txt"):
        package, version, marker = re.match(r"(\S+)==(\S+)(?: ; (.*?))?\s+--hash", line).groups()
        if python > (3, 11) or "python_full_version >= '3.12'" not in (marker or ""):
            found[package] = version
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_requirement_is_pinned_and_hashed(lock):
    assert requirements(lock)
    for line in requirements(lock):
        assert re.match(r"^[\w.\[\]-]+==[\w.+!]+( ; .+?)?( +--hash=sha256:[0-9a-f]{64})+\s*$", line), line


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_no_lock_names_an_index_a_host_or_a_folder_of_one_machine(lock):
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--index-url|--extra-index-url|--find-links|--trusted-host)\b", text, re.MULTILINE)
    assert not re.search(r"(^|[\s=@])/\w|[A-Z]:\\", text)
    assert environments.LOCK_COMMAND in text.splitlines()[1]


def test_every_environment_and_every_input_has_its_lock():
    inputs = {path.stem for path in environments.LOCKS.glob("*.in")}
    assert inputs == {lock.stem for lock in LOCKS}
    assert inputs == {*environments.ENVIRONMENTS, "demo-cuda", "addon-wheels"}


def test_the_versions_that_results_rest_on():
    backend = pinned("backend")
    assert (backend["torch"], backend["warp-lang"]) == ("2.15.0", "1.19.0")


def test_the_demo_needs_no_gpu_and_nothing_of_the_engine_wan():
    small = requirements(environments.LOCKS / "demo.txt")
    here = [line for line in small if "+cpu ;" in line]
    assert len(here) == 1 and here[0].startswith("torch==") and "== '3.11.*'" in here[0]
    # On that Python and system, nothing of CUDA comes along.
    markers = pytest.importorskip("packaging.markers", reason="reads markers as pip does")
    linux = {"python_full_version": "3.11.7", "python_version": "3.11", "sys_platform": "linux"}
    linux |= {"platform_machine": "x86_64", "implementation_name": "cpython"}
    taken = set()
    for line in small:
        requirement, _, marker = line.partition("--hash")[0].partition(" ; ")
        if not marker or markers.Marker(marker).evaluate(linux):
            taken.add(requirement.strip())
    assert {"torch==2.13.0+cpu", "warp-lang==1.19.0"} <= taken
    assert not [one for one in taken if one.startswith("nvidia-")]
    for name in ("demo", "demo-cuda"):
        packages = {line.split("==")[0] for line in requirements(environments.LOCKS / f"{name}.txt")}
        assert {"torch", "warp-lang", "av", "openexr"} <= packages
        assert not packages & {"diffsynth", "transformers", "torchvision", "triton", "pytest", "ruff"}


@pytest.mark.parametrize("name", ["demo", "demo-cuda"])
def test_demo_and_backend_render_by_the_same_warp(name):
    assert pinned(name)["warp-lang"] == pinned("backend")["warp-lang"]
    assert pinned(name)["pyzmq"] == pinned("addon-wheels")["pyzmq"]


@pytest.mark.parametrize("version", environments.BLENDERS)
def test_each_blender_is_itself_with_the_numpy_that_it_brings(version):
    environment = environments.BLENDERS[version]
    blender = pinned(environment.name, environment.python_version)
    assert blender["bpy"].startswith(f"{version}.")
    assert blender["numpy"].startswith("1." if environment.python_version == (3, 11) else "2.")


@pytest.mark.parametrize("environment", environments.BLENDERS.values(), ids=lambda environment: environment.name)
def test_backend_and_add_on_speak_through_the_same_releases(environment):
    backend, wheels = pinned("backend"), pinned("addon-wheels")
    blender = pinned(environment.name, environment.python_version)
    assert set(wheels) == {"msgpack", "pyzmq"}
    for package, version in wheels.items():
        assert backend[package] == blender[package] == version


def test_locks_serve_windows_and_macos_too():
    lines = requirements(environments.LOCKS / "backend.txt")
    cuda = [line for line in lines if line.startswith("nvidia-")]
    assert cuda
    assert all("sys_platform == 'linux'" in line for line in cuda)
    assert any(line.startswith("pywin32-ctypes==") and "sys_platform == 'win32'" in line for line in lines)
