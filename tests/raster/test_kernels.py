"""Kernels: compiled in parallel into Warp's cache, once per machine, whichever process is first."""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import warp as wp

import ex4d.generation
import ex4d.mesh
import ex4d.raster.warp
from ex4d.kernels import CPU_KERNEL_FILES, KERNEL_FILES, load_kernels
from ex4d.leftovers import compiled_kernels
from ex4d.mesh import edge_shares_kernel, thickness_kernel
from ex4d.raster.warp import stretched_faces

# Two small modules.
_LOAD = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
from ex4d.kernels import load_kernels
from ex4d.raster.warp import remembering
from ex4d.generation import far_side_kernels
load_kernels([remembering, far_side_kernels], "cpu")
"""


def test_all_files_with_kernels_are_compiled_when_a_backend_starts():
    found = set()
    for package in (ex4d.mesh, ex4d.raster.warp, ex4d.generation):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            source = Path(module.module_finder.path) / f"{module.name.rpartition('.')[2]}.py"
            if source.is_file() and "@wp.kernel" in source.read_text(encoding="utf-8"):
                found.add(module.name)
    assert found == {*KERNEL_FILES, *CPU_KERNEL_FILES}
    for name in found:
        file = importlib.import_module(name)
        assert any(isinstance(value, wp.Kernel) for value in vars(file).values()), name


def test_the_largest_file_compiles_in_parts():
    kernels = [value for value in vars(stretched_faces).values() if isinstance(value, wp.Kernel)]
    assert len({kernel.module.name for kernel in kernels}) == len(kernels) == 3
    assert all(kernel.module.options["max_unroll"] == 1 for kernel in kernels)
    assert not any(kernel.module.options["enable_backward"] for kernel in kernels)


def test_two_processes_compile_each_module_once(tmp_path, monkeypatch):
    place = {**os.environ, "WARP_CACHE_PATH": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", _LOAD], env=place, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    logs = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], logs
    for name in ("ex4d.raster.warp.remembering", "ex4d.generation.far_side_kernels"):
        assert len(list(tmp_path.rglob(f"wp_{name}_*.o"))) == 1
        assert "".join(logs).count(f"compiling kernels for cpu, once per machine: {name}\n") == 1
    monkeypatch.setenv("WARP_CACHE_PATH", str(tmp_path))
    assert sum(one.bytes > 0 for one in compiled_kernels()) == 2  # what `ex4d clean` finds


def test_what_is_loaded_is_not_loaded_again(caplog, monkeypatch):
    load_kernels([thickness_kernel, edge_shares_kernel], "cpu")
    monkeypatch.setattr(wp, "force_load", None)
    with caplog.at_level(logging.INFO):
        load_kernels([thickness_kernel, edge_shares_kernel], "cpu")
    assert not caplog.records
