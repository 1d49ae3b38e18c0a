"""Measures what several samples of each pixel, and silhouettes inside pixels, do for renders of exact depth.

Prints the tables of docs/measured/rendering.md: agreement with true views, crawl along a slow move, silhouettes of an
enlarged picture, and the cost. The committed scenes are always there; `--scenes` adds a folder of .npz files.

    python scripts/measure_samples.py [--scenes FOLDER] [--only street] [--samples 1 3]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from ex4d.mesh import DepthSurface  # noqa: E402
from ex4d.raster import Rasterizer, create_rasterizer  # noqa: E402
from ex4d.raster.speed import synthetic_camera, synthetic_surface  # noqa: E402
from ex4d_core.cameras import CameraPath  # noqa: E402
from ex4d_core.render_settings import MAX_SAMPLES  # noqa: E402
from true_scenes import Score, TrueScene, load_scenes, score  # noqa: E402

# A slow move: so many frames, of so many pixels each at the median depth; of a frame so many times as small.
MOVE_FRAMES, MOVE_PIXELS = 9, 0.25
CRAWL_FACTOR = 3
# Silhouettes, for their own figure: pixels this close to a step of depth in the larger image.
SILHOUETTE_PIXELS = 3
SILHOUETTE_STEP = 0.05


def view_scores(rasterizer: Rasterizer, scene: TrueScene, samples: int) -> dict[str, Score]:
    """Agreement with true views, the mean of those that enlarge nothing or shrink, and of those that zoom out."""
    groups: dict[str, list[Score]] = {"views": [], "zoom out": []}
    for view in scene.views:
        if view.visible.any():
            out = rasterizer.render(scene.surface([view.frame], "thickness"), view.camera, samples=samples)
            kind = "zoom out" if view.name.startswith("zoom_out") else "views"
            groups[kind].append(score(view, out.mask[0].numpy(), out.color[0].numpy()))
    return {kind: Score.mean(found) for kind, found in groups.items() if found}


@dataclass(frozen=True)
class Crawl:
    """How unsteadily colours change along a slow move, in 8-bit values: 0 where they change evenly.

    Attributes:
        render: mean absolute second difference over time.
        truth: the same of the true pictures; texture that moves changes unevenly, too.
        excess: of each pixel's mean over the move, what the render has more than the truth; mean over pixels.
    """

    render: float
    truth: float
    excess: float


def crawl(rasterizer: Rasterizer, scene: TrueScene, samples: int) -> Crawl:
    """How a shrunk frame crawls; the frame itself, which is that much finer, shows the truth of the same move."""
    middle = [len(scene.depth) // 2] * MOVE_FRAMES
    small, camera = _shrunk(scene, middle, CRAWL_FACTOR)
    poses, intrinsics = camera.world_to_camera.copy(), small.intrinsics.numpy()
    step = MOVE_PIXELS * float(np.median(scene.depth[middle[0]])) / intrinsics[0, 0, 0]
    poses[:, 0, 3] += step * np.arange(MOVE_FRAMES)
    camera = CameraPath(poses, intrinsics, *small.size)
    render = rasterizer.render(small, camera, samples=samples)
    truth = rasterizer.render(scene.surface(middle, "thickness"), camera, samples=MAX_SAMPLES)
    seen = (render.mask & truth.mask).numpy()
    seen = seen[:-2] & seen[1:-1] & seen[2:]
    of_render, of_truth = (
        np.ma.masked_array(np.abs(np.diff(frames.color.numpy().astype(np.float32), 2, axis=0)).mean(-1), ~seen).mean(0)
        for frames in (render, truth)
    )
    excess = np.maximum(of_render - of_truth, 0)
    return Crawl(*(float(values.mean()) for values in (of_render, of_truth, excess)))


def enlarged(
    rasterizer: Rasterizer, scene: TrueScene, factor: int, frames: Sequence[int], samples: int
) -> tuple[float, float]:
    """How well a frame that was shrunk becomes itself again: dB of all pixels, and of those beside silhouettes."""
    everywhere, beside = [], []
    for frame in frames:
        true, camera = scene.color[frame], scene.camera.at([frame])
        out = rasterizer.render(*_shrunk(scene, [frame], factor), samples=samples)
        height, width = out.mask.shape[1:]
        near = silhouettes(scene.depth[frame, :height, :width])
        squares = (out.color[0].numpy().astype(np.float64) - true[:height, :width]) ** 2
        everywhere.append(squares.mean())
        beside.append(squares[near].mean())
        assert camera.size[0] - width < factor
    return _decibels(everywhere), _decibels(beside)


def _shrunk(scene: TrueScene, frames: Sequence[int], factor: int) -> tuple[DepthSurface, CameraPath]:
    """Frames that are ``factor`` times as small, each pixel the mean of its part, and the camera that enlarges them."""
    frames = list(frames)
    camera = scene.camera.at(frames)
    width, height = (side // factor * factor for side in camera.size)
    color = torch.from_numpy(scene.color[frames, :height, :width]).permute(0, 3, 1, 2).float()
    color = F.avg_pool2d(color, factor).add_(0.5).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    depth = torch.from_numpy(scene.depth[frames, :height, :width])
    depth = depth[:, factor // 2 :: factor, factor // 2 :: factor].contiguous()
    small = camera.intrinsics.copy()
    small[:, :2] /= factor
    surface = DepthSurface(
        depth, color, torch.from_numpy(small), torch.from_numpy(camera.camera_to_world), occlusion="thickness"
    )
    return surface, CameraPath(camera.world_to_camera, camera.intrinsics, width, height)


def silhouettes(depth: np.ndarray) -> np.ndarray:
    """(H, W) bool, the pixels beside steps of depth."""
    disparity = 1 / depth
    step = np.zeros(depth.shape, bool)
    for axis in range(2):
        jump = np.abs(np.diff(np.log(disparity), axis=axis)) > SILHOUETTE_STEP
        step |= np.pad(jump, [(0, int(k == axis)) for k in range(2)])
    return ndimage.binary_dilation(step, np.ones((3, 3)), iterations=SILHOUETTE_PIXELS - 1)


def milliseconds(rasterizer: Rasterizer, width: int, height: int, samples: int, repeats: int = 3) -> float:
    """Processor time of a frame of the synthetic shot in the "thickness" model, the least of several runs."""
    surface, camera = synthetic_surface(4, width, height), synthetic_camera(4, width, height, 30)
    surface = replace(surface, occlusion="thickness")

    def run() -> float:
        start = time.process_time()
        rasterizer.render(surface, camera, with_depth=True, samples=samples)
        return 1e3 * (time.process_time() - start) / len(camera)

    run()
    return min(run() for _ in range(repeats))


def _decibels(squares: Sequence[float]) -> float:
    return float(10 * np.log10(255**2 / max(np.mean(squares), 1e-9)))


def _rows(rasterizer: Rasterizer, scene: TrueScene, counts: Sequence[int]) -> Iterator[str]:
    frames = range(0, len(scene.color), max(1, len(scene.color) // 4))
    for samples in counts:
        scores = view_scores(rasterizer, scene, samples)
        views, out = scores["views"], scores.get("zoom out")
        moved = crawl(rasterizer, scene, samples)
        double, triple = (enlarged(rasterizer, scene, factor, frames, samples) for factor in (2, 3))
        yield (
            f"| {scene.name} | {samples} x {samples} | {views.psnr:.2f} | {f'{out.psnr:.2f}' if out else ''} "
            f"| {views.agreement:.3f} | {moved.render:.2f}, {moved.truth:.2f} | {moved.excess:.3f} "
            f"| {double[0]:.2f}, {double[1]:.2f} | {triple[0]:.2f}, {triple[1]:.2f} |"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, help="a folder of further scenes")
    parser.add_argument("--only", default="", help="scenes whose name contains this")
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 2, 3], choices=range(1, MAX_SAMPLES + 1))
    options = parser.parse_args()
    rasterizer = create_rasterizer("warp", "auto")
    print("| scene | samples | PSNR seen | zoom out | mask IoU | crawl, truth's | excess | enlarged 2x | enlarged 3x |")
    print("|---|---|---|---|---|---|---|---|---|")
    for scene in load_scenes(options.scenes):
        if options.only in scene.name:
            for row in _rows(rasterizer, scene, options.samples):
                print(row, flush=True)
    print("\n| samples | 512x512 | 1280x720 |\n|---|---|---|")
    for samples in options.samples:
        times = [milliseconds(rasterizer, *size, samples) for size in ((512, 512), (1280, 720))]
        print(f"| {samples} x {samples} | {times[0]:.1f} ms | {times[1]:.1f} ms |", flush=True)


if __name__ == "__main__":
    main()
