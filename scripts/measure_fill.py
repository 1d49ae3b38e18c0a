"""Measures how true the preview's fill of unseen regions is: PSNR and SSIM over the holes of true new views.

Renders each true view with the `thickness` model, fills its holes, and compares them with what is really there. Prints
the table of docs/measured/rendering.md.

    python scripts/measure_fill.py [--scenes FOLDER] [--pictures FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.metrics import structural_similarity

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from ex4d.generation.preview import HoleFiller  # noqa: E402
from ex4d.media import write_png  # noqa: E402
from ex4d.pipeline.render import source_centres  # noqa: E402
from ex4d.raster import create_rasterizer  # noqa: E402
from true_scenes import TrueScene, load_scenes  # noqa: E402


@dataclass(frozen=True)
class HoleScore:
    """Of one view's holes: their share of the picture, decibels, structural similarity, and seconds of the fill."""

    share: float
    psnr: float
    ssim: float
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, help="folder of further scenes, .npz files")
    parser.add_argument("--pictures", type=Path, help="folder for each view: what is true, seen and filled")
    options = parser.parse_args(arguments)
    print("| scene | holes | PSNR | SSIM | ms a frame |")
    print("|---|---|---|---|---|")
    for scene in load_scenes(options.scenes):
        scores = score_scene(scene, options.pictures)
        share, psnr, ssim, seconds = np.mean([(one.share, one.psnr, one.ssim, one.seconds) for one in scores], axis=0)
        print(f"| {scene.name} | {share:.1%} | {psnr:.2f} dB | {ssim:.3f} | {1000 * seconds:.1f} |", flush=True)


def score_scene(scene: TrueScene, pictures: Path | None) -> list[HoleScore]:
    """Of each view that has holes."""
    rasterizer, scores = create_rasterizer("warp", "cpu"), []
    for index, view in enumerate(scene.views):
        surface = scene.surface([view.frame], "thickness")
        out, (centre,) = rasterizer.render(surface, view.camera, with_depth=True), source_centres(view.camera, surface)
        assert out.depth is not None
        hole = ~out.mask[0].numpy()
        began = time.perf_counter()
        filling = HoleFiller().fill(out.color[0], out.mask[0], out.depth[0], centre).numpy()
        seconds = time.perf_counter() - began
        image = np.where(hole[..., None], filling, out.color[0].numpy())
        if hole.any():
            error = image[hole].astype(np.float64) - view.color[hole]
            _, similarity = structural_similarity(view.color, image, channel_axis=2, full=True)
            psnr = 10 * np.log10(255**2 / max(np.mean(error**2), 1e-9))
            scores.append(HoleScore(hole.mean(), psnr, similarity[hole].mean(), seconds))
        if pictures:
            seen = np.where(hole[..., None], 0, out.color[0].numpy()).astype(np.uint8)
            name = f"{scene.name}_{index:02d}_{view.name.replace(' ', '_')}.png"
            write_png(pictures / name, np.concatenate([view.color, seen, image], axis=1))
    return scores


if __name__ == "__main__":
    main()
