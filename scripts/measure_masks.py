"""Measures what `evaluate_scenes.py` does not of masks: zooms, planes, what is best at most, steadiness over time.

Prints tables of docs/measured/rendering.md, on the committed scenes and on those of a folder (`true_scenes.py` says
what a scene file holds). Depth with an error is aligned, freed from noise and refined before it is drawn, as an
estimate is.

    python scripts/measure_masks.py [--scenes FOLDER] [--only street] [--sheet masks.png]
    python scripts/measure_masks.py --ceilings | --steady
    python scripts/measure_masks.py --footage FOLDER/input.mp4 --depth FOLDER/depth.npz
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from depth_clean_up import around, repaired  # noqa: E402
from ex4d.depth.depth_files import DepthFiles  # noqa: E402
from ex4d.evaluation.mask_measures import speck_count  # noqa: E402
from ex4d.media import probe, read_frames  # noqa: E402
from ex4d.media.png import png_bytes  # noqa: E402
from ex4d.mesh import DepthSurface  # noqa: E402
from ex4d.pipeline.array_clip import ArrayClip  # noqa: E402
from ex4d.pipeline.render import render_shot  # noqa: E402
from ex4d.raster import create_rasterizer, render_in_batches  # noqa: E402
from ex4d_core.cameras import CameraPath, look_at  # noqa: E402
from ex4d_core.render_settings import OCCLUSION_MODELS, OcclusionModel, RenderSettings  # noqa: E402
from mask_ceilings import ceiling_rows  # noqa: E402
from true_scenes import (  # noqa: E402
    COMMITTED,
    DepthError,
    Score,
    TrueScene,
    blurred,
    flickering,
    load_committed,
    load_scene,
    noisy,
    score,
)

ERRORS: dict[str, DepthError | None] = {
    "exact": None,
    "blur of 2 px, flicker of 2 %": lambda depth: flickering(0.02)(blurred(2)(depth)),
    "noise of 1 %": noisy(0.01),
}


MAGENTA, CYAN = (255, 0, 255), (0, 255, 255)


def steady_table(scenes: Sequence[TrueScene], errors: Sequence[str]) -> Iterator[str]:
    """What holding masks steady does to their truth, with "thickness": mean over views."""
    rasterizer = create_rasterizer("warp", "cpu")
    yield "| scene | depth | masks | false | missed | IoU | PSNR seen | specks a megapixel |"
    yield "|---|---|---|---|---|---|---|---|"
    for scene, name in product(scenes, errors):
        depth = repaired(scene, ERRORS[name])
        scores: dict[str, list[Score]] = {"cleaned": [], "held steady": []}
        for view in scene.views:
            if view.visible.any():
                shown = replace(scene.surface(around(view.frame, len(scene.color)), "thickness", depth), clean=True)
                earlier, own, later = (shown.frame_range(frame, frame + 1) for frame in range(3))
                for masks, neighbours in (("cleaned", None), ("held steady", (earlier, later))):
                    how = {"with_depth": True, "around": neighbours}
                    (drawn,) = render_in_batches(rasterizer, own, view.camera, **how)
                    scores[masks].append(score(view, drawn.mask[0].numpy(), drawn.color[0].numpy()))
        for masks, found in scores.items():
            yield f"| {scene.name} | {name} | {masks} | {Score.mean(found)} |"


def ceiling_table(scenes: Sequence[TrueScene], errors: Sequence[str], enlarged: Path | None) -> Iterator[str]:
    """Rows of what masks could be at best, see `mask_ceilings.py`; enlarged is a folder of scenes with more pixels."""
    rasterizer = create_rasterizer("warp", "cpu")
    yield "| scene | depth | what is known | false | missed | IoU |"
    yield "|---|---|---|---|---|---|"
    for scene, name in product(scenes, errors):
        depth = scene.depth if ERRORS[name] is None else repaired(scene, ERRORS[name])
        larger = None if enlarged is None or ERRORS[name] is not None else enlarged / f"{scene.name}.npz"
        known = load_scene(larger) if larger is not None and larger.exists() else None
        for knowledge, found in ceiling_rows(scene, depth, rasterizer, known):
            figures = f"{100 * found.false:.2f} % | {100 * found.missed:.2f} % | {found.agreement:.3f}"
            yield f"| {scene.name} | {name} | {knowledge} | {figures} |"


def zoom_table(scenes: Sequence[TrueScene]) -> Iterator[str]:
    """How much of a pure zoom is seen, in which all is, enlarged and rolled: the mean of some frames."""
    rasterizer = create_rasterizer("warp", "cpu")
    yield "| scene | model | zoom 1.5 | zoom 3 | zoom 1.5, rolled by 10 degrees |"
    yield "|---|---|---|---|---|"
    for scene in scenes:
        frames = np.linspace(0, len(scene.color) - 1, 3).round().astype(int).tolist()
        for model in OCCLUSION_MODELS:
            surface = scene.surface(frames, model)
            zooms = (zoomed(scene.camera.at(frames), factor, roll) for factor, roll in ((1.5, 0), (3, 0), (1.5, 10)))
            seen = [f"{100 * float(rasterizer.render(surface, camera).mask.double().mean()):.2f} %" for camera in zooms]
            yield f"| {scene.name} | {model} | {' | '.join(seen)} |"


def zoomed(camera: CameraPath, factor: float, roll: float) -> CameraPath:
    """The same cameras with longer lenses, rolled about their axes by degrees."""
    intrinsics = camera.intrinsics.copy()
    intrinsics[:, [0, 1], [0, 1]] *= factor
    cosine, sine = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    turn = np.eye(4)
    turn[:2, :2] = [[cosine, -sine], [sine, cosine]]
    return CameraPath(turn @ camera.world_to_camera, intrinsics, *camera.size)


def ground(model: OcclusionModel, size: tuple[int, int] = (320, 240), focal: float = 300.0) -> DepthSurface:
    """Ground one unit below the camera, from the image's lower edge to its horizon, and a sky of depth 10,000."""
    width, height = size
    below = torch.arange(height) + 0.5 - height / 2
    depth = torch.where(below > 0, focal / below.clamp_min(1e-3), torch.tensor(1e4))
    intrinsics = torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]], dtype=torch.float64)
    grey = torch.full((1, height, width, 3), 128, dtype=torch.uint8)
    return DepthSurface(depth[None, :, None].expand(1, height, width).contiguous(), grey, intrinsics, occlusion=model)


