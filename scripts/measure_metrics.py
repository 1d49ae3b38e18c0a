"""Measures whether the metrics of `ex4d evaluate` see what they should: known faults of a rendered clip, graded.

The clip is the committed sample seen from an orbit of 20 degrees, and the true view is its render. The results are that
render itself, and the same with more and more blur, noise, a colour cast, a camera that drifts away, frames in
another order, and one frame repeated. Metrics whose networks are not in the folder of models are left out of the table
(`ex4d models fetch evaluation`). Prints the table of docs/how-to/evaluate.md.

    python scripts/measure_metrics.py [--frames 16] [--models FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

import ex4d  # noqa: E402
from ex4d.evaluation import Evaluation, Method, evaluate  # noqa: E402
from ex4d.evaluation.protocols import Protocol  # noqa: E402
from ex4d.evaluation.report_files import column_names, heading, number  # noqa: E402
from ex4d.machine import MachineSettings  # noqa: E402
from ex4d.media import VideoWriter  # noqa: E402
from ex4d_core.cameras import CameraPath  # noqa: E402
from ex4d_core.scene import Scene  # noqa: E402
from true_scenes import DATA  # noqa: E402

_SIDE, _DEGREES, _CLIP = 256, 20.0, "clip"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=16, help="of the clip (default: 16)")
    parser.add_argument("--models", type=Path, help="folder of models; default: as ex4d evaluate")
    options = parser.parse_args(arguments)
    machine = MachineSettings.from_environment()
    if options.models:
        machine = replace(machine, models=options.models)
    with tempfile.TemporaryDirectory(prefix="ex4d-metrics-") as place:
        for line in table(measured(Path(place), options.frames, machine)):
            print(line)


def measured(place: Path, frames: int, machine: MachineSettings) -> Evaluation:
    """The evaluation of all faults, with everything in a folder."""
    sample, clip = DATA / "sample", place / "data" / _CLIP
    clip.mkdir(parents=True)
    for name, source in (("source.mp4", "footage.mp4"), ("depth.npz", "depth.npz")):
        (clip / name).write_bytes((sample / source).read_bytes())
    scene = ex4d.reconstruct(clip / "source.mp4", place / "scene", depth=clip / "depth.npz", fov=50, frames=frames)
    views = ex4d.render(scene, ex4d.orbit(_DEGREES), size=(_SIDE, _SIDE), frames=frames)
    views.camera.save(clip / "camera.npz")
    _write(clip / "truth.mp4", views.color)
    methods = []
    for name, color in _faults(views.color, views.camera, scene):
        _write(place / "results" / name / f"{_CLIP}.mp4", color)
        methods.append(Method(name, place / "results" / name))
    protocol = replace(Protocol.load("with-truth"), frames=frames)
    return evaluate(place / "data", methods, protocol, place / "work", machine=machine)


def table(evaluation: Evaluation) -> Iterator[str]:
    """Its lines: a fault a row, a metric a column."""
    names = [name for name in column_names(evaluation) if "/" not in name]
    yield "| | " + " | ".join(map(heading, names)) + " |"
    yield "|---|" + "---|" * len(names)
    for row in evaluation.table:
        cells = (number(row.figures[name].value) if name in row.figures else "–" for name in names)
        yield f"| {row.method} | " + " | ".join(cells) + " |"


def _faults(color: np.ndarray, camera: CameraPath, scene: Scene) -> Iterator[tuple[str, np.ndarray]]:
    """Names, and (T, H, W, 3) uint8 frames with that fault."""
    yield "the true view", color
    for side in (3, 7, 15):
        yield f"blur of {side} pixels", _blurred(color, side)
    for strength in (5, 15, 45):
        noise = np.random.default_rng(0).normal(0, strength, color.shape)
        yield f"noise of {strength}", np.clip(color + noise, 0, 255).astype(np.uint8)
    for amount in (5, 15, 45):
        yield f"cast of {amount}", np.clip(color + np.array([amount, 0, -amount]), 0, 255).astype(np.uint8)
    for degrees in (1, 3, 10):
        drifted = _drifted(camera, degrees)
        yield f"camera off by {degrees} degrees", ex4d.render(scene, drifted, frames=len(color)).color
    yield "frames shuffled", color[np.random.default_rng(0).permutation(len(color))]
    yield "frozen", np.repeat(color[:1], len(color), axis=0)


def _blurred(color: np.ndarray, side: int) -> np.ndarray:
    images = torch.from_numpy(color).permute(0, 3, 1, 2).float()
    around = F.pad(images, (side // 2,) * 4, mode="replicate")
    return F.avg_pool2d(around, side, stride=1).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _drifted(camera: CameraPath, degrees: float) -> CameraPath:
    """The path with a turn about the optical axis that grows to so many degrees."""
    angle = np.radians(np.linspace(0, degrees, len(camera)))
    turn = np.repeat(np.eye(4)[None], len(camera), axis=0)
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 0, 1], turn[:, 1, 0] = -np.sin(angle), np.sin(angle)
    return replace(camera, world_to_camera=turn @ camera.world_to_camera)


def _write(path: Path, frames: Iterable[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, _SIDE, _SIDE, Fraction(24)) as writer:
        for frame in frames:
            writer.write(np.ascontiguousarray(frame))


if __name__ == "__main__":
    main()
