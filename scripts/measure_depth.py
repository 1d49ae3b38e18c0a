"""Measures how errors of depth degrade views, and what edge refinement and temporal alignment recover.

Takes a clip's exact depth, adds graded errors such as estimators have, and compares masks and seen pixels of new
views with the true ones. Prints the tables of docs/measured/depth.md. The clips were rendered with Blender, by
`make_sample.py`, and are committed: `sample` (a camera that stands still) and `moving_camera`, both with moving objects
and thin structures.

    python scripts/measure_depth.py [--clip moving_camera] [--only blur] [--occlusion thickness]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from ex4d.depth.depth_files import DepthFiles  # noqa: E402
from ex4d.depth.depth_settings import EdgeSettings  # noqa: E402
from ex4d.depth.edges import refined_depth  # noqa: E402
from ex4d.depth.temporal_alignment import TemporalAligner, flicker  # noqa: E402
from ex4d.media import probe, read_frames  # noqa: E402
from ex4d.mesh import DepthSurface  # noqa: E402
from ex4d.raster import create_rasterizer  # noqa: E402
from ex4d_core.cameras import CameraPath  # noqa: E402
from ex4d_core.shot import OCCLUSION_MODELS, OcclusionModel  # noqa: E402
from true_scenes import COMMITTED, DATA, blurred, drifting, flickering, grown, noisy  # noqa: E402


@dataclass(frozen=True)
class Clip:
    """Frames (T, H, W, 3) uint8, exact depth (T, H, W), the source camera, true views of some of the frames."""

    color: np.ndarray
    depth: np.ndarray
    intrinsics: np.ndarray
    camera_to_world: np.ndarray
    views: dict[str, np.ndarray]
    occlusion: OcclusionModel


@dataclass(frozen=True)
class Score:
    """Agreement of masks (intersection over union), dB over pixels seen by both, and flicker in per cent."""

    agreement: float
    falsely_seen: float
    missed: float
    psnr: float
    flicker: float | None

    def __str__(self) -> str:
        flicker_text = "" if self.flicker is None else f"{100 * self.flicker:.2f} %"
        return (
            f"{self.agreement:.3f} | {100 * self.falsely_seen:.2f} % | {100 * self.missed:.1f} % | {self.psnr:.2f} dB "
            f"| {flicker_text}"
        )


def load_clip(name: str, occlusion: OcclusionModel) -> Clip:
    """One of `COMMITTED`, with its true views."""
    folder = DATA / name
    footage = probe(folder / "footage.mp4")
    with np.load(folder / "camera.npz") as camera, np.load(folder / "true_views.npz") as views:
        intrinsics, to_world, views = camera["intrinsics"][0], np.linalg.inv(camera["extrinsics"]), dict(views)
    color = np.stack(list(read_frames(footage.path)))
    depth = np.stack(list(DepthFiles(folder / "depth.npz").estimate(footage)))
    return Clip(color, depth, intrinsics, to_world, views, occlusion)


def score(clip: Clip, depth: np.ndarray, in_time: bool = True) -> Score:
    """Renders the true views' cameras from (T, H, W) depth and compares; `in_time` measures flicker, too."""
    rasterizer = create_rasterizer("warp", "cpu")
    views = clip.views
    inside = union = false = missed = pixels = 0
    errors = []
    for index, frame in enumerate(views["frames"].tolist()):
        surface = DepthSurface(
            torch.from_numpy(depth[frame][None]),
            torch.from_numpy(clip.color[frame][None]),
            torch.from_numpy(clip.intrinsics[None]),
            torch.from_numpy(clip.camera_to_world[frame][None]),
            occlusion=clip.occlusion,
        )
        truth = views["rgb"][index]
        camera = CameraPath(views["extrinsics"][index][None], views["intrinsics"][index], *truth.shape[1::-1])
        out = rasterizer.render(surface, camera)
        seen, visible = out.mask[0].numpy(), views["visible"][index]
        both = seen & visible
        errors.append((out.color[0].numpy()[both].astype(np.float64) - truth[both]).ravel() ** 2)
        inside, union = inside + both.sum(), union + (seen | visible).sum()
        false, missed, pixels = false + (seen & ~visible).sum(), missed + (visible & ~seen).sum(), pixels + seen.size
    ratio = 10 * np.log10(255**2 / np.concatenate(errors).mean())
    return Score(
        inside / union, false / pixels, missed / pixels, ratio, flicker(clip.color, depth) if in_time else None
    )


