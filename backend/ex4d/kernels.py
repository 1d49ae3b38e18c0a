"""Compiles this package's Warp kernels: modules in parallel, and each once per machine, whichever process is first.

Warp compiles a module when it is first needed and keeps it in its cache. A GPU's modules take a minute or more
together, so that rasterizers load what they use with `load_kernels`, and a worker has the rest compiled in the
background.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType

import filelock
import torch
import warp as wp

from ex4d.devices import cpu_cores
from ex4d.warp_start import start_warp

log = logging.getLogger(__name__)

# Threads of a block on CUDA. The kernels need 90 to 170 registers a thread, and some threads walk far: of small blocks
# more are at work at once, and fewer threads wait for the last one of theirs.
BLOCK_THREADS = 64

# Every file with kernels, in the order in which a first job needs them, and of these the slowest to compile first.
KERNEL_FILES = (
    "ex4d.raster.warp.stretched_faces",
    "ex4d.raster.warp.resolving",
    "ex4d.raster.warp.drawing",
    "ex4d.raster.warp.unsnapped",
    "ex4d.mesh.thickness_kernel",
    "ex4d.mesh.edge_shares_kernel",
    "ex4d.mesh.surface_colors_kernel",
    "ex4d.raster.warp.projection",
    "ex4d.raster.warp.sampling",
    "ex4d.raster.warp.near_edges",
    "ex4d.raster.warp.cleaning",
    "ex4d.raster.warp.remembering",
    "ex4d.generation.far_side_kernels",
    "ex4d.raster.warp.clipping",
    "ex4d.raster.warp.resolving_reference",
    "ex4d.raster.warp.antialiasing",
)
# These run on the processor, whatever the device.
CPU_KERNEL_FILES = ("ex4d.raster.warp.simplifying", "ex4d.raster.warp.counting", "ex4d.mesh.plane_kernel")

_loaded: set[tuple[str, str]] = set()


def load_kernels(files: Iterable[ModuleType], device: torch.device | str, threads: int | None = None) -> None:
    """Load the kernels of some files for a device, and compile those that this machine's cache lacks, in parallel.

    Does nothing for those that are loaded already. What another process or thread compiles is waited for.

    Args:
        files: Python modules with kernels.
        device: "cpu", "cuda" or "cuda:N".
        threads: that compile; as many as there are cores by default.
    """
    start_warp()
    _load_all(_modules_of(files), wp.device_from_torch(torch.device(device)), threads)


def load_module(module: wp.Module, device: torch.device) -> None:
    """Load one of Warp's modules for a device, as `load_kernels` does; does nothing if it is loaded already."""
    start_warp()
    _load_all([module], wp.device_from_torch(device))


def _load_all(modules: Iterable[wp.Module], where: wp.Device, threads: int | None = None) -> None:
    modules = [one for one in modules if (one.name, where.alias) not in _loaded]
    if not modules:
        return
    started = time.monotonic()
    with ThreadPoolExecutor(min(len(modules), threads or cpu_cores())) as pool:
        compiled = sum(pool.map(lambda module: _load(module, where), modules))
    if compiled:
        seconds = time.monotonic() - started
        log.info("compiled %d modules of kernels for %s in %.1f seconds", compiled, where.alias, seconds)


def compile_in_background(device: str) -> threading.Thread:
    """Load all kernels for a device in a thread, which leaves half of the cores to other work."""

    def compile_all() -> None:
        half = max(1, cpu_cores() // 2)
        try:
            load_kernels(_files(KERNEL_FILES), device, half)
            load_kernels(_files(CPU_KERNEL_FILES), "cpu", half)
        # A job that needs them meets the same problem, and says it.
        except Exception as error:
            log.warning("kernels for %s cannot be compiled before a job needs them: %s", device, error)

    thread = threading.Thread(target=compile_all, name="kernels", daemon=True)
    thread.start()
    return thread


def compiled_share(device: str) -> tuple[int, int]:
    """How many of the modules of kernels for a device are in this machine's cache, and how many there are."""
    start_warp()
    kinds = ((KERNEL_FILES, device), (CPU_KERNEL_FILES, "cpu"))
    found = [
        _is_compiled(module, wp.device_from_torch(torch.device(where)))
        for names, where in kinds
        for module in _modules_of(_files(names))
    ]
    return sum(found), len(found)


def _files(names: Iterable[str]) -> list[ModuleType]:
    return [importlib.import_module(name) for name in names]


def _modules_of(files: Iterable[ModuleType]) -> list[wp.Module]:
    """Warp's modules of the kernels in some files, each once; a file may have several, which compile in parallel."""
    kernels = (value for file in files for value in vars(file).values() if isinstance(value, wp.Kernel))
    return list({kernel.module.name: kernel.module for kernel in kernels}.values())


def _block(device: wp.Device) -> int | None:
    return BLOCK_THREADS if device.is_cuda else None


def _load(module: wp.Module, device: wp.Device) -> bool:
    """Load a module; returns whether it was compiled for that."""
    with _lock_of(module):
        is_new = not _is_compiled(module, device)
        if is_new:
            log.info("compiling kernels for %s, once per machine: %s", device.alias, module.name)
        wp.force_load(device=device, modules=[module], block_dim=_block(device))
    _loaded.add((module.name, device.alias))
    return is_new


def _lock_of(module: wp.Module) -> AbstractContextManager[object]:
    """Held by the one thread of the one process that compiles a module."""
    folder = Path(str(wp.config.kernel_cache_dir))
    try:
        return filelock.FileLock(folder / f"wp_{module.name}.lock", thread_local=False).acquire()
    except (OSError, NotImplementedError):  # a cache on a file system without locks: compiled twice at worst
        return nullcontext()


def _is_compiled(module: wp.Module, device: wp.Device) -> bool:
    """Whether Warp's cache has a module for a device, as it is now."""
    folder = Path(str(wp.config.kernel_cache_dir)) / module.get_module_identifier(1 if device.is_cpu else BLOCK_THREADS)
    pattern = "*.cpu*.o" if device.is_cpu else f"*.sm{device.arch}*"
    return any(folder.glob(pattern))
