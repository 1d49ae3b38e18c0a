"""Finds out whether pip or uv can have PyTorch's build for processors, which is 2.9 GB smaller than that with CUDA.

No ordinary index has it for Linux. A pip whose configuration names a place with the file finds it, and uv knows
PyTorch's own index. What is installed has to have the hash in the lock.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from interpreters import dotted, tool_variables


def tool_with_cpu_torch(python: Path, version: tuple[int, int], lock: Path) -> str:
    """Which tool can have the build that a lock pins for this Python: "pip", "uv", or "" for none."""
    found = re.search(r"^torch==(\S+\+cpu)[^#]*?((?:\s*\\\n\s*--hash=\S+)+)", lock.read_text("utf-8"), re.MULTILINE)
    if not found:
        return ""
    pinned, hashes = found.group(1), re.findall(r"sha256:(\w+)", found.group(2))
    if _pip_lists(python, pinned):
        return "pip"
    if (uv := shutil.which("uv")) and _uv_has(uv, version, pinned, hashes):
        return "uv"
    return ""


def _pip_lists(python: Path, pinned: str) -> bool:
    command = ["-m", "pip", "index", "versions", "--disable-pip-version-check", "torch"]
    if _output([str(python), "-m", "pip", "--version"]):
        return pinned in re.split(r"[\s,]+", _output([str(python), *command]))
    # Debian's Python has no pip, but makes environments that have.
    with tempfile.TemporaryDirectory(prefix="ex4d-pip-") as folder:
        if subprocess.run([str(python), "-m", "venv", folder], capture_output=True, env=tool_variables()).returncode:
            return False
        inside = str(Path(folder) / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
        return pinned in re.split(r"[\s,]+", _output([inside, *command]))


def _uv_has(uv: str, version: tuple[int, int], pinned: str, hashes: Sequence[str]) -> bool:
    command = [uv, "pip", "compile", "--quiet", "--no-deps", "--generate-hashes", "--torch-backend", "cpu"]
    listed = _output([*command, "--python-version", dotted(version), "-"], f"torch=={pinned}\n")
    return any(digest in listed for digest in hashes)


def _output(command: Sequence[str], given: str = "") -> str:
    # Only a question, which is no reason to wait long: without an answer the other build is taken.
    variables = {"UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": "10", "PIP_RETRIES": "0", "PIP_DEFAULT_TIMEOUT": "10"}
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=60, env={**tool_variables(), **variables}
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
