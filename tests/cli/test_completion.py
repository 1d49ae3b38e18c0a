"""Completion by the shells' own protocol, and the manual page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from ex4d.cli.completion import SHELLS
from ex4d.cli.main import VERBS, main


@pytest.fixture
def completions(ex4d, tmp_path):
    """What argcomplete's protocol offers for a line."""

    def complete(line: str) -> set[str]:
        answer = tmp_path / "answer"
        ex4d(
            _ARGCOMPLETE="1",
            _ARGCOMPLETE_IFS="\n",
            _ARGCOMPLETE_STDOUT_FILENAME=str(answer),
            _ARGCOMPLETE_SUPPRESS_SPACE="1",
            COMP_LINE=line,
            COMP_POINT=str(len(line.encode())),
            COMP_TYPE="9",
        )
        return {word.strip() for word in answer.read_text().splitlines()}

    return complete


def test_verbs_options_and_choices_are_completed(completions):
    assert completions("ex4d ") >= set(VERBS)
    assert completions("ex4d gen") == {"generate"}
    assert completions("ex4d generate --occlusion ") == {"watertight", "open", "thickness"}
    assert completions("ex4d models ") >= {"list", "fetch", "check"}
    assert {"--quick", "--models"} <= completions("ex4d models check --")


def test_completion_does_not_wait_for_torch():
    """All it needs is the parser of all verbs."""
    script = "import sys; from ex4d.cli.main import build_parser; build_parser(); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    imported = set(done.stdout.split())
    assert "ex4d.cli.generate" in imported and not {"torch", "warp", "rich", "av"} & imported


def test_a_command_does_not_wait_for_argcomplete(ex4d):
    done = ex4d("--version", PYTHONPROFILEIMPORTTIME="1")
    assert done.stdout.startswith("ex4d ") and "argcomplete" not in done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_accepts_its_code(shell, capsys, tmp_path):
    assert main(["completion", shell]) == 0
    code = capsys.readouterr().out
    assert "_ARGCOMPLETE" in code and "ex4d" in code
    if program := shutil.which(shell):
        (tmp_path / "code").write_text(code)
        done = subprocess.run([program, "-n", str(tmp_path / "code")], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_the_command(tmp_path):
    command = tmp_path / "ex4d"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ex4d "$@"\n')
    command.chmod(0o755)
    script = """
        eval "$(ex4d completion bash)"
        complete -p ex4d
        COMP_WORDS=(ex4d render --conven) COMP_CWORD=2 COMP_LINE="ex4d render --conven" COMP_POINT=20 COMP_TYPE=9
        _python_argcomplete ex4d
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    registered, *offered = done.stdout.splitlines()
    assert registered.endswith("-F _python_argcomplete ex4d"), done.stderr
    assert [word.strip() for word in offered] == ["--convention"]


def test_the_manual_page_has_every_verb_and_the_environment(capsys, tmp_path):
    assert main(["man"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(".TH EX4D")
    (tmp_path / "ex4d.1").write_text(page, encoding="utf-8")
    if shutil.which("man"):
        command = ["man", "--warnings", "-E", "UTF-8", "-l", "-P", "cat", str(tmp_path / "ex4d.1")]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MANWIDTH": "100"})
        assert done.returncode == 0
        page = re.sub(r".\x08", "", done.stdout)
    for verb in VERBS:
        assert f"COMMAND 'ex4d {verb}'" in page
    for word in ("ex4d models fetch", "EX4D_MODELS", "Exit"):
        assert word in page
