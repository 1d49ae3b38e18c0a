"""Set-up: once, completely or not at all, quick to find nothing to do, and clear about what is missing."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import environments
import interpreters

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
NAME = "blender-5.0"
pytestmark = [
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="sets up environments of Python 3.11 from 3.11"),
    pytest.mark.skipif(os.name == "nt", reason="watches processes by POSIX signals and pipes"),
]


@dataclass(frozen=True)
class Project:
    """A checkout of nothing but the set-up script and a lock of one tiny package, installed without a network."""

    folder: Path

    @property
    def environment(self) -> Path:
        return self.folder / ".venv" / NAME

    @property
    def lock(self) -> Path:
        return self.folder / "scripts" / "locks" / f"{NAME}.txt"

    @property
    def stamp(self) -> Path:
        return self.environment / "ex4d-setup.json"

    def start(self, commands: str = os.defpath) -> subprocess.Popen[str]:
        """Start set-up; with pip, unless the folder `commands` has a uv."""
        variables = {"PATH": commands, "HOME": str(self.folder), "PIP_NO_INDEX": "1"}
        variables["PIP_FIND_LINKS"] = str(self.folder / "packages")
        command = [sys.executable, "scripts/environments.py", "setup", NAME]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # What a shell starts in the background ignores Ctrl-C, and so would what is started here.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def set_up(self) -> tuple[int, str]:
        process = self.start()
        output, _ = process.communicate()
        return process.returncode, output


def write_wheel(folder: Path) -> str:
    """A wheel of the package `tiny` 1.0 with one module; returns its SHA-256."""
    folder.mkdir(parents=True)
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny.py", "NUMBER = 1\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def new_project(tmp_path_factory):
    def make() -> Project:
        project = Project(tmp_path_factory.mktemp("project"))
        project.lock.parent.mkdir(parents=True)
        for script in ("environments", "environment_builder", "interpreters", "system_packages", "tool_output"):
            shutil.copy2(SCRIPTS / f"{script}.py", project.folder / "scripts")
        digest = write_wheel(project.folder / "packages")
        project.lock.write_text(f"tiny==1.0 \\\n    --hash=sha256:{digest}\n", encoding="utf-8")
        return project

    return make


@pytest.fixture(scope="module")
def ready(new_project) -> tuple[Project, list[tuple[int, str]]]:
    """A project that two runs set up at the same moment, and what both said."""
    project = new_project()
    runs = [project.start(), project.start()]
    outputs = [run.communicate()[0] for run in runs]
    return project, [(run.returncode, output) for run, output in zip(runs, outputs, strict=True)]


def test_two_set_ups_at_once_make_one_environment(ready):
    project, results = ready
    assert [code for code, _ in results] == [0, 0], results
    assert sum("creating it" in output for _, output in results) == 1
    python = project.environment / "bin" / "python"
    done = subprocess.run([python, "-c", "import tiny; print(tiny.NUMBER)"], capture_output=True, text=True)
    assert done.stdout == "1\n"


def test_each_step_is_a_line_with_the_time_it_took(ready):
    _, results = ready
    output = next(output for _, output in results if "creating it" in output)
    steps = [line for line in output.splitlines() if line.startswith(f"[{NAME}] ") and "waiting" not in line]
    assert len(steps) == 2
    assert all(re.search(r" \.\.\. \d+\.\d s$", line) for line in steps)


def test_a_second_run_leaves_everything_as_it_is(ready):
    project, _ = ready
    before = {path: path.stat().st_mtime_ns for path in project.environment.rglob("*")}
    code, output = project.set_up()
    assert code == 0
    assert "..." not in output
    # Only the cache of compiled modules may grow, as Python started.
    after = {path: path.stat().st_mtime_ns for path in project.environment.rglob("*")}
    assert after == before


@pytest.fixture
def module_of(monkeypatch):
    """The set-up script, looking at another project's folder."""

    def use(project: Project):
        monkeypatch.setattr(environments, "ROOT", project.folder)
        monkeypatch.setattr(environments, "LOCKS", project.lock.parent)
        monkeypatch.setattr(environments, "HOME", project.folder / ".venv")
        return environments, environments.ENVIRONMENTS[NAME]

    return use


def test_what_makes_an_environment_count_as_missing(ready, module_of, tmp_path):
    project, _ = ready
    module, environment = module_of(project)
    assert module.missing_part(environment) == ""

    lock = project.lock.read_text(encoding="utf-8")
    project.lock.write_text(lock + "# changed\n", encoding="utf-8")
    assert module.missing_part(environment) == "environment"
    project.lock.write_text(lock, encoding="utf-8")
    assert module.missing_part(environment) == ""

    stamp = project.stamp.read_text(encoding="utf-8")
    for broken in ("", "[]", stamp[:-20], stamp.replace('"3.11"', '"3.10"')):
        project.stamp.write_text(broken, encoding="utf-8")
        assert module.missing_part(environment) == "environment"
    project.stamp.write_text(stamp, encoding="utf-8")

    moved = Project(tmp_path / "moved")
    shutil.copytree(project.folder, moved.folder, symlinks=True)
    module, environment = module_of(moved)
    assert module.missing_part(environment) == "environment"


