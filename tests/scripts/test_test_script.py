"""scripts/test.py: which tests run where, and an exit code and a summary that are right."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

import all_checks as script

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-k", "border", "-x"], (["-k", "border", "-x"], [], [])),
        (["tests/scripts"], ([], ["tests/scripts"], [])),
        (["tests/blender", "-q"], (["-q"], [], ["tests/blender"])),
        (["tests"], ([], ["tests"], ["tests/blender"])),
        # The value of an option is not a path, even where there is one of that name.
        (["-k", "tests"], (["-k", "tests"], [], [])),
        (["tests/scripts/test_locks.py::test_x"], ([], ["tests/scripts/test_locks.py::test_x"], [])),
    ],
)
def test_paths_go_to_the_environment_that_can_run_them(arguments, expected, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert script.split_paths(arguments) == expected


def test_paths_are_understood_from_any_folder(monkeypatch):
    monkeypatch.chdir(ROOT / "tests")
    assert script.split_paths(["scripts"]) == ([], ["tests/scripts"], [])


SUITE = """
import pytest

def test_good():
    pass

def test_bad():
    assert False

@pytest.mark.skip(reason="no such device")
def test_elsewhere():
    pass
"""


@pytest.fixture
def suite(tmp_path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (tmp_path / "test_suite.py").write_text(SUITE, encoding="utf-8")
    return tmp_path


def test_the_summary_counts_what_pytest_ran_and_why_it_skipped(suite, capsys):
    outcome = script.run_pytest("tests, here", Path(sys.executable), [str(suite)], {})
    assert (outcome.state, outcome.passed, outcome.failed) == ("FAILED", 1, 1)
    assert script.report([outcome], filtered=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "    1 skipped: no such device" in lines
    assert lines[-1] == "total: 1 passed, 1 failed, 1 skipped"


def test_a_failed_check_fails_the_run_though_all_tests_pass(suite):
    outcome = script.run_pytest("tests, here", Path(sys.executable), [str(suite), "-k", "good"], {})
    assert script.report([outcome], filtered=True) == 0
    assert script.report([script.Outcome("ruff check", "FAILED"), outcome], filtered=True) == 1


def test_a_crash_is_tried_again_once_where_that_is_asked_for_and_told(suite):
    """The first run of this test ends its process; with retries a second one passes, and the summary says so."""
    crashing = (
        "import os, pathlib, signal\n"
        "def test_it():\n"
        "    once = pathlib.Path(__file__).with_name('crashed')\n"
        "    if not once.exists():\n"
        "        once.touch()\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    (suite / "test_suite.py").write_text(crashing, encoding="utf-8")
    outcome = script.run_pytest("tests, here", Path(sys.executable), [str(suite)], {}, retry_crash=True)
    assert (outcome.state, outcome.passed) == ("passed", 1)
    assert "in a second run: the first crashed with signal 11" in outcome.line
    (suite / "crashed").unlink()
    assert script.run_pytest("tests, here", Path(sys.executable), [str(suite)], {}).state == "FAILED"


def test_finding_no_test_is_a_failure_unless_a_filter_left_some_elsewhere(suite):
    nothing = script.run_pytest("tests, here", Path(sys.executable), [str(suite), "-k", "absent"], {})
    some = script.Outcome("tests, there", "passed", passed=3)
    assert nothing.state == "no test found"
    assert script.report([nothing, some], filtered=False) == 1
    assert script.report([nothing, some], filtered=True) == 0
    assert script.report([nothing], filtered=True) == 1


def test_blenders_are_named_with_commas():
    assert script.blender_versions("4.2, 5.2") == ["4.2", "5.2"]
    with pytest.raises(argparse.ArgumentTypeError, match=r"'3.6'.* 4.2, 4.5, 5.0, 5.2"):
        script.blender_versions("4.2,3.6")


def test_a_blender_whose_python_is_missing_is_left_out_with_the_reason_unless_it_was_asked_for(monkeypatch, capsys):
    def ensure(environment):
        if environment.python_version == (3, 13):
            raise script.PythonMissing("Python 3.13 is needed and was not found: install it.")

    monkeypatch.setattr(script.environments, "ensure", ensure)
    ready, left_out = script.ready_blenders(None)
    assert [blender.name for blender in ready] == ["blender-4.2", "blender-4.5", "blender-5.0"]
    assert script.report([script.Outcome("tests, here", "passed", passed=1), *left_out], filtered=False) == 0
    assert "tests, blender-5.2   not run. Python 3.13 is needed and was not found" in capsys.readouterr().out
    with pytest.raises(script.PythonMissing):
        script.ready_blenders(["5.2"])


@pytest.mark.parametrize(("arguments", "run"), [([], True), (["tests/mesh"], False), (["-k", "border"], False)])
def test_slow_checks_run_unless_tests_were_selected(arguments, run, monkeypatch):
    ran = []
    monkeypatch.setattr(script.environments, "ensure", lambda *environments: None)
    monkeypatch.setattr(script, "check", lambda name, *_: ran.append(name) or script.Outcome(name, "passed"))
    monkeypatch.setattr(script, "run_pytest", lambda name, *_, **__: script.Outcome(name, "passed", passed=1))
    monkeypatch.setattr(sys, "argv", ["test.py", *arguments])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    assert ran == ["ruff check", "ruff format --check", *(["types", "documentation"] if run else [])]
