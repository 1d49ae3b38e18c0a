"""Creates the Python environments of the project, under .venv/, from the hashed locks in scripts/locks/.

`python3 scripts/environments.py` creates all; demo_setup.py and all_checks.py call `ensure` for what they need.
There is more than one because each Blender, as the `bpy` module, dictates its own Python and numpy.
Needs only the standard library. Uses uv where it is on PATH, and venv with pip otherwise; both take their
indexes and proxies from the user's own configuration, and the hashes decide what is accepted.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import system_packages
from environment_builder import WINDOWS, Builder
from interpreters import SetupError, dotted

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "scripts" / "locks"
HOME = ROOT / ".venv"
LOCK_COMMAND = "python3 scripts/environments.py lock"


@dataclass(frozen=True)
class Environment:
    """One environment, `.venv/<name>`, installed from a lock in `scripts/locks/`.

    Attributes:
        megabytes: what it takes on disk once it is installed, as measured on Linux.
        libraries: shared libraries of the system that it does not start without, on Linux.
        lock_name: of the lock, if it is not the environment's.
        torch_from: "pip" or "uv" if only that tool can have its build of PyTorch.
        compiled: whether all bytecode is written at once.
    """

    name: str
    python_version: tuple[int, int]
    megabytes: int
    installs_project: bool = False
    libraries: tuple[str, ...] = ()
    lock_name: str = ""
    torch_from: Literal["", "pip", "uv"] = ""
    compiled: bool = True

    @property
    def folder(self) -> Path:
        """Where it is installed."""
        return HOME / self.name

    @property
    def lock(self) -> Path:
        """The pinned requirements that it is installed from."""
        return LOCKS / f"{self.lock_name or self.name}.txt"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.command("python")

    @property
    def stamp(self) -> Path:
        """The file that says what was installed; written last."""
        return self.folder / "ex4d-setup.json"

    @property
    def log(self) -> Path:
        """The output of the last set-up."""
        return HOME / f"{self.name}.log"

    def command(self, name: str) -> Path:
        """Path of a command that is installed in this environment."""
        return self.folder / "Scripts" / f"{name}.exe" if WINDOWS else self.folder / "bin" / name


BACKEND = Environment("backend", (3, 11), 7500, installs_project=True)
# The backend without a GPU, for the demo; demo_setup.py adapts it to the Pythons of the machine.
DEMO = Environment("demo", (3, 11), 1400, installs_project=True, compiled=False)
DEMO_CUDA_MEGABYTES = 4430
# A further Blender is a line here and a `blender-<version>.in` beside the locks.
BLENDERS = {
    "4.2": Environment("blender-4.2", (3, 11), 1050, libraries=system_packages.BLENDER_4_2),
    "4.5": Environment("blender-4.5", (3, 11), 990, libraries=system_packages.BLENDER),
    "5.0": Environment("blender-5.0", (3, 11), 1020, libraries=system_packages.BLENDER),
    "5.2": Environment("blender-5.2", (3, 13), 1070, libraries=system_packages.BLENDER),
}
ENVIRONMENTS = {environment.name: environment for environment in (BACKEND, *BLENDERS.values(), DEMO)}


def ensure(*environments: Environment) -> None:
    """Make each environment ready to use; returns within milliseconds where it already is.

    An environment is ready when its stamp, which is written last, names the current lock, Python and folder. One
    without a stamp was interrupted, and is created again. Before anything is fetched, shared libraries and free disk
    space are checked.

    Raises:
        PythonMissing: no interpreter of the needed version.
        InstallFailed: a tool failed; the line in which it said why is in the message.
        SetupError: a library is missing, the disk is too small, or the checkout cannot be written to.
    """
    missing = [one for one in environments if missing_part(one)]
    if not missing:
        return
    for environment in missing:
        if missing_part(environment) == "environment":
            _refuse_foreign_environment(environment)
    system_packages.require_libraries(list(dict.fromkeys(name for one in missing for name in one.libraries)))
    require_space(*missing)
    for environment in missing:
        with _only_one_setup(environment) as lock_file:
            # Asked again: the set-up that we may have waited for has done our work.
            if part := missing_part(environment):
                if part == "environment":
                    _refuse_foreign_environment(environment)
                # Read now: what changes while this works is the next run's to see.
                stamp = _wanted_stamp(environment)
                Builder(environment, ROOT, lock_file).build(whole=part == "environment", stamp=stamp)


_announced: set[Environment] = set()


def require_space(*environments: Environment) -> None:
    """Say how much disk space the missing environments need and how much is free.

    Raises:
        SetupError: there is not enough.
    """
    missing = [one for one in environments if missing_part(one) == "environment" and one not in _announced]
    if not missing:
        return
    _announced.update(missing)
    needed = sum(one.megabytes for one in missing) * 1e6
    # A link that leads nowhere is refused later, in its own words.
    existing = next(folder for folder in (HOME, ROOT) if folder.exists())
    free = shutil.disk_usage(existing).free
    names = ", ".join(one.name for one in missing)
    print(f"needs {needed / 1e9:.1f} GB in {HOME} ({names}); {free / 1e9:.1f} GB free", flush=True)
    if free < needed:
        # What is replaced makes room; adding that up takes long, so it is left for when it matters.
        free += sum(_size(one.folder) for one in missing)
    if free < needed:
        message = (
            f"Not enough disk space in {HOME}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free. Free "
            "some, or make .venv a link to a folder on a larger disk, and run this again."
        )
        raise SetupError(message)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*")) if folder.is_dir() else 0


def missing_part(environment: Environment) -> Literal["", "project", "environment"]:
    """What is missing: nothing, the project's own installation, or the whole environment with it."""
    wanted, found = _wanted_stamp(environment), _found_stamp(environment)
    # exists() follows the link to the base interpreter, which may have been uninstalled since.
    if not found or not environment.python.exists():
        return "environment"
    if any(found.get(key) != wanted[key] for key in ("lock", "python", "folder")):
        return "environment"
    return "" if found.get("project") == wanted["project"] else "project"


