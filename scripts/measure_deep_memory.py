"""Measures the memory of long clips of 16-bit EXR: the table of docs/measured/high-bit-depth.md.

Makes clips of some lengths from a few frames of noise over ramps, whose files are hard links, so that the disk holds
little more than the scenes. Each is reconstructed and rendered by the command line, in processes of their own. Peaks
are of the memory that the system cannot take back (RssAnon and RssShmem of /proc), sampled every 20 ms, and, beside it,
of all that is resident, files that are mapped included.

    python scripts/measure_deep_memory.py [--frames 12 36] [--steps reconstruct render] [--size 3840x2160]
        [--folder /tmp]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import OpenEXR

ROOT = Path(__file__).resolve().parents[1]
# Files that are different; more would fill the disk, and change nothing.
_DISTINCT = 3
_SECONDS = 0.02
_STEPS = ("reconstruct", "render")
HEAD = "| frames | step | peak, not reclaimable | peak, resident | seconds |\n|---|---|---|---|---|"


def write_clip(folder: Path, frames: int, width: int, height: int) -> None:
    """EXR files of half floats, and of depth: a near square before a wall."""
    noise = np.random.default_rng(1)
    ramp = np.linspace(0.0, 4.0, width, dtype=np.float32)[None, :, None] * np.array([1.0, 0.7, 0.4], np.float32)
    depth = np.full((height, width), 4.0, np.float32)
    depth[height // 3 : height // 2, width // 3 : width // 2] = 1.5
    for name in ("plate", "depth"):
        (folder / name).mkdir(parents=True)
    for index in range(frames):
        plate, away = (folder / name / f"{name}.{index:04}.exr" for name in ("plate", "depth"))
        if index >= _DISTINCT:
            os.link(folder / "plate" / f"plate.{index % _DISTINCT:04}.exr", plate)
            os.link(folder / "depth" / "depth.0000.exr", away)
            continue
        color = ramp + noise.normal(0.0, 0.02, (height, width, 3)).astype(np.float32)
        channels = {"RGB": np.maximum(color, 0).astype(np.float16)}
        with OpenEXR.File({"compression": OpenEXR.DWAA_COMPRESSION}, channels) as file:
            file.write(str(plate))
        if index == 0:
            with OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"Z": depth}) as file:
                file.write(str(away))
        else:
            os.link(folder / "depth" / "depth.0000.exr", away)


def peaks_of(words: list[str]) -> tuple[float, float, float]:
    """Run a command of ex4d; GB that cannot be reclaimed and GB resident, at most, and seconds."""
    paths = os.pathsep.join([str(ROOT / "backend"), str(ROOT)])
    began, peaks = time.monotonic(), [0, 0]
    command = [sys.executable, "-m", "ex4d", *words]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            used = _resident(process.pid)
            peaks = [max(pair) for pair in zip(peaks, used, strict=True)]
            time.sleep(_SECONDS)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return peaks[0] / 1e9, peaks[1] / 1e9, time.monotonic() - began


def _resident(process: int) -> tuple[int, int]:
    """Bytes that cannot be reclaimed, and all that is resident."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "Rss" in name}
    kept = sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
    return 1024 * kept, 1024 * (kept + sizes.get("RssFile", 0))


def measure(folder: Path, frames: int, width: int, height: int, names: list[str]) -> None:
    """Print the rows of a clip, one for each of the named steps."""
    write_clip(folder, frames, width, height)
    source = [str(folder / "plate"), "--depth", str(folder / "depth"), "--bit-depth", "16"]
    camera = ["--preset", "orbit", "--amount", "6"]
    output = ["--format", "exr", "--compression", "dwaa", "--position", "--motion", "both"]
    steps = {
        "reconstruct": ["reconstruct", *source, "-o", str(folder / "scene")],
        "render": ["render", str(folder / "scene"), *camera, *output, "--device", "cpu", "-o", str(folder / "comp")],
    }
    for name in names:
        kept, resident, seconds = peaks_of(steps[name])
        print(f"| {frames} | {name} | {kept:.2f} GB | {resident:.2f} GB | {seconds:.0f} s |", flush=True)
    shutil.rmtree(folder)


def main() -> None:
    """Measure clips of each length, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[12, 36])
    parser.add_argument("--steps", nargs="+", choices=_STEPS, default=list(_STEPS), help="render needs reconstruct")
    parser.add_argument("--size", default="3840x2160")
    parser.add_argument("--folder", type=Path, default=None, help="where to put the clips")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    print(HEAD)
    with tempfile.TemporaryDirectory(prefix="ex4d-deep-memory-", dir=options.folder) as folder:
        for frames in options.frames:
            measure(Path(folder) / str(frames), frames, width, height, options.steps)


if __name__ == "__main__":
    main()
