"""The files in docs/deploy: what linters find, and what runs here without a container engine or a cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import warp as wp

from ex4d.warp_start import start_warp

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "docs/deploy"
SCRIPTS = [*sorted(DEPLOY.glob("*.sh")), DEPLOY / "ex4d-shots.sbatch"]

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
    """The environment of a machine where `ex4d` is on the PATH; its kernels are those that were compiled before."""
    start_warp()
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ex4d").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ex4d "$@"\n')
    (folder / "ex4d").chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "backend"), str(ROOT)]),
        "HOME": str(tmp_path / "home"),
        "WARP_CACHE_PATH": str(wp.config.kernel_cache_dir),
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
def farm_folder(tmp_path_factory) -> Path:
    """A folder with a shots.toml of three shots; two are of the same footage, and one is of a scene that is there."""
    from ex4d.cli.main import main

    sample, folder = ROOT / "tests/data/sample", tmp_path_factory.mktemp("a farm")
    clip = [str(sample / "footage.mp4"), "--depth", str(sample / "depth.npz"), "--frames", "1"]
    assert main(["reconstruct", *clip, "-o", str(folder / "scene")]) == 0
    of_footage = f'footage = "{sample / "footage.mp4"}"\ndepth = "{sample / "depth.npz"}"\nreconstruct.frames = 1\n'
    shots = {"left": of_footage + "preset = -5\n", "a right": of_footage, "last": 'scene = "scene"\n'}
    text = "".join(f'[[shot]]\nname = "{name}"\n{fields}' for name, fields in shots.items())
    (folder / "shots.toml").write_text('[defaults]\nsize = "32x32"\n' + text, encoding="utf-8")
    return folder


def made_takes(folder: Path) -> dict[str, int]:
    """The times of the takes in a folder, by the names of their shots."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/take.mp4")}


def test_tasks_of_slurms_array_make_scenes_and_then_a_shot_each(command, farm_folder, tmp_path):
    task = ("bash", DEPLOY / "ex4d-shots.sbatch", farm_folder / "shots.toml", "-o", tmp_path / "takes", "--json")
    variables = {**command, "TMPDIR": str(tmp_path)}
    listed = run("ex4d", "batch", farm_folder / "shots.toml", "--list", env=variables)
    assert listed.stdout.splitlines() == ["left", "a right", "last"]
    for number in ("0", "2"):
        done = run(*task, env={**variables, "SLURM_ARRAY_TASK_ID": number})
        assert done.returncode == 0, done.stderr
        assert list(made_takes(tmp_path / "takes")) == ([] if number == "0" else ["a right"])
    (row,) = json.loads(done.stdout)["result"]["shots"]
    assert (row["state"], row["scene_state"]) == ("done", "skipped"), "task 0 has made the scene"
    before = made_takes(tmp_path / "takes")
    assert run(*task, env={**variables, "SLURM_ARRAY_TASK_ID": "2"}).returncode == 0
    assert made_takes(tmp_path / "takes") == before, "a task that runs again leaves what is finished"
    unknown = run(*task, env={**variables, "SLURM_ARRAY_TASK_ID": "7"})
    assert unknown.returncode == 1 and "has no shot 7; it has 3" in unknown.stdout
    assert "as a job array" in run(*task, env=variables).stderr


# What Flamenco gives to a job type's script, as its manual describes it; the job's tasks are printed.
_FLAMENCO = """
const author = {
    Task: (name, type) => ({
        name, type, commands: [], dependencies: [],
        addCommand(command) { this.commands.push(command); },
        addDependency(task) { this.dependencies.push(task.name); },
    }),
    Command: (name, parameters) => ({ name, parameters }),
};
const fs = require("fs");
const [script, values] = process.argv.slice(2);
const { JOB_TYPE, compileJob } = new Function("author", "print",
    fs.readFileSync(script, "utf8") + "; return { JOB_TYPE, compileJob };")(author, () => {});
const settings = {};
for (const setting of JOB_TYPE.settings) settings[setting.key] = setting.default ?? "";
const tasks = [];
compileJob({ settings: Object.assign(settings, JSON.parse(values)), addTask(task) { tasks.push(task); } });
console.log(JSON.stringify({ type: JOB_TYPE, tasks }));
"""


def flamenco_tasks(tmp_path: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "flamenco.js").write_text(_FLAMENCO)
    return run(linter("node"), tmp_path / "flamenco.js", DEPLOY / "ex4d_shots.js", json.dumps(settings))


def test_flamencos_tasks_make_scenes_and_then_a_shot_each(farm_folder, tmp_path, capsys):
    from ex4d.cli.main import main

    shots = {"shots_file": str(farm_folder / "shots.toml"), "shots": " a right, 3 ,", "ex4d": "ex4d"}
    done = flamenco_tasks(tmp_path, **shots, output_folder=str(tmp_path / "takes"))
    assert done.returncode == 0, done.stderr
    scenes, *rest = json.loads(done.stdout)["tasks"]
    assert [task["name"] for task in (scenes, *rest)] == ["scenes", "a right", "3"]
    assert {task["type"] for task in (scenes, *rest)} == {"ex4d"}
    assert not scenes["dependencies"] and all(task["dependencies"] == ["scenes"] for task in rest)
    listed = []
    for task in (scenes, *rest):
        (one,) = task["commands"]
        assert (one["name"], one["parameters"]["exe"]) == ("exec", "ex4d")
        assert f"--out={tmp_path / 'takes'}" in one["parameters"]["args"]
        assert main([*one["parameters"]["args"], "--list"]) == 0
        listed.append(capsys.readouterr().out.splitlines())
    assert listed == [["a right"], ["a right"], ["last"]], "the scene of the first, and a shot each"


def test_flamencos_settings_are_those_that_its_schema_knows(tmp_path):
    done = flamenco_tasks(tmp_path, shots_file="shots.toml", shots="one")
    job_type = json.loads(done.stdout)["type"]
    assert set(job_type) == {"label", "description", "settings"}
    known = {"key", "type", "subtype", "required", "visible", "eval", "evalInfo", "default", "description"}
    for setting in job_type["settings"]:
        assert set(setting) <= known and setting["type"] == "string"
        assert setting["visible"] in ("visible", "hidden", "submission", "web")
        assert setting.get("subtype", "file_path") in ("file_path", "dir_path", "hashed_file_path")
    assert json.loads(done.stdout)["tasks"][0]["commands"][0]["parameters"]["exe"] == "{ex4d}"
    refused = flamenco_tasks(tmp_path, shots_file="shots.toml", shots=" , ")
    assert refused.returncode and "name at least one shot" in refused.stderr


def test_the_openjd_template_is_valid_and_its_steps_make_the_shots(command, farm_folder, tmp_path):
    template = DEPLOY / "ex4d_shots.openjd.yaml"
    checked = run(linter("openjd"), "check", template)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    values = {"ShotsFile": farm_folder / "shots.toml", "OutputFolder": tmp_path / "takes", "Shots": "3"}
    parameters = [word for name, value in values.items() for word in ("-p", f"{name}={value}")]
    (tmp_path / "takes").mkdir()
    done = run(linter("openjd"), "run", template, "--step", "Shots", "--run-dependencies", *parameters, env=command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(made_takes(tmp_path / "takes")) == ["last"]
    assert len(list((tmp_path / "takes" / "scenes").iterdir())) == 1, "the step before has made the other shots' scene"
