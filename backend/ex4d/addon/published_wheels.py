"""Fetches the published wheels of pyzmq and msgpack that the add-on carries, by their locked hashes, with pip or uv.

Indexes, proxies and certificates are those of the user's own configuration.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ex4d_core.durable_files import put_in_place

from . import AddonError

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
_AT_ONCE = 4


def fetch_wheels(lock: Path, platforms: Sequence[str], pythons: Sequence[str] = PYTHONS) -> list[Path]:
    """The published wheels for these systems and Pythons, unmodified; from the cache where the lock is the same.

    A wheel may serve several of them (one for both kinds of Mac, one for several Pythons) and is listed once.

    Raises:
        AddonError: neither pip nor uv is here, or a wheel cannot be had.
    """
    folder = cache_folder() / hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    wanted = [(python, platform) for python in pythons for platform in platforms]
    places = {pair: folder / "-".join(pair) for pair in wanted}
    missing = [pair for pair in wanted if not places[pair].is_dir()]
    if missing:
        print(f"fetching the wheels of pyzmq and msgpack, for {len(missing)} pairs of system and Python", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        with _pip() as pip, ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda pair: _download(pip, lock, pair, places[pair]), missing))
    wheels: dict[str, Path] = {}
    for pair in wanted:
        wheels.update((wheel.name, wheel) for wheel in sorted(places[pair].iterdir()))
    return list(wheels.values())


def cache_folder() -> Path:
    """Where downloaded wheels are kept: the user's cache folder, as this system has it."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "ex4d" / "addon-wheels"


def _download(pip: Sequence[str], lock: Path, pair: tuple[str, str], folder: Path) -> None:
    """Download the wheels of one system and Python into a new folder, which appears only when it is complete."""
    python, platform = pair
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".incomplete-") as incomplete:
        content = Path(incomplete) / "content"
        command = [*pip, "download", "--quiet", "--no-input", "--disable-pip-version-check", "--require-hashes"]
        command += ["--no-deps", "--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
        for tag in PLATFORMS[platform]:
            command += ["--platform", tag]
        done = run([*command, "--requirement", str(lock), "--dest", str(content)])
        if done.returncode:
            raise AddonError(f"pip cannot fetch the wheels for {platform}, Python {python}: {last_line(done.stdout)}")
        with contextlib.suppress(OSError):  # another build may have been faster
            put_in_place(content, folder)


@contextlib.contextmanager
def _pip() -> Iterator[list[str]]:
    """The command of a pip: that of this Python, uv's, or that of a throwaway environment.

    Raises:
        AddonError: there is none.
    """
    if importlib.util.find_spec("pip"):
        yield [sys.executable, "-m", "pip"]
        return
    if uv := shutil.which("uv"):
        number = f"{sys.version_info.major}.{sys.version_info.minor}"
        yield [uv, "run", "--quiet", "--no-project", "--python", number, "--with", "pip", "python", "-m", "pip"]
        return
    with tempfile.TemporaryDirectory(prefix="ex4d-pip-") as folder:
        done = run([sys.executable, "-m", "venv", folder])
        if done.returncode:
            raise AddonError(
                f"this Python ({sys.executable}) has neither pip nor a complete venv module, and uv is not on PATH: "
                "install one of them (on Debian and Ubuntu: apt install python3-pip), and run this again"
            )
        yield [str(Path(folder) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")), "-m", "pip"]


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command; its output and errors are one text."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def last_line(output: str) -> str:
    """The line in which a tool says why it failed: the cause of a failed connection, else its last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("[notice]")]
    causes = [line for line in lines if any(word in line for word in _CAUSES)]
    errors = [line for line in lines if line.lower().startswith("error")]
    return ([*lines[-1:], *errors[-1:], *causes[-1:]] or ["no output"])[-1][:_LONGEST]


# What pip prints about a failed connection before it ends with "no matching distribution".
_CAUSES = ("ProxyError", "SSLError", "NewConnectionError", "ConnectTimeout", "NameResolutionError", "No space left")
_LONGEST = 400
