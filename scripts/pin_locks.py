"""Pins the locks of all environments, `scripts/locks/*.txt`, with uv; `environments.py lock` calls this.

PyTorch's build for processors, in `demo.txt`, is in no ordinary index: uv finds it where UV_FIND_LINKS names a folder
with its file, or with UV_TORCH_BACKEND=cpu. The other locks are pinned without both.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from environments import BACKEND, DEMO, ENVIRONMENTS, LOCK_COMMAND, LOCKS, ROOT
from interpreters import SetupError, dotted, tool_variables

_ELSEWHERE = ("UV_FIND_LINKS", "UV_TORCH_BACKEND")
# What a CUDA build of PyTorch depends on, and does not need to start and to compute on the processor; 1.4 GB.
_UNUSED_WITHOUT_A_GPU = (
    "cuda-bindings",
    "cuda-pathfinder",
    "cuda-toolkit",
    "nvidia-cusolver",
    "nvidia-nvtx",
    "triton",
)


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
        target = source.with_suffix(".txt")
        print(f"locking {target.relative_to(ROOT).as_posix()}", flush=True)
        command = [uv, *_arguments(source), *(["--upgrade"] if upgrade else [])]
        if subprocess.run(command, cwd=ROOT, env=_variables(source)).returncode:
            message = f"uv could not lock {source.relative_to(ROOT).as_posix()}; its output is above."
            raise SetupError(message)


def _arguments(source: Path) -> list[str]:
    arguments = ["pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-emit-index-url"]
    arguments += ["--no-emit-find-links", "--custom-compile-command", LOCK_COMMAND]
    if source.stem.startswith(DEMO.name):
        # The demo runs on any Python that the project supports, with an installed Blender.
        arguments += ["--python-version", "3.10", "pyproject.toml"]
        arguments += [word for name in _UNUSED_WITHOUT_A_GPU for word in ("--no-emit-package", name)]
    elif environment := ENVIRONMENTS.get(source.stem):
        arguments += ["--python-version", dotted(environment.python_version)]
        arguments += ["pyproject.toml", "--extra", "dev"] if environment.installs_project else []
    else:
        # Wheels for inside the add-on: Blender brings what these depend on, and takes each file as it is.
        arguments += ["--python-version", dotted(BACKEND.python_version), "--no-deps"]
    target = source.with_suffix(".txt")
    return [*arguments, source.relative_to(ROOT).as_posix(), "--output-file", target.relative_to(ROOT).as_posix()]


def _variables(source: Path) -> Mapping[str, str]:
    # A lock must not depend on which Pythons uv could fetch.
    variables = {**tool_variables(), "UV_PYTHON_DOWNLOADS": "never"}
    if source.stem == DEMO.name:
        return variables
    return {name: value for name, value in variables.items() if name not in _ELSEWHERE}
