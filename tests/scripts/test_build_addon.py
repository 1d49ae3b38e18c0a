"""The add-on's zip: made without an environment, complete for every system, and installable by Blender itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import environments
from addon_package import addon_module

ROOT = Path(__file__).resolve().parents[2]
BLENDER = environments.BLENDERS["5.0"]
zip_file, blenders = addon_module("zip_file"), addon_module("blenders")
AddonError = addon_module("").AddonError
needs_blender = pytest.mark.skipif(
    bool(environments.missing_part(BLENDER)), reason="needs the environment blender-5.0: run scripts/environments.py"
)

# How the wheels of each platform's Blender are recognised by their file names.
TAGS = {
    "linux-x64": r"manylinux\w*_x86_64",
    "macos-arm64": r"macosx_\d+_\d+_(arm64|universal2)",
    "macos-x64": r"macosx_\d+_\d+_(x86_64|universal2)",
    "windows-arm64": r"win_arm64",
    "windows-x64": r"win_amd64",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return zip_file.build(ROOT / "blender_addon", tmp_path_factory.mktemp("add-on") / "ex4d.zip")


@pytest.fixture(scope="module")
def wheels(built) -> dict[str, bytes]:
    """The wheels in the zip that its manifest lists, by file name."""
    with zipfile.ZipFile(built) as opened:
        manifest = opened.read("blender_manifest.toml").decode()
        listed = re.findall(r'"\./wheels/([^"]+)"', manifest)
        assert {f"wheels/{name}" for name in listed} == {n for n in opened.namelist() if n.endswith(".whl")}
        return {name: opened.read(f"wheels/{name}") for name in listed}


@pytest.mark.parametrize("platform", sorted(TAGS))
@pytest.mark.parametrize("python", ["311", "313", "314"])
@pytest.mark.parametrize("package", ["msgpack", "pyzmq"])
def test_every_blender_finds_a_wheel_that_it_can_use(wheels, package, python, platform):
    # A stable-ABI wheel serves its own Python and all later ones.
    usable = [rf"cp{python}-cp{python}"]
    usable += [rf"cp{older}-abi3" for older in range(38, 40)] + [
        rf"cp3{n}-abi3" for n in range(10, int(python[1:]) + 1)
    ]
    pattern = rf"{package}-[\d.]+-({'|'.join(usable)})-.*{TAGS[platform]}.*\.whl"
    assert [name for name in wheels if re.fullmatch(pattern, name)], pattern


def test_foreign_wheels_are_the_published_files(wheels):
    lock = (environments.LOCKS / "addon-wheels.txt").read_text(encoding="utf-8")
    foreign = {name: content for name, content in wheels.items() if not name.startswith("ex4d_core-")}
    assert {name.split("-")[0] for name in foreign} == {"msgpack", "pyzmq"}
    for name, content in foreign.items():
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" in lock, name


def test_ex4d_core_is_inside_whole(wheels, tmp_path):
    [name] = [name for name in wheels if name.startswith("ex4d_core-")]
    assert name.endswith("-py3-none-any.whl")
    (tmp_path / name).write_bytes(wheels[name])
    with zipfile.ZipFile(tmp_path / name) as opened:
        for path in (ROOT / "ex4d_core").rglob("*.py"):
            assert opened.read(f"ex4d_core/{path.relative_to(ROOT / 'ex4d_core').as_posix()}") == path.read_bytes()


INSTALL = """
import json, sys
sys.path[:0] = [{packages!r}]
import bpy
bpy.ops.extensions.package_install_files(filepath={built!r}, repo="user_default", enable_on_install=True)
import ex4d_core, msgpack, zmq
print(json.dumps({{
    "enabled": [a.module for a in bpy.context.preferences.addons],
    "from": [m.__file__ for m in (ex4d_core, msgpack, zmq)],
}}))
"""


@needs_blender
def test_blender_installs_and_enables_it_with_the_wheels_inside(built, tmp_path):
    """In a Blender whose Python has neither pyzmq nor msgpack, as an artist's has not."""
    packages, user = tmp_path / "packages", tmp_path / "user"
    packages.mkdir()
    user.mkdir()
    for entry in next(BLENDER.folder.glob("lib/python*/site-packages")).iterdir():
        if not re.match(r"(py)?zmq|msgpack|ex4d", entry.name):
            (packages / entry.name).symlink_to(entry)
    program = INSTALL.format(packages=str(packages), built=str(built))
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [BLENDER.python, "-S", "-c", program],
        cwd=tmp_path,
        env={**variables, "BLENDER_USER_RESOURCES": str(user)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reported = json.loads(done.stdout.splitlines()[-1])
    assert "bl_ext.user_default.ex4d" in reported["enabled"], done.stdout + done.stderr
    for path in reported["from"]:
        assert Path(path).is_relative_to(user / "extensions" / ".local")


@pytest.fixture
def addon(tmp_path) -> Path:
    """The add-on's manifest, to be spoiled, beside an empty module."""
    folder = tmp_path / "addon"
    folder.mkdir()
    (folder / "__init__.py").write_text("def register(): ...\ndef unregister(): ...\n", encoding="utf-8")
    shutil.copy2(ROOT / "blender_addon" / "blender_manifest.toml", folder)
    return folder


def change_manifest(addon: Path, old: str, new: str) -> None:
    path = addon / "blender_manifest.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_manifest_gets_the_links_that_it_is_built_with(monkeypatch, addon, tmp_path):
    tomllib = pytest.importorskip("tomllib", reason="Python has it from 3.11 on")
    monkeypatch.setattr(zip_file, "fetch_wheels", lambda *_: [])
    links = {"website": "https://example.org/ex4d", "issues": "https://example.org/ex4d/issues"}
    built = zip_file.build(addon, tmp_path / "ex4d.zip", links=links)  # which Blender's own tool validates
    with zipfile.ZipFile(built) as opened:
        manifest = tomllib.loads(opened.read("blender_manifest.toml").decode())
    assert {key: manifest[key] for key in links} == links
    for wrong in ("example.org", 'https://example.org/"', "javascript:alert(1)"):
        with pytest.raises(AddonError, match="--issues"):
            zip_file.build(addon, tmp_path / "ex4d.zip", links={"issues": wrong})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "ex4d"', 'id = "ex4d"\nwheels = ["./wheels/own.whl"]', "has a line `wheels"),
        ('\nversion = "', '\nversion = "9', "says version 9.*ex4d_core says"),
        ('type = "add-on"', 'type = "plug-in"', "plug-in"),
    ],
)
def test_a_wrong_manifest_is_refused_and_an_older_zip_stays(addon, tmp_path, old, new, message):
    change_manifest(addon, old, new)
    output = tmp_path / "ex4d.zip"
    output.write_bytes(b"older")
    with pytest.raises(AddonError, match=message):
        zip_file.build(addon, output)
    assert output.read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["addon", "ex4d.zip"]