def test_an_uninstalled_base_interpreter_counts_as_missing(ready, module_of, tmp_path):
    project, _ = ready
    module, environment = module_of(project)
    python = project.environment / "bin" / "python"
    kept = python.readlink()
    python.unlink()
    python.symlink_to(tmp_path / "uninstalled" / "python3.11")
    try:
        assert module.missing_part(environment) == "environment"
    finally:
        python.unlink()
        python.symlink_to(kept)


def test_an_interrupted_set_up_is_done_again(new_project):
    project = new_project()
    leftover = project.environment / "lib" / "half-installed"
    leftover.mkdir(parents=True)
    code, output = project.set_up()
    assert code == 0, output
    assert not leftover.exists()
    assert project.stamp.exists()


def test_a_link_to_another_checkouts_environments_does_not_empty_them(ready, new_project):
    def contents() -> dict[Path, int]:
        return {path: path.lstat().st_mtime_ns for path in other.environment.rglob("*")}

    other, _ = ready
    before = contents()
    project = new_project()
    (project.folder / ".venv").symlink_to(other.folder / ".venv")
    code, output = project.set_up()
    assert code == 1 and output.strip() == (
        f"{project.folder}/.venv is a link to {other.folder}/.venv, and {NAME} in there is the environment "
        f"{other.environment}; it was left as it is. Remove the link for environments of this checkout's own, or, if "
        f"nobody needs that one, remove {other.environment}, and run this again."
    )
    assert contents() == before

    (project.folder / ".venv").unlink()
    (project.folder / ".venv").mkdir()
    project.environment.symlink_to(other.environment)
    code, output = project.set_up()
    assert code == 1 and f"{project.environment} is a link to {other.environment}" in output
    assert contents() == before


