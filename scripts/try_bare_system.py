"""Tries the README's commands on a bare Debian: a fresh root folder with Python and nothing else, as a container has.

    sudo python3 scripts/try_bare_system.py                     # both suites, demo.py, and test.py on tests/core
    sudo python3 scripts/try_bare_system.py --suite bookworm --short

bookworm has Python 3.11, trixie 3.13. What is committed is copied in; uncommitted changes are not. Needs root,
debootstrap and unshare. pip, uv and certificates inside are configured as they are outside.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUITES = {"bookworm": "3.11", "trixie": "3.13"}
# Where a checkout lies inside.
PROJECT = "project"
# Variables by which clients find their index, proxy and certificates, and files that do the same.
CONFIGURED_BY = re.compile(
    r"(PIP|UV)_|(HTTPS?|ALL|NO)_PROXY$|SSL_CERT_|REQUESTS_CA_BUNDLE$|CURL_CA_BUNDLE$", re.IGNORECASE
)
CONFIGURATION = (
    "/etc/pip.conf",
    "/etc/uv/uv.toml",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/ssl/certs/ca-certificates.crt",
    "~/.config/pip/pip.conf",
    "~/.pip/pip.conf",
    "~/.config/uv/uv.toml",
)


@dataclass(frozen=True)
class Step:
    """A command of the README inside, and how it went."""

    command: str
    code: int
    seconds: float
    gigabytes: float

    @property
    def line(self) -> str:
        """One line of the summary."""
        state = "passed" if self.code == 0 else f"FAILED (exit code {self.code})"
        return f"{self.command:<58} {state:<8} {self.seconds:6.0f} s  {self.gigabytes:5.2f} GB in .venv"


def main() -> None:
    """Try one suite after the other; exits with 1 if a command failed."""
    parser = argparse.ArgumentParser(description="Run the README's commands on a bare Debian, made by debootstrap.")
    parser.add_argument("--suite", action="append", choices=list(SUITES), help="which Debian (default: both)")
    parser.add_argument("--tests", default="tests/core", help="what scripts/test.py runs (default: %(default)s)")
    parser.add_argument("--short", action="store_true", help="only what installs no environment: the add-on's zip")
    parser.add_argument("--folder", type=Path, help="where the system is made, on a disk with room (default: /tmp)")
    options = parser.parse_args()
    if problem := why_not():
        sys.exit(f"Cannot try a bare system: {problem}.")
    commands = ["python3 scripts/demo.py", f"python3 scripts/test.py --blender NEWEST {options.tests}"]
    # The Blender of the suite's Python, which demo.py has installed already.
    newest = {"bookworm": "5.0", "trixie": "5.2"}
    if options.short:
        commands = ["python3 scripts/demo.py --help", "python3 scripts/build_addon.py --platform linux-x64"]
    failed = False
    for suite in options.suite or SUITES:
        # The zip alone does not install what the system's Python lacks, as the other two do.
        packages = ("python3-venv",) if options.short else ()
        steps = try_suite(suite, [one.replace("NEWEST", newest[suite]) for one in commands], packages, options.folder)
        print(f"\n===== {suite}, Python {SUITES[suite]}", *(step.line for step in steps), sep="\n", flush=True)
        failed = failed or any(step.code for step in steps)
    sys.exit(int(failed))


def why_not() -> str:
    """What this machine lacks; empty where a bare system can be tried."""
    if sys.platform != "linux":
        return f"this system is {sys.platform}, and debootstrap needs Linux"
    if os.geteuid() != 0:
        return "this user is not root"
    missing = [name for name in ("debootstrap", "unshare", "git") if shutil.which(name) is None]
    return f"{' and '.join(missing)} not found (on Debian and Ubuntu: apt install debootstrap)" if missing else ""


def try_suite(suite: str, commands: Sequence[str], packages: Sequence[str], folder: Path | None) -> list[Step]:
    """Make a bare system, run commands in a checkout there one after the other, and remove it.

    Raises:
        subprocess.CalledProcessError: the system could not be made.
    """
    with tempfile.TemporaryDirectory(prefix="ex4d-bare-", dir=folder, ignore_cleanup_errors=True) as name:
        system = Path(name) / "root"
        start = time.monotonic()
        make_system(suite, system, packages)
        print(f"{suite}: made in {time.monotonic() - start:.0f} s", flush=True)
        return [run_inside(system, command) for command in commands]


def make_system(suite: str, system: Path, packages: Sequence[str]) -> None:
    """Make Debian's smallest root folder with Python and further packages, and this checkout's last commit in it."""
    included = ",".join(("python3", "ca-certificates", *packages))
    command = ["debootstrap", "--variant=minbase", f"--include={included}", suite, str(system)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(done.stdout[-2000:], file=sys.stderr)
        done.check_returncode()
    (system / PROJECT).mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(system / PROJECT)], input=archive, check=True)
    for name in CONFIGURATION:
        source = Path(name).expanduser()
        inside = system / ("root" + name[1:] if name.startswith("~") else name[1:])
        if source.is_file():
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.unlink(missing_ok=True)
            shutil.copyfile(source, inside)


def run_inside(system: Path, command: str) -> Step:
    """Run a command in the checkout inside, with its output in view.

    /proc, /dev and the folders that pip is configured to look into are mounted in a namespace of the command's own: the
    mounts end with it, so that removing the system can reach nothing else.
    """
    print(f"\n$ {command}", flush=True)
    mounts = [f"mount --bind {path} {system}{path}" for path in ("/dev", *local_indexes())]
    mounts.append(f"mount -t proc proc {system}/proc")
    for path in local_indexes():
        (system / path[1:]).mkdir(parents=True, exist_ok=True)
    passed = {name: value for name, value in os.environ.items() if CONFIGURED_BY.match(name)}
    variables = {**passed, "HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    script = " && ".join([*mounts, f"exec chroot {system} sh -c 'cd /{PROJECT} && exec {command}'"])
    start = time.monotonic()
    # Own processes, too, so that a backend that is left behind ends with the command.
    namespaces = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    code = subprocess.call([*namespaces, "sh", "-c", script], env=variables, stdin=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    return Step(command, code, seconds, disk_use(system / PROJECT / ".venv") / 1e9)


def local_indexes() -> list[str]:
    """Folders of this machine that pip's configuration names, by variable or file."""
    text = " ".join(value for name, value in os.environ.items() if name.startswith("PIP_"))
    for name in CONFIGURATION:
        path = Path(name).expanduser()
        if path.name == "pip.conf" and path.is_file():
            text += " " + path.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w:/])(?:file://)?(/[\w./-]+)", text)
    folders = {Path(path) for path in named if Path(path).is_dir()}
    # The pages of an index lead to files beside it.
    return sorted(str(folder.parent if folder.name == "simple" else folder) for folder in folders)


def disk_use(folder: Path) -> int:
    """Bytes that a folder takes on disk."""
    if not folder.is_dir():
        return 0
    done = subprocess.run(["du", "-s", "-B1", str(folder)], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[0])


if __name__ == "__main__":
    main()
