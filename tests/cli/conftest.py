"""Fixtures of the command line's tests: a configuration file, and the command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def configure(tmp_path, monkeypatch) -> Callable[[str], Path]:
    """Writes a text as the configuration file of this test; returns the file."""

    def write(text: str) -> Path:
        path = tmp_path / "settings" / "mine.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        monkeypatch.setenv("EX4D_CONFIG", str(path))
        return path

    return write


@pytest.fixture
def ex4d() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `ex4d` in a process of its own; keywords are environment variables."""

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        inherited = os.environ.get("PYTHONPATH", "")
        paths = os.pathsep.join(filter(None, [str(ROOT / "backend"), str(ROOT), inherited]))
        environment = {**os.environ, "PYTHONPATH": paths, **variables}
        command = [sys.executable, "-m", "ex4d", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    return run
