"""Measures how errors of depth degrade views, and what the clean-up of estimated depth recovers.

Takes scenes with exact depth, adds graded errors such as estimators have, and compares masks and seen pixels of new
views with the true ones, before and after the steps that estimated depth goes through: alignment over time, the noise
filter, the refinement of edges. Prints the tables of docs/measured/depth.md, of the committed scenes and of those in a
folder (see `true_scenes.load_scene`); figures are means over the views in which anything is seen.

    python scripts/measure_depth.py [--scenes FOLDER] [--scene street] [--only blur] [--occlusion watertight]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from ex4d.depth.depth_settings import EdgeSettings  # noqa: E402
from ex4d.depth.edges import refined_depth  # noqa: E402
from ex4d.depth.noise import depth_without_noise  # noqa: E402
from ex4d.depth.temporal_alignment import TemporalAligner  # noqa: E402
from ex4d.raster import create_rasterizer  # noqa: E402
from ex4d_core.render_settings import OCCLUSION_MODELS, OcclusionModel  # noqa: E402
from true_scenes import (  # noqa: E402
    DepthError,
    Score,
    TrueScene,
    blurred,
    drifting,
    flickering,
    grown,
    load_scenes,
    noisy,
    score,
)

# Depth (T, H, W) of a scene to cleaner depth; only frames with views need to be right.
Step = Callable[[TrueScene, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Row:
    """An error, and the steps whose gain is shown.

    Attributes:
        name: of the error.
        error: adds it.
        steps: names, as in `STEPS`; the depth as it is comes first in any case.
    """

    name: str
    error: DepthError
    steps: tuple[str, ...]


def aligned(scene: TrueScene, depth: np.ndarray) -> np.ndarray:
    """Aligned over time, in scale and offset."""
    aligner = TemporalAligner(with_offset=True)
    disparities = [1 / torch.from_numpy(z) for z in depth]
    for image, disparity in zip(scene.color, disparities, strict=True):
        aligner.observe(torch.from_numpy(image).permute(2, 0, 1).float() / 255, disparity)
    found = [1 / disparity.clamp_min(1e-3).numpy() for disparity in aligner.aligned(disparities)]
    return np.stack(found).astype(np.float32)


def smoothed(scene: TrueScene, depth: np.ndarray) -> np.ndarray:
    """Without noise, in the frames that have views."""
    return _in_viewed_frames(scene, depth, lambda z, image: depth_without_noise(z))


def refined(scene: TrueScene, depth: np.ndarray) -> np.ndarray:
    """Refined along edges, in the frames that have views."""
    return _in_viewed_frames(scene, depth, lambda z, image: refined_depth(torch.from_numpy(z), image, EdgeSettings()))


def _in_viewed_frames(
    scene: TrueScene, depth: np.ndarray, change: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    changed, viewed = depth.copy(), sorted({view.frame for view in scene.views})
    start = time.perf_counter()
    for frame in viewed:
        changed[frame] = change(depth[frame], scene.color[frame])
    print(f"  {(time.perf_counter() - start) / len(viewed):.3f} s a frame", file=sys.stderr)
    return changed


STEPS: dict[str, tuple[Step, ...]] = {
    "alignment": (aligned,),
    "noise filter": (smoothed,),
    "edges": (refined,),
    "noise filter, edges": (smoothed, refined),
    "all": (aligned, smoothed, refined),
}
ROWS = (
    Row("none (exact depth)", lambda depth: depth, ("alignment", "noise filter", "edges", "all")),
    Row("blur of 1 px", blurred(1), ("edges",)),
    Row("blur of 2 px", blurred(2), ("edges",)),
    Row("blur of 4 px", blurred(4), ("edges",)),
    Row("near things 2 px too large", grown(2), ("edges",)),
    Row("noise of 1 %", noisy(0.01), ("noise filter", "noise filter, edges")),
    Row("noise of 3 %", noisy(0.03), ("noise filter", "noise filter, edges")),
    Row("blur of 2 px, noise of 1 %", lambda depth: noisy(0.01)(blurred(2)(depth)), ("noise filter, edges",)),
    Row("drift of 5 %", drifting(0.05), ("alignment",)),
    Row("flicker of 2 %", flickering(0.02), ("alignment",)),
    Row("flicker of 5 %", flickering(0.05), ("alignment",)),
    Row("blur of 2 px, flicker of 2 %", lambda depth: flickering(0.02)(blurred(2)(depth)), ("all",)),
)


def measured(scene: TrueScene, depth: np.ndarray, occlusion: OcclusionModel) -> Score:
    """Renders the true views' cameras from depth (T, H, W), and compares."""
    rasterizer = create_rasterizer("warp", "cpu")
    scores = []
    for view in scene.views:
        if view.visible.any():
            out = rasterizer.render(scene.surface([view.frame], occlusion, depth), view.camera)
            scores.append(score(view, out.mask[0].numpy(), out.color[0].numpy()))
    return Score.mean(scores)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, metavar="FOLDER", help="further scenes, .npz files")
    parser.add_argument("--scene", default="", help="scenes whose name contains this")
    parser.add_argument("--only", default="", help="errors whose name contains this")
    parser.add_argument("--occlusion", choices=OCCLUSION_MODELS, default="thickness")
    options = parser.parse_args()
    for scene in (one for one in load_scenes(options.scenes) if options.scene in one.name):
        print(f"\n### {scene.name}\n")
        print("| error | clean-up | falsely seen | missed | mask agreement | PSNR seen | specks a megapixel |")
        print("|---|---|---|---|---|---|---|")
        for row in (row for row in ROWS if options.only in row.name):
            spoilt = row.error(scene.depth)
            print(f"| {row.name} | none | {measured(scene, spoilt, options.occlusion)} |", flush=True)
            for name in row.steps:
                depth = spoilt
                for step in STEPS[name]:
                    depth = step(scene, depth)
                print(f"| {row.name} | {name} | {measured(scene, depth, options.occlusion)} |", flush=True)


if __name__ == "__main__":
    main()
