"""Benchmark of loading: switching presets, LoRAs and precision in one process, and cold starts from the disk.

Parts `switch` and `cold` of `ex4d bench generate`. A cold start is measured with nothing of the weights in the system's
cache of files, but with kernels compiled: from the choice of the networks to the end of the first step on a GPU; to
the last network loaded without one, where a step would take longer than loading.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from bench.measuring import Row, wait_for_gpu
from bench.passes import Case
from bench.random_weights import random_weights, write_models
from ex4d.generation.wan import loaded_networks
from ex4d.generation.wan.layouts import published_layout
from ex4d.generation.wan.loaded_networks import LoadedNetworks, networks_for
from ex4d.generation.wan.network_choice import NetworkChoice
from ex4d.generation.wan.wan_engine import WanEngine
from ex4d.raster import RenderedFrame
from ex4d.weights import converted
from ex4d.weights.checkpoints import read_checkpoint
from ex4d.weights.converted import WRITER, ConvertedWeights
from ex4d.weights.wan_files import find_wan_files
from ex4d_core.wan_settings import WanSettings, wan_preset

# Targets on one H200: seconds of a switch, and how many times as fast as from the published files a cold start is.
SWITCH_SECONDS, COLD_RATIO = 1.0, 4.0

# What a cold start needs of the disk beside the transformer: encoders, VAE, and what a machine should have left.
_BESIDE_BYTES = 30e9
# Of one published block: in float32, as it is published, and converted.
_BLOCK_BYTES = 2.15e9
_BLOCKS = 40
# Of a transformer for a machine without a GPU, by gigabytes: 16 heads, and a block of 0.3 GB in float32.
_HEADS, _FFN, _BLOCK_GIGABYTES = 16, 8192, 0.302


def measure_switches(case: Case, folder: Path) -> Iterator[Row]:
    """Yield how long each of a chain of switches takes, until all that a shot needs is on the device."""
    lora = _write_lora(folder, case)
    standard, fast = wan_preset("standard"), wan_preset("fast", loras=())
    chain: list[tuple[str, WanSettings, float]] = [
        ("ex4d-reference", wan_preset("ex4d-reference"), 0.0),
        ("standard", standard, 0.0),
        ("fast, a LoRA", fast, 1.0),
        ("fast, the LoRA at 0.5", fast, 0.5),
    ]
    with mock.patch.object(loaded_networks, "_last", None):
        networks = networks_for(_choice(case, folder, chain[0][1]))
        seconds = _seconds(networks.load_all)
        yield Row("switch: nothing loaded before", f"{seconds:.2f} s", f"{chain[0][0]}, from the disk")
        for times in ("first", "again"):
            for name, settings, weight in chain[1:] if times == "first" else chain:
                chosen = _choice(case, folder, settings, ((lora, weight),) if weight else ())
                seconds = _seconds(lambda chosen=chosen: networks_for(chosen).load_all())
                remark = f"{settings.precision}; target {SWITCH_SECONDS:g} s"
                yield Row(f"switch to {name}, {times}", f"{seconds:.3f} s", remark)
        networks = networks_for(_choice(case, folder, standard))
        networks.load_all()
        kept = networks._kept
        if case.on_gpu:
            own = next(reversed(kept.transformers))
            parking = _seconds(kept.transformers[own].park)
            back = _seconds(kept.transformers[own].bring_back)
            again = _seconds(kept.transformers[own].park)
            yield Row("switch: back from the host's memory", f"{back:.3f} s", f"{standard.precision}; page-locked")
            yield Row("switch: into the host's memory", f"{parking:.2f} s", f"again {again:.3f} s")
        networks.unload()


def measure_cold_starts(case: Case, folder: Path, shot: list[RenderedFrame], gigabytes: float = 0.0) -> Iterator[Row]:
    """Yield how long a cold start takes from files as they are published, in float32, and from converted weights.

    Args:
        case: of this machine.
        folder: for the files, which are as large as the disk has room for on a GPU machine.
        shot: frames to generate.
        gigabytes: of the transformer's files on a machine without a GPU; 0 for the toy.
    """
    folder.mkdir()
    if case.on_gpu:
        blocks = max(2, min(_BLOCKS, int((shutil.disk_usage(folder).free - _BESIDE_BYTES) / _BLOCK_BYTES)))
        sizes = {"full_size": True, "layers": blocks}
    else:
        blocks = round(gigabytes / _BLOCK_GIGABYTES) or 2
        sizes = {"heads": _HEADS, "ffn": _FFN, "layers": blocks} if gigabytes else {}
    started = time.perf_counter()
    models = write_models(folder / "published", device=case.device, dit_dtype=torch.float32, **sizes)
    files = find_wan_files(models)
    size = sum(path.stat().st_size for path in files.dit)
    seconds = time.perf_counter() - started
    yield Row("cold: weights written", f"{seconds:.0f} s", f"transformer {size / 1e9:.2f} GB, {blocks} blocks, float32")
    settings = wan_preset("standard", steps=1)
    cache = ConvertedWeights(folder / "converted", 1000)
    plain = _choice(case, models, settings)
    with mock.patch.object(converted, "LEAST_BYTES", 0):
        _start(case, plain, settings, shot)  # compiles kernels, and encodes the prompts
        yield from _disk_rates(files.dit[0])
        before, _ = _cold(case, plain, settings, shot, models)
        yield Row("cold start, published files", f"{before:.1f} s", _until(case))
        _, writing = _start(case, replace(plain, converted=cache), settings, shot)
        kept = sum(path.stat().st_size for path in cache.folder.iterdir())
        yield Row("cold: converted", f"{kept / 1e9:.2f} GB", f"once; {writing:.1f} s of writing after the first shot")
        after, _ = _cold(case, replace(plain, converted=cache), settings, shot, folder)
        yield Row("cold start, converted weights", f"{after:.1f} s", f"{before / after:.1f} x; target {COLD_RATIO:g} x")
        warm, _ = _start(case, replace(plain, converted=cache), settings, shot)
        yield Row("start, files in the system's cache", f"{warm:.1f} s", "as after a restart of the service")


def _until(case: Case) -> str:
    return "to the end of the first step" if case.on_gpu else "until all networks are loaded"


def _cold(
    case: Case, choice: NetworkChoice, settings: WanSettings, shot: list[RenderedFrame], folder: Path
) -> tuple[float, float]:
    forget_files(folder)
    return _start(case, choice, settings, shot)


def _start(case: Case, choice: NetworkChoice, settings: WanSettings, shot: list[RenderedFrame]) -> tuple[float, float]:
    """Return the seconds of a start with nothing in memory, and those of writing that are left behind the shot."""
    networks = LoadedNetworks(choice)
    if not case.on_gpu:
        seconds, writing = _seconds(networks.load_all), _seconds(WRITER.wait)
        networks.unload()
        return seconds, writing
    steps: list[float] = []
    started = time.perf_counter()

    def record(progress: object) -> None:
        if getattr(progress, "stage", "") == "denoise":
            steps.append(time.perf_counter() - started)

    for _ in WanEngine(settings, networks).generate(shot, count=len(shot), on_progress=record):
        pass
    writing = _seconds(WRITER.wait)
    networks.unload()
    return steps[0], writing


def _disk_rates(path: Path) -> Iterator[Row]:
    """Measure the disk with one thread and with several, on a file that the system does not hold."""
    from concurrent.futures import ThreadPoolExecutor

    from ex4d.weights.parallel_files import CHUNK_BYTES, THREADS

    size = path.stat().st_size

    def read(start: int) -> None:
        with open(path, "rb", buffering=0) as file:
            file.seek(start)
            file.read(CHUNK_BYTES)

    for threads in (1, THREADS):
        forget_files(path.parent)
        with ThreadPoolExecutor(threads) as pool:
            seconds = _seconds(lambda pool=pool: list(pool.map(read, range(0, size, CHUNK_BYTES))))
        yield Row(f"disk, {threads} threads", f"{size / seconds / 1e6:.0f} MB/s", "read, nothing else done")


def forget_files(folder: Path) -> None:
    """Have the system drop what it holds in memory of a folder's files, once they are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            try:
                os.fsync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)


def _seconds(work: Callable[[], object]) -> float:
    wait_for_gpu()
    started = time.perf_counter()
    work()
    wait_for_gpu()
    return time.perf_counter() - started


def _choice(
    case: Case, folder: Path, settings: WanSettings, loras: tuple[tuple[Path, float], ...] = ()
) -> NetworkChoice:
    files = find_wan_files(folder)
    return NetworkChoice(files, loras, str(case.device), settings.precision, settings.fp8_attention)


def _write_lora(folder: Path, case: Case) -> Path:
    """Write a LoRA for every layer that EX-4D's changes."""
    from safetensors.torch import save_file

    adapter = read_checkpoint(find_wan_files(folder).ex4d) if not case.on_gpu else published_layout("ex4d")
    layout = {key: value for key, value in adapter.items() if "lora_" in key}
    weights = random_weights(layout, 77, case.device)
    path = folder / "style.safetensors"
    save_file({key: (0.1 * value).bfloat16().cpu() for key, value in weights.items()}, path)
    return path
