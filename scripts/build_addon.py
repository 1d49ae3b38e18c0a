"""Builds the installable add-on, `outputs/ex4d-<version>.zip`, and has Blender's own extension tool validate it.

The zip is `blender_addon/` with a folder of wheels, which Blender unpacks for the system and Python it runs on:
`ex4d_core` as a wheel of its own, because an extension's modules lie under a name that Blender chooses, and pyzmq and
msgpack as their makers publish them, fetched once by the hashes in scripts/locks/addon-wheels.txt. numpy is Blender's.
Needs only the standard library to start.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import environments
from environments import BACKEND, BLENDERS, LOCKS, ROOT

CORE = ROOT / "ex4d_core"
WHEELS_LOCK = LOCKS / "addon-wheels.txt"
# Blender 4.2 to 5.0 are Python 3.11, 5.1 and later 3.13; that of Debian is 3.14.
PYTHONS = ("3.11", "3.13", "3.14")
# Blender's name of each system, and the wheel tags that run there: Blender itself needs glibc 2.28, macOS 11 on Apple
# silicon and macOS 10.15 on Intel.
PLATFORMS = {
    "linux-x64": ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    "macos-arm64": ("macosx_11_0_arm64",),
    "macos-x64": ("macosx_10_15_x86_64",),
    "windows-arm64": ("win_arm64",),
    "windows-x64": ("win_amd64",),
}


class BuildFailed(environments.SetupError):
    """The add-on cannot be built, or Blender's tool refuses it; the message says why."""


def main() -> None:
    """Build the zip, and print its path."""
    parser = argparse.ArgumentParser(description="Build the add-on's installable zip, with everything that it needs.")
    parser.add_argument("--source", type=Path, default=ROOT / "blender_addon", help="the add-on (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="zip to write (default: outputs/ex4d-<version>.zip)")
    options = parser.parse_args()
    with environments.exit_on_setup_error():
        environments.ensure(BACKEND, BLENDERS["5.0"])
        built = build(options.source, options.output)
    print(f"{os.path.relpath(built)}: {built.stat().st_size / 1e6:.1f} MB, valid. To install: drag it into Blender.")


def build(source: Path, output: Path | None = None) -> Path:
    """Build the zip and validate it; a zip that is not valid does not replace an older one.

    Args:
        source: folder with blender_manifest.toml, which names neither wheels nor platforms: both depend on what this
            script puts in.
        output: the zip to write; None for outputs/<id>-<version>.zip.

    Raises:
        BuildFailed: no manifest, a manifest at odds with the project, or refused by Blender's tool.
    """
    manifest = read_manifest(source)
    version = project_version()
    if (stated := manifest_value(manifest, "version")) != version:
        message = f"blender_manifest.toml says version {stated}, ex4d_core says {version}: make them the same."
        raise BuildFailed(message)
    output = output or ROOT / "outputs" / f"{manifest_value(manifest, 'id')}-{version}.zip"
    output.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its final path and renamed, so that a complete zip appears at once.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".ex4d-") as folder:
        stage, built = Path(folder) / "add-on", Path(folder) / "built.zip"
        shutil.copytree(source, stage, ignore=shutil.ignore_patterns("__pycache__", "*.py[co]"))
        wheels = stage / "wheels"
        wheels.mkdir()
        build_core_wheel(version, wheels)
        for wheel in fetch_wheels():
            shutil.copy2(wheel, wheels)
        names = sorted(wheel.name for wheel in wheels.iterdir())
        (stage / "blender_manifest.toml").write_text(complete_manifest(manifest, names), encoding="utf-8")
        blender_tool("build", "--source-dir", str(stage), "--output-filepath", str(built))
        blender_tool("validate", str(built))
        os.replace(built, output)
    return output


def read_manifest(source: Path) -> str:
    """The text of the add-on's manifest.

    Raises:
        BuildFailed: there is none, or it has lines that the build writes.
    """
    path = source / "blender_manifest.toml"
    try:
        manifest = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        message = f"{path} does not exist: --source must be the folder of an add-on."
        raise BuildFailed(message) from error
    for key in ("wheels", "platforms"):
        if re.search(rf"^{key}\s*=", manifest, re.MULTILINE):
            message = f"{path} has a line `{key} = ...`: remove it, building the add-on writes it."
            raise BuildFailed(message)
    return manifest