def aligned(clip: Clip, depth: np.ndarray) -> np.ndarray:
    """Depth (T, H, W) aligned over time."""
    aligner = TemporalAligner(with_offset=True)
    disparities = [1 / torch.from_numpy(z) for z in depth]
    for image, disparity in zip(clip.color, disparities, strict=True):
        aligner.observe(torch.from_numpy(image).permute(2, 0, 1).float() / 255, disparity)
    found = [1 / disparity.clamp_min(1e-3).numpy() for disparity in aligner.aligned(disparities)]
    return np.stack(found).astype(np.float32)


def refined(clip: Clip, depth: np.ndarray) -> np.ndarray:
    """Depth (T, H, W) refined along the edges of the frames that have true views."""
    needed = set(clip.views["frames"].tolist())
    settings = EdgeSettings()
    return np.stack(
        [
            refined_depth(torch.from_numpy(z), image, settings) if index in needed else z
            for index, (image, z) in enumerate(zip(clip.color, depth, strict=True))
        ]
    )


def unchanged(clip: Clip, depth: np.ndarray) -> np.ndarray:
    """Depth as it is."""
    return depth


AS_IT_IS = {"as it is": unchanged}
IN_SPACE = {**AS_IT_IS, "edges": refined}
IN_TIME = {**AS_IT_IS, "alignment": aligned}
BOTH = {**IN_SPACE, **IN_TIME, "alignment, edges": lambda clip, depth: refined(clip, aligned(clip, depth))}
ERRORS = {
    "none (exact depth)": (lambda depth: depth, BOTH),
    "blur of 1 px": (blurred(1), IN_SPACE),
    "blur of 2 px": (blurred(2), IN_SPACE),
    "blur of 4 px": (blurred(4), IN_SPACE),
    "near things 2 px too large": (grown(2), IN_SPACE),
    "noise of 1 %": (noisy(0.01), BOTH),
    "noise of 3 %": (noisy(0.03), BOTH),
    "drift of 5 %": (drifting(0.05), IN_TIME),
    "drift of 10 %": (drifting(0.1), IN_TIME),
    "flicker of 1 %": (flickering(0.01), IN_TIME),
    "flicker of 2 %": (flickering(0.02), IN_TIME),
    "flicker of 5 %": (flickering(0.05), IN_TIME),
    "blur of 2 px, flicker of 2 %": (lambda depth: flickering(0.02)(blurred(2)(depth)), BOTH),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", choices=COMMITTED, default="sample")
    parser.add_argument("--only", default="", help="errors whose name contains this")
    parser.add_argument("--step", default="", help="steps whose name contains this")
    parser.add_argument("--occlusion", choices=OCCLUSION_MODELS, default="watertight")
    options = parser.parse_args()
    clip = load_clip(options.clip, options.occlusion)
    print("| error | step | mask agreement | falsely seen | missed | PSNR seen | flicker |")
    print("|---|---|---|---|---|---|---|")
    for name, (spoil, steps) in ERRORS.items():
        if options.only in name:
            spoilt = spoil(clip.depth)
            for step, repair in ((step, repair) for step, repair in steps.items() if options.step in step):
                print(f"| {name} | {step} | {score(clip, repair(clip, spoilt), 'alignment' in steps)} |", flush=True)


if __name__ == "__main__":
    main()
