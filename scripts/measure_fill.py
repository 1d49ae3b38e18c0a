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
from dataclasses import dataclass, field
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
    """Of the holes of one view, or of those among them that something hid: the others lie outside the footage.

    Attributes:
        share: of the picture.
        psnr: decibels.
        ssim: structural similarity.
    """

    share: float
    psnr: float
    ssim: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, help="folder of further scenes, .npz files")
    parser.add_argument("--pictures", type=Path, help="folder for each view: what is true, seen and filled")
    options = parser.parse_args(arguments)
    print("| scene | holes | PSNR | SSIM | hidden by something | PSNR | SSIM | ms a frame |")
    print("|---|---|---|---|---|---|---|---|")
    for scene in load_scenes(options.scenes):
        scored = score_scene(scene, options.pictures)
        figures = " | ".join(_mean(scores) for scores in (scored.holes, scored.hidden))
        print(f"| {scene.name} | {figures} | {1000 * np.median(scored.seconds):.1f} |", flush=True)


@dataclass
class SceneScores:
    """Of each view of a scene, and how long its fill took."""

    holes: list[HoleScore] = field(default_factory=list)
    hidden: list[HoleScore] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def score_scene(scene: TrueScene, pictures: Path | None) -> SceneScores:
    """Fill the holes of each true view, and compare."""
    rasterizer, scored = create_rasterizer("warp", "cpu"), SceneScores()
    for index, view in enumerate(scene.views):
        surface = scene.surface([view.frame], "thickness")
        out, (centre,) = rasterizer.render(surface, view.camera, with_depth=True), source_centres(view.camera, surface)
        assert out.depth is not None
        seen, color, hidden = out.mask[0].numpy(), out.color[0].numpy(), np.isfinite(out.depth[0].numpy())
        began = time.perf_counter()
        filling = HoleFiller().fill(out.color[0], out.mask[0], out.depth[0], centre).numpy()
        scored.seconds.append(time.perf_counter() - began)
        image = np.where(seen[..., None], color, filling)
        _, similarity = structural_similarity(view.color, image, channel_axis=2, full=True)
        for scores, where in ((scored.holes, ~seen), (scored.hidden, ~seen & hidden)):
            if where.any():
                error = image[where].astype(np.float64) - view.color[where]
                psnr = 10 * np.log10(255**2 / max(np.mean(error**2), 1e-9))
                scores.append(HoleScore(where.mean(), psnr, similarity[where].mean()))
        if pictures:
            name = f"{scene.name}_{index:02d}_{view.name.replace(' ', '_')}.png"
            write_png(pictures / name, np.concatenate([view.color, color, image], axis=1))
    return scored


def _mean(scores: Sequence[HoleScore]) -> str:
    share, psnr, ssim = np.mean([(one.share, one.psnr, one.ssim) for one in scores], axis=0)
    return f"{share:.1%} | {psnr:.2f} dB | {ssim:.3f}"


if __name__ == "__main__":
    main()
