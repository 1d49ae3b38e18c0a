"""Measures the memory and the time of `ex4d evaluate` by the number of clips.

Every clip is the committed sample with other colours, so that nothing is known of it from the clip before; its true
view is the footage, its result the same with noise. Prints a line for each number of clips: peak of memory that cannot
be reclaimed, and time. Needs no network. The recovered camera, which takes most of the time, is left out by default.

    python scripts/measure_many_clips.py [--clips 5 20 50] [--frames 49] [--camera]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from ex4d.media import VideoWriter, read_frames  # noqa: E402
from ex4d_core.cameras import CameraPath  # noqa: E402
from measure_deep_memory import peaks_of  # noqa: E402
from true_scenes import DATA  # noqa: E402

METRICS = ("psnr", "ssim", "temporal_error", "seen_psnr")
CAMERA = ("camera_rotation", "camera_translation", "camera_matrix")
SAMPLE = DATA / "sample"
_NOISE, _FIELD_OF_VIEW = 8, 50.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[5, 20, 50], help="how many (default: 5 20 50)")
    parser.add_argument("--frames", type=int, default=49, help="of each clip (default: 49)")
    parser.add_argument("--camera", action="store_true", help="also recover each result's camera")
    options = parser.parse_args()
    metrics = METRICS + (CAMERA if options.camera else ())
    print("| clips | peak, not reclaimable | seconds | a clip |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="ex4d-clips-") as name:
        place = Path(name)
        protocol = place / "many.toml"
        names = ", ".join(f'"{one}"' for one in metrics)
        sizes = f"frames = {options.frames}\nsize = []\nseeds = [0]"
        protocol.write_text(f'title = "Many clips"\n{sizes}\nmetrics = [{names}]\nreference = "truth"\n')
        frames = np.stack(list(read_frames(SAMPLE / "footage.mp4", count=options.frames)))
        data, results, written = place / "data", place / "results", 0
        for count in sorted(options.clips):
            for number in range(written, count):
                write_clip(data, results, number, frames)
            written = count
            words = ["evaluate", str(data), "--results", f"noisy={results}", "--protocol", str(protocol)]
            kept, _, seconds = peaks_of([*words, "--out", str(place / f"report-{count}"), "--quiet"])
            print(f"| {count} | {kept:.2f} GB | {seconds:.0f} | {seconds / count:.1f} |", flush=True)


def write_clip(data: Path, results: Path, number: int, frames: np.ndarray) -> None:
    """Write a clip in the layout of plain folders, and its result."""
    name = f"clip-{number:03d}"
    clip = data / name
    clip.mkdir(parents=True)
    results.mkdir(exist_ok=True)
    shifted = np.roll(frames, number, axis=-1) // (1 + number // 3 % 2)
    shifted[..., 0, :, :] = number  # a row that no two clips share
    noise = np.random.default_rng(number).integers(-_NOISE, _NOISE + 1, shifted.shape, dtype=np.int16)
    for kind in ("source", "truth"):
        _write(clip / f"{kind}.mp4", shifted)
    with np.load(SAMPLE / "depth.npz") as stored:
        kept = {name: values[: len(frames)] if values.ndim == 3 else values for name, values in stored.items()}
    np.savez(clip / "depth.npz", **kept)
    height, width = frames.shape[1:3]
    focal = width / 2 / np.tan(np.radians(_FIELD_OF_VIEW) / 2)
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    still = CameraPath(np.repeat(np.eye(4)[None], len(frames), axis=0), intrinsics, width, height)
    still.save(clip / "camera.npz")
    _write(results / f"{name}.mp4", np.clip(shifted + noise, 0, 255).astype(np.uint8))


def _write(path: Path, frames: np.ndarray) -> None:
    with VideoWriter(path, frames.shape[2], frames.shape[1], Fraction(24)) as writer:
        for frame in frames:
            writer.write(np.ascontiguousarray(frame))


if __name__ == "__main__":
    main()
