"""Measures what the clip's memory fills of true views, and how well: the table of docs/measured/rendering.md.

Draws the views of scenes with known depth as the preview engine does, without and with memory, on exact depth, and
on depth as networks estimate it and this project repairs it (2 pixels of blur and 2 % of flicker, then alignment and
edges).

    python scripts/measure_memory.py [--scenes FOLDER] [--only room_move] [--views 4]
"""

from __future__ import annotations

import argparse
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from ex4d.depth.depth_settings import EdgeSettings  # noqa: E402
from ex4d.depth.edges import refined_depth  # noqa: E402
from ex4d.depth.temporal_alignment import TemporalAligner  # noqa: E402
from ex4d.generation.preview import HoleFiller  # noqa: E402
from ex4d.pipeline.clip_memory import ClipMemory  # noqa: E402
from ex4d.pipeline.render import source_centres  # noqa: E402
from ex4d_core.cameras import CameraPath  # noqa: E402
from ex4d_core.pivots import middle_distance  # noqa: E402
from ex4d_core.scene_manifest import SceneManifest  # noqa: E402
from ex4d_core.shot import RenderSettings  # noqa: E402
from ex4d_core.trajectories import subject_distance  # noqa: E402
from true_scenes import TrueScene, TrueView, blurred, flickering, load_scenes  # noqa: E402

HEAD = (
    "| scene | depth | holes | filled | rightly | remembered | filled smoothly there | whole picture without | with "
    "| drawn in | with memory |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


class KnownClip:
    """A true scene with another depth, as `ex4d_core.scene.PlacedFootage`."""

    def __init__(self, scene: TrueScene, depth: np.ndarray) -> None:
        self._scene, self._depth = scene, depth
        frames, height, width = depth.shape
        limits = float(depth.min()), float(depth.max())
        nearest, middle = subject_distance(depth[0]), middle_distance(depth[0])
        self.manifest = SceneManifest(
            *(scene.name, frames, width, height, Fraction(24), "centered", limits, nearest), middle_distance=middle
        )

    def color(self) -> np.ndarray:
        """(T, H, W, 3) uint8 sRGB."""
        return self._scene.color

    def depth(self) -> np.ndarray:
        """(T, H, W) float32 along z, scene units."""
        return self._depth

    def source_camera(self) -> CameraPath:
        """The camera that filmed it."""
        return self._scene.camera


def estimated(scene: TrueScene) -> np.ndarray:
    """Depth (T, H, W) with the errors of a network, repaired as `ex4d reconstruct` does."""
    disparities = [1 / torch.from_numpy(depth) for depth in flickering(0.02)(blurred(2)(scene.depth))]
    aligner = TemporalAligner(with_offset=True)
    for image, disparity in zip(scene.color, disparities, strict=True):
        aligner.observe(torch.from_numpy(image).permute(2, 0, 1).float() / 255, disparity)
    repaired = [
        refined_depth(1 / disparity.clamp_min(1e-3), image, EdgeSettings())
        for image, disparity in zip(scene.color, aligner.aligned(disparities), strict=True)
    ]
    return np.stack([np.asarray(depth, np.float32) for depth in repaired])


def measured(memory: ClipMemory, scene: TrueScene, view: TrueView) -> list[float]:
    """The figures of a row of the table, of one view."""
    (centre,) = source_centres(view.camera, scene.surface([view.frame], "thickness"))
    start = time.perf_counter()
    plain = memory.render(view.camera, [view.frame], recalls=False)
    middle = time.perf_counter()
    known = memory.render(view.camera, [view.frame])
    end = time.perf_counter()
    assert plain.depth is not None and known.depth is not None and known.remembered is not None, "as asked for"
    filled, hole = known.remembered[0].numpy(), ~plain.mask[0].numpy()
    smooth = HoleFiller().fill(plain.color[0], plain.mask[0], plain.depth[0], centre)
    rest = HoleFiller().fill(known.color[0], known.mask[0] | known.remembered[0], known.depth[0], centre)
    before = torch.where(plain.mask[0, ..., None], plain.color[0], smooth).numpy()
    after = torch.where((known.mask | known.remembered)[0, ..., None], known.color[0], rest).numpy()
    rightly = np.nan
    if view.elsewhere is not None and filled.any():
        rightly = (view.elsewhere | view.visible)[filled].mean()
    return [
        hole.mean(),
        filled.sum() / max(hole.sum(), 1),
        rightly,
        psnr(after[filled], view.color[filled]),
        psnr(smooth.numpy()[filled], view.color[filled]),
        psnr(before, view.color),
        psnr(after, view.color),
        1000 * (middle - start),
        1000 * (end - middle),
    ]


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Decibels; not a number of no pixels."""
    if not image.size:
        return np.nan
    return float(10 * np.log10(255**2 / max(np.mean((image.astype(np.float64) - truth) ** 2), 1e-9)))


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, help="a folder of further scenes, .npz")
    parser.add_argument("--only", help="name of a scene")
    parser.add_argument("--views", type=int, default=0, help="the first views of each scene; 0: all")
    options = parser.parse_args()
    print(HEAD)
    for scene in load_scenes(options.scenes):
        if options.only not in (None, scene.name):
            continue
        # Views in which nothing was seen have nothing to compare.
        views = [view for view in scene.views if view.visible.any()][: options.views or None]
        for name, depth in (("exact", scene.depth), ("estimated", estimated(scene))):
            memory = ClipMemory(KnownClip(scene, depth), RenderSettings(), device="cpu", note=print)
            memory.render(views[0].camera, [views[0].frame])  # so that key frames are ready when time is taken
            hole, filled, right, *decibels, drawn, remembered = np.nanmean(
                [measured(memory, scene, view) for view in views], axis=0
            )
            shares = " | ".join("" if np.isnan(share) else f"{100 * share:.1f} %" for share in (hole, filled, right))
            levels = " | ".join(f"{level:.2f} dB" for level in decibels)
            print(f"| {scene.name} | {name} | {shares} | {levels} | {drawn:.0f} ms | {remembered:.0f} ms |", flush=True)


if __name__ == "__main__":
    main()
