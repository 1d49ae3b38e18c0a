"""Runs every check of the project: formatting, types, documentation, and the tests of the backend and the add-on.

`scripts/test.py` starts this.

Environments that are missing are created first. Unknown arguments are passed to pytest, as in
`scripts/test.py tests/mesh -k border -x`; paths select the environments, and types and documentation, which take
minutes, are then left out. Needs only the standard library.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import environments
from environments import BACKEND, BLENDERS, ROOT, Environment
from interpreters import PythonMissing, find_python

TESTS = ROOT / "tests"
BLENDER_TESTS = TESTS / "blender"
NO_TESTS_COLLECTED = 5
# pytest's options whose value is the next argument, and may look like a path.
TAKES_VALUE = {
    "-k",
    "-m",
    "-p",
    "-o",
    "-c",
    "-n",
    "-W",
    "-r",
    "--maxfail",
    "--durations",
    "--tb",
    "--deselect",
    "--ignore",
}


@dataclass
class Outcome:
    """The result of one check.

    Attributes:
        name: as the summary shows it.
        state: "passed", "FAILED", or why it did not run.
        skipped: reasons of skipped tests, and how many tests each skipped.
        crash: the signal that ended a first run, if the figures are those of a second one; 0 otherwise.
    """

    name: str
    state: str
    seconds: float = 0.0
    passed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    crash: int = 0

    @property
    def skips(self) -> int:
        """How many tests were skipped."""
        return sum(self.skipped.values())

    @property
    def line(self) -> str:
        """One line of the summary."""
        counts = ""
        if self.passed or self.failed or self.skipped:
            counts = f": {self.passed} passed, {self.failed} failed, {self.skips} skipped"
        took = f" ({self.seconds:.1f} s)" if self.seconds else ""
        crashed = f", in a second run: the first crashed with signal {self.crash}" if self.crash else ""
        return f"{self.name:<20} {self.state}{counts}{took}{crashed}"


def main() -> None:
    """Run the checks, and exit with 0 only if all of them passed."""
    parser = argparse.ArgumentParser(
        prog="test.py",
        description="Run every check of the project. The first run installs what is missing into .venv/.",
        epilog="All other arguments are passed to pytest.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--blender",
        type=blender_versions,
        metavar="VERSIONS",
        help=f"the Blender versions to test the add-on in, separated by commas: {', '.join(BLENDERS)} (default: all "
        "whose Python is installed)",
    )
    options, for_pytest = parser.parse_known_args()
    with environments.exit_on_setup_error():
        backend = backend_here()
        environments.require_space(backend, *(BLENDERS[version] for version in options.blender or BLENDERS))
        environments.ensure(backend)
        blenders, left_out = ready_blenders(options.blender)

    flags, backend_paths, blender_paths = split_paths(for_pytest)
    chosen = bool(backend_paths or blender_paths)
    outcomes = [ruff("check"), ruff("format", "--check")]
    if for_pytest:
        outcomes += [Outcome(name, "not run, only tests were asked for") for name in ("types", "documentation")]
    else:
        outcomes += [check_types(), build_documentation()]

    outside_blender = f"--ignore={BLENDER_TESTS.relative_to(ROOT)}"
    variables = {"EX4D_BACKEND_PYTHON": str(BACKEND.python)}
    if blenders:
        # The chain's tests need one Blender: the newest that runs on the backend's own version of Python.
        alike = [blender for blender in blenders if blender.python_version == backend.python_version]
        variables["EX4D_BLENDER_PYTHON"] = str((alike or blenders)[-1].python)
    if chosen and not backend_paths:
        outcomes.append(Outcome("tests, backend", "not run, only tests of Blender were asked for"))
    else:
        arguments = [outside_blender, "--slow", *flags, *(backend_paths or [TESTS.name])]
        outcomes.append(run_pytest("tests, backend", BACKEND.python, arguments, variables))

    for blender in blenders:
        name = f"tests, {blender.name}"
        if chosen and not blender_paths:
            outcomes.append(Outcome(name, "not run, only tests of the backend were asked for"))
        elif not BLENDER_TESTS.is_dir():
            outcomes.append(Outcome(name, "not run, there is no folder tests/blender"))
        else:
            paths = blender_paths or [str(BLENDER_TESTS.relative_to(ROOT))]
            in_blender = {**variables, "EX4D_BLENDER_PYTHON": str(blender.python)}
            outcomes.append(run_pytest(name, blender.python, [*flags, *paths], in_blender, retry_crash=True))
    sys.exit(report([*outcomes, *left_out], filtered=bool(for_pytest)))


def backend_here() -> Environment:
    """The backend's environment on Python 3.11, or on 3.13 where that alone is installed."""
    for version in (BACKEND.python_version, (3, 13)):
        here = replace(BACKEND, python_version=version)
        try:
            find_python(version, needs_pip=False)
        except PythonMissing:
            continue
        return here
    return BACKEND  # uv may fetch its Python


def blender_versions(text: str) -> list[str]:
    """The versions in a list such as "4.2,5.0".

    Raises:
        argparse.ArgumentTypeError: a version that is not supported.
    """
    versions = [version.strip() for version in text.split(",")]
    for version in versions:
        if version not in BLENDERS:
            message = f"unknown Blender version {version!r}: expected {', '.join(BLENDERS)}"
            raise argparse.ArgumentTypeError(message)
    return versions