def plane_table() -> Iterator[str]:
    """How much is seen of ground at a grazing angle, by a camera that moves half its height to the side and up."""
    rasterizer = create_rasterizer("warp", "cpu")
    yield "| model | rows from the horizon | ground seen |"
    yield "|---|---|---|"
    for model in OCCLUSION_MODELS:
        surface = ground(model)
        pose = np.eye(4)[None].copy()
        pose[0, :2, 3] = -0.5, 0.5
        mask = rasterizer.render(surface, CameraPath(pose, surface.intrinsics.numpy(), *surface.size)).mask[0]
        middle = surface.size[1] // 2
        for first, stop in ((2, 20), (20, 60)):
            part = mask[middle + first : middle + stop, 40:-40]
            yield f"| {model} | {first} to {stop} | {100 * float(part.double().mean()):.2f} % |"


def time_table(footage: Path, depth_file: Path, frames: int | None) -> Iterator[str]:
    """Pixels of the mask that change from frame to frame, under a camera that stands still 30 degrees aside."""
    color = np.stack(list(read_frames(footage)))[:frames]
    depth = np.stack(list(DepthFiles(depth_file).estimate(probe(footage))))[: len(color)]
    height, width = depth.shape[1:]
    focal = float(max(width, height))
    clip = ArrayClip(footage.stem, depth, color, np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]))
    distance, angle = clip.manifest.subject_distance, np.radians(30)
    eye = np.array([[np.sin(angle) * distance, 0, (1 - np.cos(angle)) * distance]])
    pose = look_at(eye, np.array([0, 0, distance])).repeat(len(depth), 0)
    camera = CameraPath(pose, clip.source_camera().intrinsics, width, height)
    yield "| model | masks | flips a frame | specks a megapixel |"
    yield "|---|---|---|---|"
    for model, clean in product(OCCLUSION_MODELS, (False, True)):
        settings = RenderSettings(occlusion=model, clean=clean)
        masks = np.stack([frame.mask for frame in render_shot(clip, camera, settings, device="cpu")])
        flips = float((masks[1:] != masks[:-1]).mean())
        specks = np.mean([speck_count(mask) for mask in masks]) / masks[0].size * 1e6
        yield f"| {model} | {'cleaned' if clean else 'as drawn'} | {100 * flips:.2f} % | {specks:.0f} |"