def test_environments_may_lie_on_another_disk(new_project, tmp_path):
    project = new_project()
    (project.folder / ".venv").symlink_to(tmp_path / "large")
    code, output = project.set_up()
    assert code == 1 and f"is a link to {tmp_path / 'large'}, which does not exist" in output
    (tmp_path / "large").mkdir()
    code, output = project.set_up()
    assert code == 0 and (tmp_path / "large" / NAME / "bin" / "python").exists(), output
    project.lock.write_text(project.lock.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    code, output = project.set_up()
    assert code == 0 and "creating it" in output, "what it made there itself, it may replace"


@dataclass(frozen=True)
class SlowInstaller:
    """A `uv` that makes an environment at once; its first install takes as long as the test wants."""

    folder: Path

    def __post_init__(self) -> None:
        os.mkfifo(self.gate)
        uv = self.folder / "uv"
        uv.write_text(
            f"""#!/bin/sh
            for last; do :; done
            case $1 in
                venv) mkdir -p "$last/bin" && ln -s "{sys.executable}" "$last/bin/python" ;;
                pip) [ -e "{self.folder}/pid" ] || {{ echo $$ > "{self.folder}/pid"; read answer < "{self.gate}"; }} ;;
            esac
            """,
            encoding="utf-8",
        )
        uv.chmod(0o755)

    @property
    def gate(self) -> Path:
        return self.folder / "gate"

    @property
    def path(self) -> str:
        return f"{self.folder}{os.pathsep}{os.defpath}"

    def process(self) -> int:
        return int((self.folder / "pid").read_text())


@pytest.fixture
def slow_installer(tmp_path) -> SlowInstaller:
    return SlowInstaller(tmp_path)


def test_a_killed_set_ups_installer_is_waited_for(new_project, slow_installer):
    """Otherwise two installers would write into the same folder."""
    project = new_project()
    killed = project.start(slow_installer.path)
    # Opening for writing waits for the reader: the installer is at work now.
    with slow_installer.gate.open("w") as gate:
        killed.kill()
        killed.wait()
        follower = project.start(slow_installer.path)
        assert any("another set-up is running" in line for line in iter(follower.stdout.readline, ""))
        gate.write("done\n")
    output, _ = follower.communicate()
    assert follower.returncode == 0, output
    assert "creating it" in output
    assert project.stamp.exists()


def test_ctrl_c_ends_the_installer_too_and_leaves_no_finished_environment(new_project, slow_installer):
    project = new_project()
    run = project.start(slow_installer.path)
    with slow_installer.gate.open("w"):
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate()
    assert run.returncode == 130
    assert "Interrupted" in output
    assert not project.stamp.exists()
    assert has_ended(slow_installer.process())


def has_ended(pid: int) -> bool:
    """Whether a process ends within a minute; one that was killed may take a moment, and wait for whoever reaps it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat")  # on Linux; "pid (name) Z" is a process that only has to be reaped
            if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.01)
    return False


def test_a_package_that_is_not_the_locked_one_is_refused(new_project):
    project = new_project()
    with zipfile.ZipFile(project.folder / "packages" / "tiny-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("more.py", "")
    code, output = project.set_up()
    assert code == 1
    assert "failed" in output
    assert "HASH" in output.upper()
    assert str(project.folder / ".venv" / f"{NAME}.log") in output
    assert not project.stamp.exists()


def test_a_missing_python_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(
        interpreters.PythonMissing, match=r"Python 3\.99 is needed .*install it .*python3\.99.* on PATH"
    ):
        interpreters.find_python((3, 99), needs_pip=True)


def fake_interpreter(folder: Path, answer: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python3.99"
    path.write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def interpreter_says(path: Path, venv: bool) -> str:
    return f'echo \'{{"version": [3, 99], "executable": "{path}", "venv": {str(venv).lower()}}}\''


def test_a_python_without_venv_serves_uv_but_not_pip(tmp_path, monkeypatch):
    path = tmp_path / "python3.99"
    fake_interpreter(tmp_path, interpreter_says(path, venv=False))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert interpreters.find_python((3, 99), needs_pip=False) == path
    with pytest.raises(interpreters.PythonMissing, match=r"without its venv module.*python3\.99-venv"):
        interpreters.find_python((3, 99), needs_pip=True)


def test_a_launcher_that_starts_nothing_is_passed_over_for_pyenvs_newest(tmp_path, monkeypatch):
    fake_interpreter(tmp_path / "shims", "echo 'command not found' >&2; exit 127")
    for patch in (9, 10):
        folder = tmp_path / "pyenv" / "versions" / f"3.99.{patch}" / "bin"
        fake_interpreter(folder, interpreter_says(folder / "python", venv=True)).rename(folder / "python")
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    found = interpreters.find_python((3, 99), needs_pip=True)
    assert found == tmp_path / "pyenv" / "versions" / "3.99.10" / "bin" / "python"


def test_a_set_up_error_ends_the_program_with_its_sentence_alone():
    program = "from environments import *\nwith exit_on_setup_error(): raise SetupError('Get it.')"
    done = subprocess.run([sys.executable, "-c", program], cwd=SCRIPTS, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == "Get it."


MODULES = ["environments", "interpreters", "demo_setup", "all_checks", "build_addon", "demo", "test", "pin_locks"]


@pytest.mark.parametrize("script", MODULES)
def test_scripts_start_with_the_standard_library_alone(script):
    program = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import {script}"
    done = subprocess.run([sys.executable, "-S", "-I", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


DOORS = ["demo", "test", "build_addon"]


@pytest.mark.parametrize("script", DOORS)
def test_help_installs_nothing(script, tmp_path):
    shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "backend/ex4d/addon", tmp_path / "backend/ex4d/addon")
    shutil.copytree(ROOT / "ex4d_core", tmp_path / "ex4d_core")
    done = subprocess.run(
        [sys.executable, "-B", f"scripts/{script}.py", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and f"usage: {script}.py" in done.stdout, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backend", "ex4d_core", "scripts"]


@pytest.mark.parametrize("script", [*DOORS, "require_python"])
def test_an_old_python_can_read_the_scripts_that_people_start(script):
    tree = ast.parse((SCRIPTS / f"{script}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        assert not isinstance(node, (ast.JoinedStr, ast.AnnAssign, ast.Starred, ast.NamedExpr, ast.Nonlocal)), (
            node.lineno
        )
        if isinstance(node, ast.FunctionDef):
            assert node.returns is None and not node.args.kwonlyargs, node.name
        if isinstance(node, ast.ImportFrom):
            assert node.module != "__future__"


@pytest.mark.parametrize("script", DOORS)
@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7", "3.8", "3.9"])
def test_an_old_python_is_told_which_one_to_run_the_script_with(script, version, tmp_path):
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    old = next(root.glob(f"versions/{version}.*/bin/python"), None) or shutil.which(f"python{version}")
    if old is None or subprocess.run([old, "-c", ""]).returncode:
        pytest.skip(f"Python {version} is not installed")
    (tmp_path / "python3.13").symlink_to(sys.executable)
    for path, advice in (
        (tmp_path, f"run it again with `python3.13 {SCRIPTS}/{script}.py`"),
        (tmp_path / "empty", f"install Python 3.11 or 3.13, and run it again with `python3.11 {SCRIPTS}/{script}.py`"),
    ):
        done = subprocess.run(
            [old, "-B", SCRIPTS / f"{script}.py"],
            env={"PATH": str(path)},
            capture_output=True,
            text=True,
        )
        expected = f"This is Python {version}, and {SCRIPTS}/{script}.py needs 3.10 or later: {advice}."
        assert (done.returncode, done.stderr.strip()) == (1, expected)
