"""Measures solved cameras and the fit of relative depth to their points against scenes with true cameras and depth.

    .venv/backend/bin/python scripts/measure_solve.py                      # the committed clip; needs the extra colmap
    .venv/backend/bin/python scripts/measure_solve.py --scenes FOLDER      # and .npz files as true_scenes reads them

Prints two tables: errors of the camera with a known and with an unknown lens, in the first frame's world after a common
scale; and of depth made relative (2 pixels of blur, another factor and offset of disparity in every frame) before and
after the fit, with the new views' PSNR over pixels that both call seen.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from ex4d.depth import DepthClip, KnownCamera, SparsePoints, with_points  # noqa: E402
from ex4d.depth.solver import SolvedCamera, solve_camera  # noqa: E402
from ex4d.depth.source_camera import in_first_frames_world  # noqa: E402
from ex4d.media import FootageInfo, probe, write_png  # noqa: E402
from ex4d.raster import create_rasterizer  # noqa: E402
from ex4d_core.cameras import CameraPath  # noqa: E402
from true_scenes import DATA, Score, TrueScene, blurred, load_committed, load_scene, score  # noqa: E402

_BLUR = 2.0
_FACTORS, _OFFSETS = (0.6, 1.7), (0.0, 0.3)  # of disparity over the clip's largest


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=Path, help="folder of further scenes; those without parallax say so")
    options = parser.parse_args()
    scenes = [load_committed("moving_camera")]
    scenes += [load_scene(path) for path in sorted(options.scenes.glob("*.npz"))] if options.scenes else []
    solves: list[tuple[TrueScene, FootageInfo, SolvedCamera]] = []
    with tempfile.TemporaryDirectory() as folder:
        print("| scene | lens | seconds | points | focal length | rotation: mean, worst | position: mean, worst |")
        print("|---|---|---|---|---|---|---|")
        for scene in scenes:
            footage = _footage(scene, Path(folder) / scene.name)
            for lens in (scene.camera.intrinsics, None):
                began = time.perf_counter()
                solved = solve_camera(footage, lens)
                told = _camera_errors(solved, scene, time.perf_counter() - began)
                print(f"| {scene.name} | {'known' if lens is not None else 'solved'} | {told} |", flush=True)
                if lens is not None:
                    solves.append((scene, footage, solved))
        print("\n| scene | depth | median error | new views: false, missed, IoU, PSNR, specks |\n|---|---|---|---|")
        for scene, footage, solved in solves:
            if solved.camera is not None and solved.points is not None:
                _print_depth(scene, footage, solved.camera, solved.points)


def _footage(scene: TrueScene, folder: Path) -> FootageInfo:
    """The clip as a file: the committed ones, or a sequence of lossless images."""
    if (DATA / scene.name).is_dir():
        return probe(DATA / scene.name / "footage.mp4")
    folder.mkdir()
    for index, image in enumerate(scene.color):
        write_png(folder / f"{index:04d}.png", image)
    return probe(folder, fps=Fraction(24))


def _camera_errors(solved: SolvedCamera, scene: TrueScene, seconds: float) -> str:
    if solved.camera is None:
        return f"{seconds:.1f} | | | {'; '.join(solved.notes)} |"
    path, truth = solved.camera.path, in_first_frames_world(scene.camera)
    turned = path.world_to_camera[:, :3, :3] @ truth.world_to_camera[:, :3, :3].transpose(0, 2, 1)
    angle = np.degrees(np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    known = truth.camera_to_world[:, :3, 3]
    missed = np.linalg.norm(_unit(path, truth) * path.camera_to_world[:, :3, 3] - known, axis=1)
    way = np.linalg.norm(np.diff(known, axis=0), axis=1).sum()
    focal = path.intrinsics[0, 0, 0] / scene.camera.intrinsics[0, 0, 0] - 1
    points = 0 if solved.points is None else len(solved.points)
    return (
        f"{seconds:.1f} | {points} | {100 * focal:+.1f} % | {angle.mean():.3f}°, {angle.max():.3f}° | "
        f"{100 * missed.mean() / way:.2f} %, {100 * missed.max() / way:.2f} % of the way"
    )


def _unit(path: CameraPath, truth: CameraPath) -> float:
    """What brings a path's positions closest to the true ones."""
    found, known = path.camera_to_world[:, :3, 3], truth.camera_to_world[:, :3, 3]
    return float((found * known).sum() / (found**2).sum())


def _print_depth(scene: TrueScene, footage: FootageInfo, camera: KnownCamera, points: SparsePoints) -> None:
    exact_but_blurred = blurred(_BLUR)(scene.depth)
    disparity = exact_but_blurred.min() / exact_but_blurred
    random = np.random.default_rng(0)
    factor, offset = (random.uniform(*one, (len(disparity), 1, 1)) for one in (_FACTORS, _OFFSETS))
    relative = (1 / (factor * disparity + offset)).astype(np.float32)
    clip = DepthClip(footage, None, "relative", "test", "", lambda: iter(relative))
    placed, fitted = with_points(camera, clip, points, solved=True)
    unit = _unit(placed.path, in_first_frames_world(scene.camera))
    print(_depth_row(scene, "exact, blurred", exact_but_blurred))
    print(_depth_row(scene, "relative, one factor for the clip", relative * np.median(scene.depth / relative)))
    print(_depth_row(scene, "relative, fitted to the points", unit * np.stack(list(fitted))))


def _depth_row(scene: TrueScene, name: str, depth: np.ndarray) -> str:
    rasterizer = create_rasterizer("warp", "cpu")
    depth = depth.astype(np.float32)
    scores = []
    for view in scene.views:
        out = rasterizer.render(scene.surface([view.frame], "thickness", depth), view.camera)
        scores.append(score(view, out.mask[0].numpy(), out.color[0].numpy()))
    error = float(np.median(np.abs(depth / scene.depth - 1)))
    return f"| {scene.name} | {name} | {100 * error:.2f} % | {Score.mean(scores)} |"


if __name__ == "__main__":
    main()
