"""The files in docs/deploy: what linters find, and what runs here without a container engine or a cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "docs/deploy"
SCRIPTS = [*sorted(DEPLOY.glob("*.sh")), DEPLOY / "ex4d-takes.sbatch"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers, systemd and Slurm run on Linux")


def run(*command: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, **options)


def linter(name: str) -> str:
    """The path of a linter, beside this Python or on the PATH."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=places)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


def test_the_containerfile_has_no_finding_of_hadolint():
    done = run(linter("hadolint"), "--no-color", DEPLOY / "Containerfile")
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_have_no_finding_of_shellcheck(script):
    done = run(linter("shellcheck"), script)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid_for_their_shell(script):
    shell = "bash" if "bash" in script.read_text().partition("\n")[0] else "sh"
    done = run(shell, "-n", script)
    assert done.returncode == 0, done.stderr


def test_the_compose_file_is_valid():
    pytest.importorskip("check_jsonschema", reason="the schema comes with check-jsonschema, of the extra dev")
    command = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    done = run(*command, DEPLOY / "compose.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def unit(tmp_path) -> Path:
    """The unit with a program that exists here, since systemd looks for it."""
    path = tmp_path / "ex4d.service"
    text = (DEPLOY / "ex4d.service").read_text()
    path.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", text, flags=re.MULTILINE))
    return path


def test_systemd_accepts_the_unit(unit):
    done = run(linter("systemd-analyze"), "verify", unit)
    assert done.returncode == 0 and unit.name not in done.stderr, done.stderr


def test_the_unit_is_confined(unit):
    """systemd's own measure, 0 (confined) to 10; without any of it, a service is at 9.6."""
    done = run(linter("systemd-analyze"), "security", "--offline=true", unit)
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    if not found:
        pytest.skip("this systemd-analyze cannot judge a unit that is not installed")
    assert float(found[1]) < 2.5, done.stdout


def copied(text: str) -> Iterator[tuple[list[str], str]]:
    """What a Containerfile copies from the source tree, and where to."""
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        *sources, target = [word for word in line.split() if not word.startswith("--")]
        yield sources, target


def test_what_the_image_copies_suffices_to_build_the_package(tmp_path):
    pytest.importorskip("hatchling", reason="building needs the project's own environment, .venv/backend")
    for sources, target in copied((DEPLOY / "Containerfile").read_text()):
        for source in sources:
            path = tmp_path / "src" / target
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, path, ignore=shutil.ignore_patterns("__pycache__"))
            elif not target.startswith("/usr"):
                path = path / Path(source).name if target.endswith("/") else path
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, path)
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=tmp_path / "src")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("ex4d-*.whl"))


def test_the_builder_gets_what_the_containerfile_copies():
    kept = {
        line.removeprefix("!")
        for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for sources, _ in copied((DEPLOY / "Containerfile").read_text()):
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(source == name or source.startswith(f"{name}/") for name in kept), source


def test_the_locks_versions_become_constraints():
    """The line of the target cpu, on the lock as it is: a name, its version and its marker, without hashes."""
    expression = re.search(r"sed -nE '([^']+)'", (DEPLOY / "Containerfile").read_text())[1]
    lock = ROOT / "scripts/locks/backend.txt"
    lines = run("sed", "-nE", expression, lock).stdout.splitlines()
    assert len(lines) == len(re.findall(r"^[A-Za-z0-9]\S*==", lock.read_text(), re.MULTILINE)) > 50
    assert all(re.fullmatch(r"[\w.\[\]-]+==[\w.+!]+( ; .*[^\\ ])?", line) for line in lines)


@pytest.fixture
def command(tmp_path) -> dict[str, str]:
    """The environment of a machine where `ex4d` is on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ex4d").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ex4d "$@"\n')
    (folder / "ex4d").chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "backend"), str(ROOT)]),
        "HOME": str(tmp_path / "home"),
    }


def test_the_container_starts_creates_its_keys_and_reports_its_health(command, tmp_path, free_port):
    """The two scripts of the image, on this machine, with the real service."""
    data = tmp_path / "data"
    variables = {**command, "EX4D_CONTAINER_DATA": str(data), "EX4D_CONTAINER_ADDRESS": f"tcp://0.0.0.0:{free_port}"}
    health = ["sh", str(DEPLOY / "container-health.sh")]
    data.mkdir()
    start = ["sh", str(DEPLOY / "container-start.sh"), "--device", "cpu"]
    with open(tmp_path / "log", "wb") as log:
        service = subprocess.Popen(start, env=variables, stderr=log, stdout=log)
    try:
        healthy = False
        while not healthy and service.poll() is None:
            healthy = (data / "service.pid").exists() and run(*health, env=variables).returncode == 0
        assert healthy, (tmp_path / "log").read_text()
        assert (data / "keys" / "health.key_secret").stat().st_mode & 0o077 == 0
        before = (data / "keys" / "server.key").read_bytes()
    finally:
        service.terminate()
        code = service.wait(60)
    assert code == 0, "the script hands the signal on, and the service ends in order"
    done = run(*health, env=variables)
    assert done.returncode == 1 and "ex4d jobs:" in done.stderr
    assert (data / "keys" / "server.key").read_bytes() == before


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    from ex4d.cli.main import main

    sample, folder = ROOT / "tests/data/sample", tmp_path_factory.mktemp("scenes") / "a scene"
    clip = [str(sample / "footage.mp4"), "--depth", str(sample / "depth.npz"), "--frames", "1"]
    assert main(["reconstruct", *clip, "-o", str(folder)]) == 0
    return folder


def test_a_task_of_the_array_makes_its_own_line_once(command, scene, tmp_path):
    takes = tmp_path / "takes.txt"
    takes.write_text(
        f'nowhere -o "{tmp_path}/first"\n'
        f'"{scene}" --frames 1 --size 32x32 --engine preview --label "; touch $HOME `x`" -o "{tmp_path}/second take"\n'
    )
    variables = {**command, "SLURM_ARRAY_TASK_ID": "2", "TMPDIR": str(tmp_path)}
    task = ("bash", DEPLOY / "ex4d-takes.sbatch", takes)
    done = run(*task, env=variables)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "second take" / "take.mp4").is_file() and not (tmp_path / "first").exists()
    assert "; touch $HOME `x`" in (tmp_path / "second take" / "request.json").read_text()
    made = (tmp_path / "second take" / "take.mp4").stat().st_mtime_ns
    again = run(*task, env=variables)
    assert again.returncode == 0 and "is finished" in again.stdout
    assert (tmp_path / "second take" / "take.mp4").stat().st_mtime_ns == made


def test_a_task_without_a_line_fails(command, tmp_path):
    (tmp_path / "takes.txt").write_text("one -o x\n")
    task = ("bash", DEPLOY / "ex4d-takes.sbatch", tmp_path / "takes.txt")
    done = run(*task, env={**command, "SLURM_ARRAY_TASK_ID": "7"})
    assert done.returncode == 1 and "no line 7" in done.stderr
    assert run(*task, env={key: value for key, value in command.items() if key != "SLURM_ARRAY_TASK_ID"}).returncode