def ready_blenders(versions: Sequence[str] | None) -> tuple[list[Environment], list[Outcome]]:
    """The environments to test in, created where they are missing, and what was left out and why.

    Raises:
        SetupError: set-up failed. A missing Python is an error only for versions that were given by name.
    """
    ready, left_out = [], []
    for version in versions or BLENDERS:
        blender = BLENDERS[version]
        try:
            environments.ensure(blender)
        except PythonMissing as error:
            if versions:
                raise
            left_out.append(Outcome(f"tests, {blender.name}", f"not run. {error}"))
            continue
        ready.append(blender)
    return ready, left_out


def split_paths(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Sort pytest's arguments into flags, paths for the backend's environment, and paths for Blender's.

    A folder that holds both kinds, as `tests`, goes to both.
    """
    flags, backend, blender = [], [], []
    previous = ""
    for argument in arguments:
        path, _, test = argument.partition("::")
        is_path = not argument.startswith("-") and previous not in TAKES_VALUE and Path(path).exists()
        previous = argument
        if not is_path:
            flags.append(argument)
            continue
        absolute = Path(path).resolve()
        # Runs start in the project's folder, wherever this script was called from.
        argument = os.path.relpath(absolute, ROOT) + (f"::{test}" if test else "")
        if absolute.is_relative_to(BLENDER_TESTS):
            blender.append(argument)
        else:
            backend.append(argument)
            if BLENDER_TESTS.is_relative_to(absolute):
                blender.append(str(BLENDER_TESTS.relative_to(ROOT)))
    return flags, backend, blender


def ruff(*verb: str) -> Outcome:
    """Check style and docstrings, or the formatting."""
    return check(" ".join(("ruff", *verb)), [str(BACKEND.command("ruff")), *verb, "."])


def check_types() -> Outcome:
    """Check all types; pyproject.toml says of which files."""
    command = [str(BACKEND.command("basedpyright")), "--pythonpath", str(BACKEND.python), "--level", "error"]
    return check("types", command)


def build_documentation() -> Outcome:
    """Build the documentation into outputs/docs; any warning is a failure."""
    return check("documentation", [str(BACKEND.python), "-m", "mkdocs", "build"], {"NO_MKDOCS_2_WARNING": "1"})


def check(name: str, command: Sequence[str], variables: dict[str, str] | None = None) -> Outcome:
    """Run a tool that fails by its exit code."""
    seconds, code = run(name, command, variables or {})
    return Outcome(name, "FAILED" if code else "passed", seconds)


def run_pytest(
    name: str, python: Path, arguments: Sequence[str], variables: dict[str, str], *, retry_crash: bool = False
) -> Outcome:
    """Run pytest with its output in view, and read the counts from its JUnit report.

    Args:
        name: of the outcome.
        python: that has pytest.
        arguments: of pytest.
        variables: of the environment, in addition.
        retry_crash: run again, once and not in silence, if a signal ends the process: in long sessions the module bpy
            of Blender 4.x does so now and then, in its own code.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.xml"
        command = [str(python), "-m", "pytest", f"--junitxml={result}", *arguments]
        seconds, code = run(name, command, variables)
        crash = -code if retry_crash and code < 0 else 0
        if crash:
            print(f"\n{name}: ended by signal {crash}; once more", flush=True)
            again, code = run(name, command, variables)
            seconds += again
        outcome = Outcome(name, "FAILED" if code else "passed", seconds, crash=crash)
        if code == NO_TESTS_COLLECTED:
            outcome.state = "no test found"
        if result.exists():
            for case in ElementTree.parse(result).iter("testcase"):
                skip = case.find("skipped")
                if case.find("failure") is not None or case.find("error") is not None:
                    outcome.failed += 1
                elif skip is not None:
                    outcome.skipped[skip.get("message") or "no reason given"] += 1
                else:
                    outcome.passed += 1
    return outcome


def run(name: str, command: Sequence[str], variables: dict[str, str]) -> tuple[float, int]:
    """Run a command in the project's folder; returns how long it took, in seconds, and its exit code."""
    print(f"\n===== {name}", flush=True)
    start = time.monotonic()
    code = subprocess.call(command, cwd=ROOT, env={**os.environ, **variables})
    return time.monotonic() - start, code


def report(outcomes: Sequence[Outcome], *, filtered: bool) -> int:
    """Print what ran and what was left out and why; returns the exit code.

    Without a filter of the user's, a run that finds no test is a failure: something hides them.
    """
    print("\n===== summary")
    for outcome in outcomes:
        print(outcome.line)
        for reason, count in outcome.skipped.items():
            print(f"    {count} skipped: {reason}")
    passed, failed = sum(outcome.passed for outcome in outcomes), sum(outcome.failed for outcome in outcomes)
    print(f"total: {passed} passed, {failed} failed, {sum(outcome.skips for outcome in outcomes)} skipped")
    bad = {"FAILED"} if filtered and passed else {"FAILED", "no test found"}
    return int(any(outcome.state in bad for outcome in outcomes))


def start() -> None:
    """Run the checks; ends with code 130 after Ctrl-C."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
