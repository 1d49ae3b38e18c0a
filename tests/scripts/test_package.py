"""`pip install .`: the wheel holds what the commands need where there is no checkout, and nothing else."""

from __future__ import annotations

import email
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="building needs the project's own environment, .venv/backend")

ROOT = Path(__file__).resolve().parents[2]


def build(kind: str, project: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(target.iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    with zipfile.ZipFile(build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))) as opened:
        yield opened


def test_the_wheel_holds_both_packages_the_sample_and_the_add_on(wheel):
    names = set(wheel.namelist())
    for path in (
        "ex4d/cli/main.py",
        "ex4d/py.typed",
        "ex4d_core/cameras.py",
        "ex4d/data/blender_addon/blender_manifest.toml",
    ):
        assert path in names
    sample = {path.relative_to(ROOT / "tests/data/sample") for path in (ROOT / "tests/data/sample").rglob("*.*")}
    assert sample
    assert {f"ex4d/data/sample/{path.as_posix()}" for path in sample} <= names


def test_the_wheel_holds_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ex4d", "ex4d_core"}
    assert not [name for name in wheel.namelist() if "__pycache__" in name or "/wheels/" in name]


def test_the_wheel_gives_the_command_and_the_extras(wheel):
    folder = next(name for name in wheel.namelist() if name.endswith("/METADATA")).rpartition("/")[0]
    assert "ex4d = ex4d.cli.main:main" in wheel.read(f"{folder}/entry_points.txt").decode()
    metadata = email.message_from_bytes(wheel.read(f"{folder}/METADATA"))
    assert set(metadata.get_all("Provides-Extra")) == {
        *("wan", "fp8", "upscale", "depth", "colmap", "colour", "train", "metrics", "evaluate", "cluster", "dev")
    }
    for requirement in metadata.get_all("Requires-Dist"):
        assert "==" not in requirement.partition(";")[0]
    assert f"{folder}/licenses/LICENSE" in wheel.namelist()


def test_a_package_index_accepts_both_and_shows_no_broken_link(tmp_path):
    pytest.importorskip("twine", reason="checking needs the project's own environment, .venv/backend")
    files = [build(kind, ROOT, tmp_path / kind) for kind in ("wheel", "sdist")]
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(files[0]) as opened:
        name = next(name for name in opened.namelist() if name.endswith("/METADATA"))
        description = email.message_from_bytes(opened.read(name)).get_payload()
    # An index shows the text alone, without the files of the repository.
    assert "import ex4d" in description
    assert "](" not in description


def test_a_source_archive_builds_the_same_wheel(wheel, tmp_path):
    archive = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(archive) as opened:
        tops = {name.split("/")[1] for name in opened.getnames() if "/" in name}
        assert not tops & {".venv", "outputs", "dist", "build"}
        opened.extractall(tmp_path / "source", filter="data")
    again = build("wheel", next((tmp_path / "source").iterdir()), tmp_path / "again")
    with zipfile.ZipFile(again) as opened:
        assert sorted(opened.namelist()) == sorted(wheel.namelist())
