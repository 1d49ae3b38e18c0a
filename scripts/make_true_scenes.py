"""Builds scenes in Blender, films them, and casts rays for the truth of new views: `tests/data/true_scenes`.

The files have the arrays that `true_scenes.load_scene` and `ex4d evaluate` read. They are committed, so this needs to
run only when a scene is changed. It needs `bpy` and numpy, half a minute a scene on two cores:

    .venv/blender-5.0/bin/python scripts/make_true_scenes.py [--only foliage] [--enlarge 2 -o FOLDER]

The committed views are the ends of moves, each of one frame of a short clip. With ``--whole FRAMES`` the clip has so
many frames, and every frame of five moves has its true view, for figures over time; such files are too large to commit:

    .venv/blender-5.0/bin/python scripts/make_true_scenes.py --whole 12 -o FOLDER
    ex4d evaluate FOLDER --results NAME=RESULTS -o REPORT
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from make_sample import write_arrays  # noqa: E402
from scenes import courtyard, foliage, garden, pond, room, side_street  # noqa: E402
from scenes.filming import HEIGHT, WHOLE_MOVES, WIDTH, FilmedScene, film, set_up  # noqa: E402
from scenes.truth import Faces, Sight, look, still_faces, was_seen  # noqa: E402

FOLDER = SCRIPTS.parent / "tests" / "data" / "true_scenes"
SCENES = {module.SCENE.name: module.SCENE for module in (foliage, side_street, room, pond, courtyard, garden)}
# Bits that are kept of a depth's mantissa, in the clip and in its views: within 0.012 % and 0.8 %. Fewer make smaller
# files.
CLIP_BITS, VIEW_BITS = 12, 6


def filmed(scene: FilmedScene, width: int = WIDTH, height: int = HEIGHT) -> dict[str, np.ndarray]:
    """The arrays of a scene's file: colours and depth of the clip, and what is true of its views."""
    import bpy

    pose, source, views = set_up(scene), scene.source_camera(width, height), scene.views(width, height)
    color, true_color, times, sights, depth = [], {}, [], {}, []
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "frame.png"
        for frame in range(scene.frames):
            pose(scene.time(frame))
            bpy.context.view_layer.update()
            times.append(Faces.of_scene())
            color.append(film(source, frame, picture))
            depth.append(look(times[-1], source, frame).depth)
            for index, (_, start, camera) in enumerate(views):
                if start == frame:
                    true_color[index], sights[index] = film(camera, 0, picture), look(times[-1], camera)
            print(f"{scene.name}: frame {frame} of {scene.frames}", flush=True)
    if not np.isfinite(depth).all():
        raise ValueError(f"scene {scene.name}: a ray of the clip meets nothing; add a sky")
    size, order = (len(views), height, width), range(len(views))
    first = source.world_to_camera[0]
    return {
        "rgb": np.stack(color),
        "depth": shortened(np.reshape(depth, (scene.frames, height, width)), CLIP_BITS),
        "intrinsics": source.intrinsics[0],
        "source_extrinsics": source.world_to_camera @ np.linalg.inv(first),
        "view_name": np.array([name for name, _, _ in views]),
        "view_frame": np.array([frame for _, frame, _ in views]),
        "extrinsics": np.stack([camera.world_to_camera[0] for _, _, camera in views]) @ np.linalg.inv(first),
        "view_intrinsics": np.stack([camera.intrinsics[0] for _, _, camera in views]),
        "true_rgb": np.stack([true_color[index] for index in order]),
        "true_depth": shortened(np.reshape([sights[index].depth for index in order], size), VIEW_BITS).astype(
            np.float16
        ),
        **seen_arrays(scene, [sights[index] for index in order], times, size),
        "distance": np.float64(scene.distance),
    }


def seen_arrays(
    scene: FilmedScene, sights: Sequence[Sight], times: Sequence[Faces], size: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """Of each view's points, those that its own frame saw, that another frame saw, and that stand still: (V, H, W).

    Of whole moves the second is left out: it would take every frame's rays to every frame of every move.
    """
    source, still = scene.source_camera(size[2], size[1]), still_faces(list(times))
    visible, elsewhere, static = [], [], []
    for (_, start, _), sight in zip(scene.views(size[2], size[1]), sights, strict=True):
        stands = still[sight.faces] & (sight.faces >= 0)
        visible.append(was_seen(sight, sight.faces >= 0, times[start], source, start))
        static.append(stands)
        if scene.whole:
            continue
        others = [was_seen(sight, stands, faces, source, frame) for frame, faces in enumerate(times) if frame != start]
        elsewhere.append(np.any(others, axis=0))
    named = {"true_visible": visible, "elsewhere": elsewhere, "static": static}
    return {name: np.stack(arrays).reshape(size) for name, arrays in named.items() if arrays}


def shortened(depth: np.ndarray, kept: int) -> np.ndarray:
    """Depth as float32 whose mantissa is rounded to ``kept`` bits, which compresses far better."""
    dropped = 23 - kept
    bits = depth.astype(np.float32).view(np.uint32)
    return (((bits + (1 << dropped - 1)) >> dropped) << dropped).view(np.float32)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SCENES, help="make this scene alone")
    parser.add_argument("--enlarge", type=int, default=1, metavar="TIMES", help="more pixels in both directions")
    parser.add_argument("--whole", type=int, metavar="FRAMES", help="every frame of whole moves, over so many frames")
    parser.add_argument("-o", "--output", type=Path, default=FOLDER, help="folder of the files")
    options = parser.parse_args(arguments)
    if options.output == FOLDER and (options.whole or options.enlarge > 1):
        parser.error("--whole and --enlarge make other files than the committed ones: give a folder with -o")
    options.output.mkdir(parents=True, exist_ok=True)
    for name in [options.only] if options.only else SCENES:
        path = options.output / f"{name}.npz"
        scene = SCENES[name]
        if options.whole:
            scene = replace(scene, frames=options.whole, moves=WHOLE_MOVES, whole=True)
        write_arrays(path, **filmed(scene, options.enlarge * WIDTH, options.enlarge * HEIGHT))
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