def manifest_value(manifest: str, key: str) -> str:
    """A text value at the manifest's top level.

    Raises:
        BuildFailed: it is missing.
    """
    found = re.search(rf'^{key}\s*=\s*"([^"]*)"', manifest, re.MULTILINE)
    if not found:
        message = f'blender_manifest.toml has no line `{key} = "..."`: add it.'
        raise BuildFailed(message)
    return found.group(1)


def project_version() -> str:
    """The version that `ex4d_core` states.

    Raises:
        BuildFailed: it states none.
    """
    found = re.search(r'^__version__ = "([^"]+)"', (CORE / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        message = 'ex4d_core/__init__.py has no line `__version__ = "..."`: add it.'
        raise BuildFailed(message)
    return found.group(1)


def complete_manifest(manifest: str, wheels: Sequence[str]) -> str:
    """The manifest with its `platforms` and `wheels`, set before the first table, where TOML's top level ends."""
    lines = ["", "platforms = [", *(f'    "{name}",' for name in PLATFORMS), "]"]
    lines += ["wheels = [", *(f'    "./wheels/{name}",' for name in wheels), "]", ""]
    added = "\n".join(lines) + "\n"
    table = re.search(r"^\[", manifest, re.MULTILINE)
    at = table.start() if table else len(manifest)
    return manifest[:at].rstrip() + "\n" + added + manifest[at:]


def build_core_wheel(version: str, target: Path) -> None:
    """Build `ex4d_core` as a wheel, whose version ends in a digest of its content.

    Blender unpacks a wheel only when its name and version are new to it, so an add-on built again must not bring
    another `ex4d_core` under the same version.
    """
    files = sorted(path for path in CORE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(CORE).as_posix()}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    project = f"""
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "ex4d_core"
version = "{version}+{digest.hexdigest()[:8]}"
description = "EX-4D: cameras, trajectories, scene files, messages and the backend's client"
requires-python = ">=3.10"
license = "Apache-2.0"
license-files = ["LICENSE"]
dependencies = ["msgpack", "numpy", "pyzmq"]

[tool.hatch.build.targets.wheel]
packages = ["ex4d_core"]
"""
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        (stage / "pyproject.toml").write_text(project, encoding="utf-8")
        shutil.copy2(ROOT / "LICENSE", stage)
        shutil.copytree(CORE, stage / "ex4d_core", ignore=shutil.ignore_patterns("__pycache__"))
        checked([str(BACKEND.python), "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)], cwd=stage)


def fetch_wheels() -> list[Path]:
    """The published wheels for every platform and Python, unmodified; from the cache where the lock is the same.

    A wheel may serve several of them (one for both kinds of Mac, one for several Pythons) and is listed once.
    """
    lock_digest = hashlib.sha256(WHEELS_LOCK.read_bytes()).hexdigest()[:12]
    cache = environments.HOME / "addon-wheels" / lock_digest
    wheels: dict[str, Path] = {}
    for python in PYTHONS:
        for platform, tags in PLATFORMS.items():
            folder = cache / f"{python}-{platform}"
            if not folder.is_dir():
                print(f"fetching wheels for {platform}, Python {python}", flush=True)
                download(python, tags, folder)
            wheels.update((wheel.name, wheel) for wheel in sorted(folder.iterdir()))
    return list(wheels.values())


def download(python: str, tags: Sequence[str], folder: Path) -> None:
    """Download one platform's wheels into a new folder, which appears only when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".incomplete-") as incomplete:
        command = [str(BACKEND.python), "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
        command += ["--implementation", "cp", "--python-version", python]
        for tag in tags:
            command += ["--platform", tag]
        content = Path(incomplete) / "content"
        checked([*command, "--requirement", str(WHEELS_LOCK), "--dest", str(content)])
        if not folder.exists():
            os.replace(content, folder)


def blender_tool(*arguments: str) -> None:
    """Run Blender's extension tool, which lies in the bpy wheel and is a program of its own.

    Raises:
        BuildFailed: with the tool's output.
    """
    blender = BLENDERS["5.0"]
    libraries = blender.folder / "Lib" if environments.WINDOWS else next(blender.folder.glob("lib/python*"))
    tool = next(libraries.glob("site-packages/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py"))
    checked([str(blender.python), "-I", str(tool), *arguments])


def checked(command: Sequence[str], cwd: Path = ROOT) -> None:
    """Run a command whose output matters only if it fails.

    Raises:
        BuildFailed: with the command and its output.
    """
    done = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        message = f"This command failed (exit code {done.returncode}):\n{' '.join(command)}\n{done.stdout.strip()}"
        raise BuildFailed(message)


if __name__ == "__main__":
    sys.exit(main())
