"""What goes wrong on other people's machines: one sentence with the tool's own words, and nothing broken behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import environments
import system_packages
from interpreters import SetupError
from tool_output import telling_line

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts small disks, as Linux does")
TINY = "tiny==1.0 --hash=sha256:" + "0" * 64 + "\n"


@pytest.fixture
def small_disk(tmp_path) -> Callable[..., Path]:
    """Mounts a disk of a few megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mounted: list[Path] = []

    def mount(size: str, *options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A checkout of nothing but a lock, for the set-up in this process, which has pip alone and no index."""
    folder = tmp_path / "project"
    locks = folder / "scripts" / "locks"
    locks.mkdir(parents=True)
    (locks / "tiny.txt").write_text(TINY, encoding="utf-8")
    monkeypatch.setattr(environments, "ROOT", folder)
    monkeypatch.setattr(environments, "LOCKS", locks)
    monkeypatch.setattr(environments, "HOME", folder / ".venv")
    monkeypatch.setattr(environments, "_announced", set())
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "1")
    return folder


ENVIRONMENT = environments.Environment("tiny", sys.version_info[:2], 1)


def test_the_size_is_said_and_a_small_disk_refused_before_anything_is_made(project, small_disk, capsys):
    disk = small_disk("2M")
    (project / ".venv").symlink_to(disk)
    large = replace(ENVIRONMENT, megabytes=1600)
    with pytest.raises(SetupError, match=r"Not enough disk space in .*: 1\.6 GB are needed, 0\.0 GB are free"):
        environments.ensure(large)
    assert capsys.readouterr().out == f"needs 1.6 GB in {project}/.venv (tiny); 0.0 GB free\n"
    assert list(disk.iterdir()) == []


def test_what_would_be_replaced_counts_as_free(project, small_disk):
    disk = small_disk("4M")
    (project / ".venv").symlink_to(disk)
    (disk / "tiny").mkdir()
    (disk / "tiny" / "old").write_bytes(bytes(3 << 20))
    environments.require_space(replace(ENVIRONMENT, megabytes=3))


def test_a_disk_that_fills_up_is_named_and_left_as_empty_as_it_was(project, small_disk):
    disk = small_disk("4M")
    (project / ".venv").symlink_to(disk)
    with pytest.raises(SetupError, match=r"The disk of .* is full: tiny needs 0\.0 GB there") as raised:
        environments.ensure(ENVIRONMENT)
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in disk.iterdir()) == ["tiny.lock", "tiny.log"]


def test_a_checkout_that_cannot_be_written_to_gets_a_sentence(project, small_disk):
    disk = small_disk("1M")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    (project / ".venv").symlink_to(disk)
    with pytest.raises(SetupError, match=r"Cannot write to .*/\.venv: Read-only file system\. Copy the project"):
        environments.ensure(ENVIRONMENT)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}, "Connection refused"),
        (
            {"PIP_PROXY": "http://127.0.0.1:9", "PIP_INDEX_URL": "https://index.invalid/simple"},
            "Cannot connect to proxy",
        ),
        ({"PIP_NO_INDEX": "1"}, "No matching distribution found for tiny==1.0"),
    ],
)
def test_a_failed_install_is_one_sentence_in_pips_words_and_leaves_nothing(project, monkeypatch, variables, says):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SetupError, match="pip failed") as raised:
        environments.ensure(ENVIRONMENT)
    sentence, where = str(raised.value).splitlines()
    assert says in sentence
    assert where == f"All of its output is in {project}/.venv/tiny.log."
    assert sorted(path.name for path in (project / ".venv").iterdir()) == ["tiny.lock", "tiny.log"]


UV = """error: Request failed after 3 retries in 9.5s
  cause: Failed to fetch: `the page of torch`
  cause: client error (Connect)
  cause: Name or service not known"""
APT = """Reading package lists...
E: Unable to locate package libgl1
"""
PIP = """Collecting tiny==1.0
WARNING: Retrying (Retry(total=0)) after connection broken by 'SSLError(SSLCertVerificationError(1, 'unable to get local
ERROR: Could not find a version that satisfies the requirement tiny==1.0 (from versions: none)
ERROR: No matching distribution found for tiny==1.0
[notice] A new release of pip is available"""


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (UV, "cause: Name or service not known"),
        (APT, "E: Unable to locate package libgl1"),
        (PIP, "SSLError(SSLCertVerificationError(1, 'unable to get local"),
        ("a\nb\n", "b"),
        ("", "it printed nothing"),
    ],
)
def test_the_telling_line_of_an_output(output, line):
    assert telling_line(output) == line


def test_libraries_are_looked_up_as_the_loader_does():
    assert system_packages.missing_libraries(["libc.so.6", "libno-such-thing.so.1"]) == ["libno-such-thing.so.1"]


@pytest.mark.parametrize(
    ("manager", "line"),
    [
        ("apt", "sudo apt-get install -y --no-install-recommends libx11-6 libgl1"),
        ("dnf", "sudo dnf install -y libX11 libglvnd-glx"),
        ("pacman", "sudo pacman -S --noconfirm --needed libx11 libglvnd"),
    ],
)
def test_a_user_gets_the_line_that_installs_what_blender_needs(manager, line, monkeypatch):
    monkeypatch.setattr(system_packages, "missing_libraries", lambda names: list(names))
    monkeypatch.setattr(system_packages, "package_manager", lambda: manager)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError) as raised:
        system_packages.require_libraries(["libX11.so.6", "libGL.so.1"])
    assert str(raised.value) == (
        f"Blender needs libraries that this system lacks: libX11.so.6, libGL.so.1. Run `{line}`, and then this again."
    )


def test_root_installs_what_blender_needs_after_saying_so(tmp_path, monkeypatch, capsys):
    """With an apt-get of our own, which first needs its lists."""
    apt = tmp_path / "apt-get"
    apt.write_text(
        f'#!/bin/sh\ncd {tmp_path}\necho "$@" >> calls\n[ "$1" = update ] && touch lists\n[ -e lists ]\n',
        encoding="utf-8",
    )
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    system_packages.install_packages("Blender needs libX11.so.6", "apt", ["libx11-6"])
    install = "install -y --no-install-recommends libx11-6"
    assert (tmp_path / "calls").read_text().splitlines() == [install, "update", install]
    assert capsys.readouterr().out == f"Blender needs libX11.so.6. Installing as root: apt-get {install}\n"


@pytest.mark.parametrize("version", environments.BLENDERS)
def test_the_list_has_every_library_that_blenders_wheel_takes_from_the_system(version):
    blender = environments.BLENDERS[version]
    if environments.missing_part(blender):
        pytest.skip(f"needs the environment {blender.name}: run scripts/environments.py")
    library = next(blender.folder.glob("lib/python*/site-packages/bpy/__init__.so"))
    lines = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout.splitlines()
    outside = {line.split()[0] for line in lines if "site-packages" not in line}
    drawn = {name for name in outside if name.startswith(("libX", "libxkb", "libSM", "libICE", "libGL.", "libgomp"))}
    # What these libraries' packages bring along themselves.
    assert drawn - {"libXau.so.6", "libXdmcp.so.6"} == set(blender.libraries)
