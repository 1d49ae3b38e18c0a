"""The add-on's zip: complete for every system, unmodified in its foreign parts, and installable by Blender itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

import build_addon
import environments

ROOT = Path(__file__).resolve().parents[2]


BLENDER = environments.BLENDERS["5.0"]

pytestmark = pytest.mark.skipif(
    bool(environments.missing_part(environments.BACKEND) or environments.missing_part(BLENDER)),
    reason="building needs the project's own environments: run scripts/environments.py",
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
    return build_addon.build(ROOT / "blender_addon", tmp_path_factory.mktemp("add-on") / "ex4d.zip")


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
    with pytest.raises(build_addon.BuildFailed, match=message):
        build_addon.build(addon, output)
    assert output.read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["addon", "ex4d.zip"]


def test_a_changed_ex4d_core_gets_another_version(tmp_path, monkeypatch):
    """Blender keeps what it has unpacked as long as name and version stay."""
    core = tmp_path / "ex4d_core"
    shutil.copytree(ROOT / "ex4d_core", core, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(build_addon, "CORE", core)
    names = []
    for text in ("", "", "MORE = 1\n"):
        (core / "more.py").write_text(text, encoding="utf-8")
        target = tmp_path / str(len(names))
        build_addon.build_core_wheel("0.1.0", target)
        names += [path.name for path in target.iterdir()]
    assert names[0] == names[1] != names[2]
