"""Benchmarks `ex4d batch`: the processor time of twenty shots in one command, and in two commands each."""

from __future__ import annotations

import resource
import subprocess
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from bench import bench_environment
from bench.measuring import Row
from ex4d.media import VideoWriter
from ex4d.raster.speed import synthetic_frame
from ex4d.subprocesses import module_command

SHOTS, FRAMES, SIDE = 20, 8, 128


def measure_batch() -> Iterator[Row]:
    """Measure shots of 8 frames of 128x128, each with footage of its own."""
    what = f"of processor time, {SHOTS} shots of {FRAMES} frames of {SIDE}x{SIDE}, footage of their own"
    with tempfile.TemporaryDirectory(prefix="ex4d-bench-") as name:
        folder = Path(name)
        _write_footage(folder)
        one = _seconds("batch", "shots.toml", folder=folder)
        yield Row("one command", f"{one:.1f} s", what)
        yield Row("the same again, all is done", f"{_seconds('batch', 'shots.toml', folder=folder):.1f} s")
        many = 0.0
        for index in range(SHOTS):
            clip, scene, take = f"{index}.mp4", f"scene{index}", f"take{index}"
            many += _seconds("reconstruct", clip, "--depth", "depth.npz", "-o", scene, folder=folder)
            many += _seconds("generate", scene, "--preset", "orbit", "-o", take, folder=folder)
        yield Row(
            f"{2 * SHOTS} commands", f"{many:.1f} s", f"{many / one:.1f} x; reconstruct and generate for each shot"
        )


def _write_footage(folder: Path) -> None:
    frames = [synthetic_frame(index, SIDE, SIDE) for index in range(FRAMES)]
    np.savez(folder / "depth.npz", depth=np.stack([depth for _, depth in frames]))
    rows = ['[defaults]\ndepth = "depth.npz"\npreset = "orbit"']
    for index in range(SHOTS):
        with VideoWriter(folder / f"{index}.mp4", SIDE, SIDE, Fraction(24)) as movie:
            for color, _ in frames:
                movie.write(color)
        rows.append(f'[[shot]]\nname = "shot{index}"\nfootage = "{index}.mp4"')
    (folder / "shots.toml").write_text("\n".join(rows), encoding="utf-8")


def _seconds(*words: str, folder: Path) -> float:
    """User and system time of a command and of the processes that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = module_command("ex4d", *words, "-q")
    subprocess.run(command, cwd=folder, env=bench_environment(), check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