def _found_stamp(environment: Environment) -> dict:
    """The content of the environment's stamp; empty without one, as after an interruption."""
    try:
        found = json.loads(environment.stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _wanted_stamp(environment: Environment) -> dict[str, str]:
    project = ""
    if environment.installs_project:
        # All that an editable install copies: the commands and metadata, and the version, which stands elsewhere.
        version = re.search(r"^__version__ = .*$", _read(ROOT / "ex4d_core" / "__init__.py"), re.MULTILINE)
        project = _sha256(_read(ROOT / "pyproject.toml") + (version.group() if version else ""))
    return {
        "lock": _sha256(_read(environment.lock)),
        "python": dotted(environment.python_version),
        # Scripts in an environment name its folder, so a moved checkout needs new ones.
        "folder": str(environment.folder),
        "project": project,
    }


def _refuse_foreign_environment(environment: Environment) -> None:
    """Refuse to replace an environment behind a link, which may belong to another checkout.

    Raises:
        SetupError: a link is in the way.
    """
    if environment.folder.is_symlink():
        message = (
            f"{environment.folder} is a link to {environment.folder.resolve()}, which was left as it is. Remove the "
            "link, and run this again."
        )
        raise SetupError(message)
    if not HOME.is_symlink() or not environment.folder.exists():
        return
    owner = _found_stamp(environment).get("folder")
    if owner != str(environment.folder):
        holds = f"the environment {owner}" if owner else "one that this checkout is not known to have made"
        message = (
            f"{HOME} is a link to {HOME.resolve()}, and {environment.name} in there is {holds}; it was left as it is. "
            f"Remove the link for environments of this checkout's own, or, if nobody needs that one, remove "
            f"{environment.folder.resolve()}, and run this again."
        )
        raise SetupError(message)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        message = f"{path.relative_to(ROOT)} is missing: restore it from the repository."
        raise SetupError(message) from error


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _only_one_setup(environment: Environment) -> Iterator[int]:
    """Hold a file lock that the system frees when its last holder ends, however it ends; yields its descriptor.

    Raises:
        SetupError: the folder of all environments cannot be written to.
    """
    if HOME.is_symlink() and not HOME.exists():
        message = f"{HOME} is a link to {HOME.resolve()}, which does not exist: make that folder, or remove the link."
        raise SetupError(message)
    try:
        HOME.mkdir(exist_ok=True)
        descriptor = os.open(HOME / f"{environment.name}.lock", os.O_RDWR | os.O_CREAT)
    except OSError as error:
        message = (
            f"Cannot write to {HOME}: {error.strerror}. Copy the project to a folder of your own, and run this there."
        )
        raise SetupError(message) from error
    try:
        if not _try_lock(descriptor):
            print(f"[{environment.name}] another set-up is running; waiting for it to end", flush=True)
            while not _try_lock(descriptor):
                time.sleep(0.2)
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        if WINDOWS:
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def exit_on_setup_error() -> Iterator[None]:
    """End the program with the message of a set-up error raised within, and with code 130 after Ctrl-C."""
    try:
        yield
    except SetupError as error:
        sys.exit(f"\n{error}")
    except OSError as error:
        sys.exit(f"\n{error.filename or 'the project'}: {error.strerror}; check the path and its permissions.")
    except KeyboardInterrupt:
        print("Interrupted; run the same command to resume.", file=sys.stderr)
        sys.exit(130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Create environments, or lock them again."""
    parser = argparse.ArgumentParser(description="Create the project's Python environments, under .venv/.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    setup = verbs.add_parser("setup", help="create the environments (the default)")
    needed = [name for name in ENVIRONMENTS if name != DEMO.name]
    setup.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which ones: {', '.join(ENVIRONMENTS)} (default: all but {DEMO.name}, which backend contains)",
    )
    lock = verbs.add_parser("lock", help="pin scripts/locks/*.in again, with uv")
    lock.add_argument("--upgrade", action="store_true", help="take the newest versions that the .in files allow")
    options = parser.parse_args(arguments)
    with exit_on_setup_error():
        if options.verb == "lock":
            from pin_locks import write_locks

            write_locks(upgrade=options.upgrade)
            return
        names = getattr(options, "names", None) or needed
        for name in names:
            if name not in ENVIRONMENTS:
                parser.error(f"unknown environment {name!r}: expected {', '.join(ENVIRONMENTS)}")
        ensure(*(ENVIRONMENTS[name] for name in names))
        for name in names:
            print(f"{name}: {ENVIRONMENTS[name].python}")


if __name__ == "__main__":
    main()