def sheet(scenes: Sequence[TrueScene], error: str) -> np.ndarray:
    """Of each view its true image, the render with "thickness", and the mask's errors, as one picture.

    Errors are magenta where falsely seen and cyan where missed; what was never seen is dark.
    """
    rasterizer = create_rasterizer("warp", "cpu")
    rows = []
    for scene in scenes:
        depth = repaired(scene, ERRORS[error])
        for view in scene.views:
            surface = replace(scene.surface([view.frame], "thickness", depth), clean=True)
            drawn = rasterizer.render(surface, view.camera)
            seen, color = drawn.mask[0].numpy(), drawn.color[0].numpy()
            marked = np.where(view.visible[..., None], view.color // 2 + 96, view.color // 4)
            marked[seen & ~view.visible] = MAGENTA
            marked[view.visible & ~seen] = CYAN
            rows.append(np.concatenate([view.color, color, marked.astype(np.uint8)], axis=1))
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, help="folder of further scenes, .npz")
    parser.add_argument("--only", default="", help="scenes whose name contains this")
    parser.add_argument("--depth-error", choices=list(ERRORS), help="only this error of depth")
    parser.add_argument("--steady", action="store_true", help="only what holding masks steady does to their truth")
    parser.add_argument("--ceilings", action="store_true", help="only what masks could be at best")
    parser.add_argument("--enlarged", type=Path, help="with --ceilings: folder of the same scenes with more pixels")
    parser.add_argument("--sheet", type=Path, help="also write a picture of all views, PNG; of --depth-error, or exact")
    parser.add_argument("--footage", type=Path, help="real footage to measure steadiness on")
    parser.add_argument("--depth", type=Path, help="depth of the footage, .npz")
    parser.add_argument("--frames", type=int, help="only so many of the footage's frames")
    options = parser.parse_args()
    tables: list[Iterator[str]] = []
    if options.footage is not None:
        if options.depth is None:
            parser.error("--footage needs --depth")
        tables.append(time_table(options.footage, options.depth, options.frames))
    else:
        files = sorted(options.scenes.glob("*.npz")) if options.scenes else ()
        scenes = [
            *(load_committed(name) for name in COMMITTED if options.only in name),
            *(load_scene(file) for file in files if options.only in file.stem),
        ]
        errors = [options.depth_error] if options.depth_error else list(ERRORS)
        if options.ceilings:
            tables.append(ceiling_table(scenes, errors, options.enlarged))
        elif options.steady:
            tables.append(steady_table(scenes, errors))
        else:
            tables += [zoom_table(scenes), plane_table()]
    for table in tables:
        for row in table:
            print(row, flush=True)
        print()
    if options.sheet is not None:
        options.sheet.write_bytes(png_bytes(sheet(scenes, options.depth_error or "exact")))


if __name__ == "__main__":
    main()
