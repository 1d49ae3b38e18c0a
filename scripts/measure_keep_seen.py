"""Measures what keeping the footage's own pixels over finals brings where it was seen: sharpness and PSNR.

In the place of the generator's picture stands what a perfect generator would make of its input: the render, with the
truth where nothing was seen, made smaller to a working size and enlarged again; once as it is and once with its colours
off. Of the pixels that the render calls seen it tells how much of the truth's detail they have, and their PSNR, before
and after the footage is laid over. Prints the table of docs/measured/finals.md.

    python scripts/measure_keep_seen.py [--scenes FOLDER] [--only NAME...] [--pictures FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from ex4d.generation.wan.conditioning import WorkingSize  # noqa: E402
from ex4d.media import write_png  # noqa: E402
from ex4d.pipeline.keep_seen import laid_over, seam_gains, seen_matte, steady_gains  # noqa: E402
from ex4d.raster import create_rasterizer, render_in_batches  # noqa: E402
from ex4d_core.render_settings import RenderSettings  # noqa: E402
from ex4d_core.wan_settings import MODEL_SIZE  # noqa: E402
from true_scenes import COMMITTED, TrueScene, TrueView, load_scenes  # noqa: E402

# Takes of 1280x720 and 1920x1080 are generated at the model's own size, so their sides are enlarged by this much.
_FACTORS = tuple(
    (width * height / (MODEL_SIZE[0] * MODEL_SIZE[1])) ** 0.5 for width, height in ((1280, 720), (1920, 1080))
)
# A generator whose red is too strong and whose blue is too weak.
_CAST = np.array([1.06, 1.0, 0.94])


@dataclass(frozen=True)
class Likeness:
    """How the seen pixels of a picture compare with the truth.

    Attributes:
        detail: its energy by that of the truth's.
        psnr: decibels.
    """

    detail: float
    psnr: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, help="folder of further scenes, .npz files")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"scenes, such as {COMMITTED[0]}")
    parser.add_argument("--pictures", type=Path, help="folder for each view: true, generated, with the footage, matte")
    options = parser.parse_args(arguments)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    print(
        "| scene | enlarged | seen | kept | detail | with footage | PSNR | with footage | colours off | with footage |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for scene in load_scenes(options.scenes):
        if options.only and scene.name not in options.only:
            continue
        for factor in _FACTORS:
            print(measured_row(scene, factor, options.pictures), flush=True)


def measured_row(scene: TrueScene, factor: float, pictures: Path | None = None) -> str:
    """A row of the table: of a scene whose generated pictures are enlarged by a factor."""
    height, width = scene.views[0].color.shape[:2]
    pixels, rows = round(width * height / factor**2), []
    for number, view in enumerate(scene.views):
        footage, alpha = _rendered(scene, view)
        matte, seen = seen_matte(alpha), alpha == 255
        share = alpha[..., None] / 255
        picture = at_working_size((share * footage + (1 - share) * view.color).round().astype(np.uint8), pixels)
        off = (picture * _CAST).clip(0, 255).astype(np.uint8)
        kept, kept_off = (_with_footage(one, footage, matte) for one in (picture, off))
        figures = [astuple(likeness(one, view.color, seen)) for one in (picture, kept, off, kept_off)]
        rows.append((seen.mean(), matte.mean(), *(value for one in figures for value in one)))
        if pictures:
            shown = [view.color, off, kept_off, np.repeat((255 * matte).astype(np.uint8)[..., None], 3, axis=2)]
            write_png(pictures / f"{scene.name}_{factor:.1f}_{number:02d}.png", np.concatenate(shown, axis=1))
    seen, kept, detail, psnr, kept_detail, kept_psnr, _, off_psnr, _, mended_psnr = np.mean(rows, axis=0)
    return (
        f"| {scene.name}, {width}x{height} | {factor:.2f} times | {seen:.0%} | {kept:.0%} | {detail:.0%} "
        f"| {kept_detail:.0%} | {psnr:.2f} dB | {kept_psnr:.2f} dB | {off_psnr:.2f} dB | {mended_psnr:.2f} dB |"
    )


def at_working_size(image: np.ndarray, pixels: int) -> np.ndarray:
    """(H, W, 3) uint8 made smaller and enlarged again, as the engine wan does with its frames."""
    size = WorkingSize.of(image.shape[1], image.shape[0], pixels)
    color = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    small, _ = size.downscale(color, torch.ones_like(color[:, :1]))
    large = size.upscale(small * 2 - 1)[0].permute(1, 2, 0)
    return ((large + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()


def likeness(image: np.ndarray, truth: np.ndarray, where: np.ndarray) -> Likeness:
    """How the pixels of an image, ``where`` a mask is true, compare with the truth."""
    error = image[where].astype(np.float64) - truth[where]
    details = [_detail(picture)[where] for picture in (image, truth)]
    return Likeness(
        float(np.mean(details[0] ** 2) / np.mean(details[1] ** 2)),
        float(10 * np.log10(255**2 / max(np.mean(error**2), 1e-9))),
    )


def _detail(image: np.ndarray) -> np.ndarray:
    """The finest detail of an image: its brightness without what a blur of a pixel and a half leaves."""
    brightness = image.astype(np.float64) @ [0.2126, 0.7152, 0.0722]
    return brightness - ndimage.gaussian_filter(brightness, 1.5)


def _rendered(scene: TrueScene, view: TrueView) -> tuple[np.ndarray, np.ndarray]:
    """Colour and share of what was seen, as takes render them."""
    rasterizer = create_rasterizer("warp", "cpu")
    surface = scene.surface([view.frame], "thickness")
    how = {"with_depth": True, "samples": RenderSettings().samples}
    (batch,) = render_in_batches(rasterizer, surface, view.camera, **how)
    assert batch.alpha is not None, "rendered with several samples"
    return batch.color[0].numpy(), batch.alpha[0].numpy()


def _with_footage(image: np.ndarray, footage: np.ndarray, matte: np.ndarray) -> np.ndarray:
    return laid_over(image, footage, matte, steady_gains(seam_gains(image, footage, matte), None))


if __name__ == "__main__":
    main()
