"""Compares the processor time of reconstruct, render and preview of the sample in several checkouts.

"draw" is the rasterizer alone, with nine samples of each pixel and without cleaning.

Each checkout is measured in processes of its own, which alternate, on one core; a figure is the least of all rounds,
since other work on the machine only adds. The first checkout is what the others are compared with. Prints the table of
docs/measured/high-bit-depth.md.

    python scripts/measure_checkouts.py BEFORE NOW [--turns 12] [--rounds 6]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Frames of the sample that are reconstructed, and from which on how many are rendered.
_FRAMES, _FIRST, _RENDERED = 6, 3, 2
_STEPS = ("reconstruct", "draw", "render", "preview")
_DRAWN_SIZE, _SAMPLES = (384, 384), 3


def measure_here(rounds: int) -> dict[str, float]:
    """Seconds of a processor for each step, in the checkout that is on the path; of the first round nothing counts."""
    import torch

    from ex4d.pipeline.outputs import render_movies
    from ex4d.pipeline.reconstruct import reconstruct
    from ex4d.pipeline.source_paths import SourcePaths
    from ex4d.pipeline.surfaces import measured, scene_surface
    from ex4d.pipeline.take_folder import take_into_folder
    from ex4d.raster import create_rasterizer
    from ex4d_core.cameras import CameraPath
    from ex4d_core.reconstruction import ReconstructionSettings
    from ex4d_core.render_settings import RenderSettings
    from ex4d_core.scene import Scene
    from ex4d_core.shot import ShotRequest
    from ex4d_core.sources import DepthSettings

    torch.set_num_threads(1)
    sample = Path(__file__).resolve().parents[1] / "tests" / "data" / "sample"
    sources = SourcePaths(sample / "footage.mp4", sample / "depth.npz")
    settings, render = ReconstructionSettings("sample", DepthSettings("array")), RenderSettings(occlusion="thickness")
    least: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.process_time()
        work()
        least[name] = min(least.get(name, float("inf")), time.process_time() - began)

    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory(prefix="ex4d-checkouts-") as name:
            folder = Path(name)
            timed("reconstruct", lambda to=folder: reconstruct(sources, settings, to / "scene", frames=_FRAMES))
            scene = Scene.open(folder / "scene")
            camera = scene.source_camera().frames(_FIRST, _FIRST + _RENDERED)
            poses = camera.world_to_camera.copy()
            poses[:, 0, 3] -= 0.3
            camera = CameraPath(poses, camera.intrinsics, *camera.size)
            drawn = RenderSettings(occlusion="thickness", samples=_SAMPLES, clean=False)
            rasterizer = create_rasterizer("warp", "cpu", drawn.licence, None)
            shown = range(_FIRST, _FIRST + _RENDERED)
            surface = measured(scene_surface(scene, scene.source_camera(), drawn, shown), rasterizer.device)
            small = camera.resized(*_DRAWN_SIZE)
            timed(
                "draw",
                lambda of=(surface, small), by=rasterizer: by.render(*of, with_depth=True, samples=_SAMPLES),
            )
            how = {"first_frame": _FIRST, "device": "cpu"}
            timed(
                "render", lambda to=folder, at=(scene, camera), how=how: render_movies(*at, render, to, "view", **how)
            )
            shot = ShotRequest(scene.digest, camera, first_frame=_FIRST, render=render)
            timed("preview", lambda to=folder, of=(scene, shot): take_into_folder(*of, to / "take", device="cpu"))
        if number == 0:
            least.clear()
    return least


def measure_there(checkout: Path, rounds: int) -> dict[str, float]:
    """The same, in another process and another checkout."""
    paths = os.pathsep.join([str(checkout / "backend"), str(checkout)])
    command = [sys.executable, str(Path(__file__).resolve()), "--here", "--rounds", str(rounds)]
    taskset = shutil.which("taskset")
    pinned = [taskset, "-c", str(max(os.sched_getaffinity(0))), *command] if taskset else command
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(pinned, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Alternate the checkouts, and print the least times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="*")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here(options.rounds)))
        return
    least: dict[tuple[Path, str], float] = {}
    for turn in range(options.turns):
        for checkout in options.checkouts if turn % 2 == 0 else options.checkouts[::-1]:
            for step, seconds in measure_there(checkout, options.rounds).items():
                least[checkout, step] = min(least.get((checkout, step), float("inf")), seconds)
        print(f"turn {turn + 1}", *_row(options.checkouts, least), file=sys.stderr, flush=True)
    print("| step | " + " | ".join(str(checkout) for checkout in options.checkouts) + " |")
    print("|---|" + "---|" * len(options.checkouts))
    for step in _STEPS:
        first = least[options.checkouts[0], step]
        cells = (f"{least[one, step]:.3f} s ({least[one, step] / first:.3f})" for one in options.checkouts)
        print(f"| {step} | " + " | ".join(cells) + " |")


def _row(checkouts: list[Path], least: dict[tuple[Path, str], float]) -> list[str]:
    """Ratios so far, for whoever waits."""
    return [
        f"{step} " + " ".join(f"{least[one, step] / least[checkouts[0], step]:.3f}" for one in checkouts[1:])
        for step in _STEPS
    ]


if __name__ == "__main__":
    main()
