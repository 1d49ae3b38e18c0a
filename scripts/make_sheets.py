"""Makes contact sheets of the preview engine's pictures, to be looked at: every scene at eight moves, before and after.

A row is a move; 30, 60, 90 and 180 are EX-4D's own. Its cells are two moments of it, half way and at its end (180, an
ellipse: far to the right, far to the left), each as EX-4D has it (watertight, one sample of each pixel, masks as drawn,
no memory, the pivot at the nearest pixel), as it is drawn by default, and the default's mask: white was seen, blue is
remembered, black was never seen. Depth is exact, or that of a file.

    python scripts/make_sheets.py [--scenes FOLDER] [--only street] [-o outputs/sheets]
    python scripts/make_sheets.py --footage FOLDER/input.mp4 --depth FOLDER/depth.npz
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from ex4d.depth.depth_files import DepthFiles  # noqa: E402
from ex4d.generation.preview import REMEMBERED_COLOR, PreviewEngine  # noqa: E402
from ex4d.media import contact_sheet, probe, read_frames, write_png  # noqa: E402
from ex4d.pipeline.array_clip import ArrayClip  # noqa: E402
from ex4d.pipeline.render import render_shot  # noqa: E402
from ex4d.raster import RenderedFrame  # noqa: E402
from ex4d_core.pivots import Pivot  # noqa: E402
from ex4d_core.render_settings import RenderSettings, default_occlusion  # noqa: E402
from ex4d_core.scene import PlacedFootage  # noqa: E402
from ex4d_core.trajectories import Trajectory, has_pivot, shot_path  # noqa: E402
from measure_memory import KnownClip  # noqa: E402
from true_scenes import load_scenes  # noqa: E402

# Each with the moments that are shown, as shares of the move.
MOVES = {
    "30": (0.5, 1.0),
    "60": (0.5, 1.0),
    "90": (0.5, 1.0),
    "180": (0.25, 0.75),
    "zoom_in": (0.5, 1.0),
    "zoom_out": (0.5, 1.0),
    "dolly_zoom": (0.5, 1.0),
    "crane": (0.5, 1.0),
}
BEFORE = RenderSettings(occlusion="watertight", samples=1, clean=False, remember=False)
AFTER = RenderSettings(occlusion=default_occlusion("preview", "centered"), remember=True)
CELL_WIDTH = 256


def pictures(
    clip: PlacedFootage, move: Trajectory, moments: Sequence[float], settings: RenderSettings
) -> Iterator[tuple[np.ndarray, RenderedFrame]]:
    """What the preview engine makes of some moments of a move through the whole clip: picture and render of each."""
    path = shot_path(move, clip)
    shown = [round(moment * (len(path) - 1)) for moment in moments]
    for frame in render_shot(clip, path.at(shown), settings, source_frames=shown, note=print):
        # Each by itself: the engine smooths holes over time, and these are not neighbours.
        (picture,) = PreviewEngine().generate([frame])
        yield picture, frame


def states(frame: RenderedFrame) -> np.ndarray:
    """(H, W, 3) uint8: white where the footage saw, blue where the clip remembers, black elsewhere."""
    image = np.repeat(frame.soft_mask[..., None], 3, axis=2)
    if frame.remembered is not None:
        image[frame.remembered] = REMEMBERED_COLOR
    return image


def sheet(clip: PlacedFootage, moves: Sequence[str] = tuple(MOVES)) -> np.ndarray:
    """The contact sheet of a clip."""
    rows = []
    for name in moves:
        move, moments = Trajectory(name), MOVES[name]
        former = replace(move, pivot=Pivot("nearest")) if has_pivot(name) else move
        before = [picture for picture, _ in pictures(clip, former, moments, BEFORE)]
        after = list(pictures(clip, move, moments, AFTER))
        cells = [[old, new, states(frame)] for old, (new, frame) in zip(before, after, strict=True)]
        rows.append((name, [cell for moment in cells for cell in moment]))
    return contact_sheet(rows, columns=3 * len(MOVES[moves[0]]), cell_width=CELL_WIDTH)


def footage_clip(footage: Path, depth_file: Path) -> ArrayClip:
    """Footage with its depth, seen by a camera whose focal length is the longer side."""
    color = np.stack(list(read_frames(footage)))
    depth = np.stack(list(DepthFiles(depth_file).estimate(probe(footage))))
    height, width = depth.shape[1:]
    focal = float(max(width, height))
    return ArrayClip(footage.stem, depth, color, np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, help="a folder of further scenes, .npz")
    parser.add_argument("--only", default="", help="scenes whose name contains this")
    parser.add_argument("--moves", nargs="+", choices=MOVES, default=list(MOVES), help="rows of the sheets")
    parser.add_argument("--footage", type=Path, help="real footage, in place of the scenes")
    parser.add_argument("--depth", type=Path, help="depth of the footage, .npz")
    parser.add_argument("-o", "--output", type=Path, default=SCRIPTS.parent / "outputs" / "sheets", help="folder")
    options = parser.parse_args(arguments)
    if (options.footage is None) != (options.depth is None):
        parser.error("--footage and --depth go together")
    if options.footage is not None:
        clips: Iterator[PlacedFootage] = iter([footage_clip(options.footage, options.depth)])
    else:
        found = (scene for scene in load_scenes(options.scenes) if options.only in scene.name)
        clips = (KnownClip(scene, scene.depth) for scene in found)
    options.output.mkdir(parents=True, exist_ok=True)
    for clip in clips:
        path = options.output / f"{clip.manifest.name}.png"
        write_png(path, sheet(clip, options.moves))
        print(path, flush=True)


if __name__ == "__main__":
    main()