def test_a_changed_ex4d_core_gets_another_version(tmp_path, monkeypatch):
    """Blender keeps what it has unpacked as long as name and version stay."""
    core = tmp_path / "ex4d_core"
    shutil.copytree(ROOT / "ex4d_core", core, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(zip_file, "CORE", core)
    names = []
    for text in ("", "", "MORE = 1\n"):
        (core / "more.py").write_text(text, encoding="utf-8")
        names.append(zip_file.core_wheel("0.1.0")[0])
    assert names[0] == names[1] != names[2]


def test_the_same_files_give_the_same_bytes(built, tmp_path):
    again = zip_file.build(ROOT / "blender_addon", tmp_path / "again.zip")
    assert again.read_bytes() == built.read_bytes()


def test_the_wheel_of_ex4d_core_installs_with_pip(tmp_path):
    name, content = zip_file.core_wheel("0.1.0")
    (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    done = subprocess.run([*command, str(tmp_path / "into"), str(tmp_path / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "into" / "ex4d_core" / "cameras.py").is_file()
    metadata = next((tmp_path / "into").glob("ex4d_core-0.1.0+*.dist-info"))
    assert {path.name for path in metadata.iterdir()} >= {"METADATA", "WHEEL", "RECORD", "licenses"}


def test_one_platform_gets_its_own_wheels_and_name(tmp_path):
    [built] = [zip_file.build(platforms=["windows-x64"], folder=tmp_path)]
    assert built == tmp_path / f"ex4d-{zip_file.ex4d_core.__version__}-windows-x64.zip"
    with zipfile.ZipFile(built) as opened:
        manifest = opened.read("blender_manifest.toml").decode()
        foreign = [name for name in opened.namelist() if name.endswith(".whl") and "ex4d_core" not in name]
    assert 'platforms = [\n    "windows-x64",\n]' in manifest
    assert foreign and all(re.search(TAGS["windows-x64"], name) for name in foreign)


def test_both_doors_lead_to_one_implementation(tmp_path):
    """The script, whose Python has neither numpy nor torch, and the verb."""
    outputs = []
    for start in (["-S", "scripts/build_addon.py"], ["-m", "ex4d", "addon"]):
        output = tmp_path / f"{len(outputs)}.zip"
        command = [sys.executable, *start, "--platform", "linux-x64", "--output", str(output)]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "backend"), str(ROOT)))}
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert re.search(r"alidated by", done.stdout) and "drag it into Blender" in done.stdout
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1]


@needs_blender
def test_blenders_tool_validates_where_there_is_a_blender(built):
    assert zip_file.validate(built).startswith("Validated by the extension tool of ")


def test_without_a_blender_it_is_said_that_nobody_validated(built, monkeypatch):
    monkeypatch.setattr(zip_file, "find_tool", lambda: None)
    assert zip_file.validate(built).startswith("Not validated by Blender, as no Blender was found")


def test_wheels_that_cannot_be_had_are_named_in_pips_words(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        AddonError, match=r"pip cannot fetch the wheels for \S+, Python 3\.\d+: ERROR: .*(msgpack|pyzmq)"
    ):
        zip_file.build(output=tmp_path / "ex4d.zip", platforms=["linux-x64"])
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def fake_blender(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'Blender {version}'\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="looks into the folders that are usual on Linux")
def test_the_newest_blender_of_the_usual_folders_is_found_and_an_old_one_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(blenders, "_CHECKOUT", tmp_path)
    fake_blender(tmp_path / "bin" / "blender", "3.6.2")
    for version in ("4.2.1", "4.10.0"):
        fake_blender(tmp_path / f"blender-{version}-linux-x64" / "blender", version)
    found = blenders.find_blender()
    assert found.program == tmp_path / "blender-4.10.0-linux-x64" / "blender"
    assert found.version() == (4, 10)
    on_path = fake_blender(tmp_path / "bin" / "blender", "4.3.2")
    assert blenders.find_blender().program == on_path
