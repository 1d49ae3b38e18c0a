"""Creates the Python environments of the project, under .venv/, from the hashed locks in scripts/locks/.

`python3 scripts/environments.py` creates all; demo.py, test.py and build_addon.py call `ensure` for what they need.
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
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from interpreters import SetupError, dotted, find_python, tool_variables

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "scripts" / "locks"
HOME = ROOT / ".venv"
WINDOWS = os.name == "nt"
LOCK_COMMAND = "python3 scripts/environments.py lock"


class InstallFailed(SetupError):
    """venv, pip or uv ended with an error."""


@dataclass(frozen=True)
class Environment:
    """One environment, `.venv/<name>`, installed from `scripts/locks/<name>.txt`."""

    name: str
    python_version: tuple[int, int]
    installs_project: bool = False

    @property
    def folder(self) -> Path:
        """Where it is installed."""
        return HOME / self.name

    @property
    def lock(self) -> Path:
        """The pinned requirements that it is installed from."""
        return LOCKS / f"{self.name}.txt"

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


BACKEND = Environment("backend", (3, 11), installs_project=True)
# A further Blender is a line here and a `blender-<version>.in` beside the locks.
BLENDERS = {
    "4.2": Environment("blender-4.2", (3, 11)),
    "4.5": Environment("blender-4.5", (3, 11)),
    "5.0": Environment("blender-5.0", (3, 11)),
    "5.2": Environment("blender-5.2", (3, 13)),
}
ENVIRONMENTS = {environment.name: environment for environment in (BACKEND, *BLENDERS.values())}


def ensure(*environments: Environment) -> None:
    """Make each environment ready to use; returns within milliseconds where it already is.

    An environment is ready when its stamp, which is written last, names the current lock, Python and folder. One
    without a stamp was interrupted, and is created again.

    Raises:
        PythonMissing: no interpreter of the needed version.
        InstallFailed: a tool failed; the end of its log is in the message.
    """
    for environment in environments:
        if missing_part(environment):
            with _only_one_setup(environment) as lock_file:
                # Checked again: another set-up that we waited for may have created it.
                if missing := missing_part(environment):
                    _Builder(environment, lock_file).build(missing)


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
        # All that an editable install copies: the commands and metadata, and the version, which is in another file.
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


class _Builder:
    """Builds one environment, one line of output per step."""

    def __init__(self, environment: Environment, lock_file: int) -> None:
        self.environment = environment
        self.lock_file = lock_file
        self.uv = shutil.which("uv")

    def build(self, missing: Literal["project", "environment"]) -> None:
        environment = self.environment
        if missing == "environment":
            _refuse_foreign_environment(environment)
        environment.log.write_bytes(b"")
        # Read now: the next run notices later changes.
        finished = json.dumps(_wanted_stamp(environment), indent=1)
        python = None
        if missing == "environment":
            # Found first: a missing Python must not remove the existing environment.
            python = find_python(environment.python_version, needs_pip=self.uv is None)
        # The stamp is removed first and written last, so that an interrupted set-up does not count as an environment.
        environment.stamp.unlink(missing_ok=True)
        if python:
            self._create(python)
            self._install_lock()
        if environment.installs_project:
            self._install_project()
        unfinished = environment.stamp.with_suffix(".unfinished")
        unfinished.write_text(finished, encoding="utf-8")
        os.replace(unfinished, environment.stamp)

    def _create(self, python: Path) -> None:
        folder = self.environment.folder
        if folder.exists():
            try:
                shutil.rmtree(folder)
            except OSError as error:
                message = f"Cannot replace {folder}: {error.strerror}. End the programs that use it and run this again."
                raise SetupError(message) from error
        label = f"creating it with {python}"
        if self.uv:
            self._step(label, [self.uv, "venv", "--no-project", "--python", str(python), str(folder)])
        else:
            self._step(label, [str(python), "-m", "venv", str(folder)])

    def _install_lock(self) -> None:
        lock = self.environment.lock
        tool = "uv" if self.uv else "pip"
        count = len(re.findall(r"^[A-Za-z0-9]", _read(lock), re.MULTILINE))
        label = f"installing up to {count} packages from {lock.relative_to(ROOT).as_posix()} with {tool}"
        # Compiled here, once: the first start of Blender or the service would else do it while the user waits.
        compiled = ["--compile-bytecode"] if self.uv else ["--compile"]
        self._step(label, [*self._installer(), "--require-hashes", "--no-deps", *compiled, "-r", str(lock)])

    def _install_project(self) -> None:
        options = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
        self._step("installing the project, editable", [*self._installer(), *options])

    def _installer(self) -> list[str]:
        python = str(self.environment.python)
        if self.uv:
            return [self.uv, "pip", "install", "--python", python]
        quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        return [python, "-m", "pip", "install", *quiet]

    def _step(self, label: str, command: Sequence[str]) -> None:
        start = time.monotonic()
        line = f"[{self.environment.name}] {label} ..."
        print(line, end="", flush=True)
        # Where this process is killed outright, its installer lives on; it inherits the lock file, and with it the
        # lock, so that a new set-up waits for it instead of working in the same folder.
        inherited = {} if WINDOWS else {"pass_fds": (self.lock_file,)}
        with self.environment.log.open("ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, env=tool_variables(), **inherited
            )
            try:
                while True:
                    try:
                        code = process.wait(timeout=1.0)
                        break
                    except subprocess.TimeoutExpired:
                        if sys.stdout.isatty():
                            print(f"\r{line} {time.monotonic() - start:.0f} s", end="", flush=True)
            except BaseException:
                # Ctrl-C: nothing may continue to write into a folder that the next run removes.
                process.terminate()
                process.wait()
                print(flush=True)
                raise
        elapsed = f"{time.monotonic() - start:.1f} s"
        print(f"\r{line} {elapsed}" if sys.stdout.isatty() else f" {elapsed}", flush=True)
        if code:
            tail = "\n".join(self.environment.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            message = (
                f"This step failed (exit code {code}); its output is in {self.environment.log} and ends with:\n{tail}"
            )
            raise InstallFailed(message)


@contextlib.contextmanager
def _only_one_setup(environment: Environment) -> Iterator[int]:
    """Hold a file lock that the system frees when its last holder ends, however it ends; yields its descriptor."""
    if HOME.is_symlink() and not HOME.exists():
        message = f"{HOME} is a link to {HOME.resolve()}, which does not exist: make that folder, or remove the link."
        raise SetupError(message)
    HOME.mkdir(exist_ok=True)
    descriptor = os.open(HOME / f"{environment.name}.lock", os.O_RDWR | os.O_CREAT)
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


def write_locks(*, upgrade: bool) -> None:
    """Pin `scripts/locks/*.in` again, for all systems, with the hash of every file and the address of none.

    Raises:
        SetupError: uv, which alone can lock for other systems, is not on PATH, or found no solution.
    """
    uv = shutil.which("uv")
    if not uv:
        message = "Locking needs uv: install it (`pip install uv`), and run this again."
        raise SetupError(message)
    for source in sorted(LOCKS.glob("*.in")):
        environment = ENVIRONMENTS.get(source.stem)
        python_version = environment.python_version if environment else BACKEND.python_version
        command = [uv, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-emit-index-url"]
        command += ["--no-emit-find-links", "--custom-compile-command", LOCK_COMMAND]
        command += ["--python-version", dotted(python_version)]
        if environment is None:
            # Wheels for inside the add-on: Blender brings what these depend on, and takes each file as it is.
            command += ["--no-deps"]
        elif environment.installs_project:
            command += ["pyproject.toml", "--extra", "dev"]
        command += ["--upgrade"] if upgrade else []
        target = source.with_suffix(".txt")
        command += [source.relative_to(ROOT).as_posix(), "--output-file", target.relative_to(ROOT).as_posix()]
        print(f"locking {target.relative_to(ROOT).as_posix()}", flush=True)
        if subprocess.run(command, cwd=ROOT, env=tool_variables()).returncode:
            message = f"uv could not lock {source.relative_to(ROOT).as_posix()}; its output is above."
            raise SetupError(message)


@contextlib.contextmanager
def exit_on_setup_error() -> Iterator[None]:
    """End the program with the message of a set-up error raised within, and with code 130 after Ctrl-C."""
    try:
        yield
    except SetupError as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        print("Interrupted; run the same command to resume.", file=sys.stderr)
        sys.exit(130)


def main() -> None:
    """Create environments, or lock them again."""
    parser = argparse.ArgumentParser(description="Create the project's Python environments, under .venv/.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    setup = verbs.add_parser("setup", help="create the environments (the default)")
    setup.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(ENVIRONMENTS)} (default: all)")
    lock = verbs.add_parser("lock", help="pin scripts/locks/*.in again, with uv")
    lock.add_argument("--upgrade", action="store_true", help="take the newest versions that the .in files allow")
    options = parser.parse_args()
    with exit_on_setup_error():
        if options.verb == "lock":
            write_locks(upgrade=options.upgrade)
            return
        names = getattr(options, "names", None) or list(ENVIRONMENTS)
        for name in names:
            if name not in ENVIRONMENTS:
                parser.error(f"unknown environment {name!r}: expected {', '.join(ENVIRONMENTS)}")
        ensure(*(ENVIRONMENTS[name] for name in names))
        for name in names:
            print(f"{name}: {ENVIRONMENTS[name].python}")


if __name__ == "__main__":
    main()
