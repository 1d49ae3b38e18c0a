"""Measures what a wrong offset of relative depth costs and what finding it brings, for docs/measured/offset.md.

    .venv/backend/bin/python scripts/measure_offset.py [--scenes FOLDER]

Relative depth is made from the exact depth of scenes with true views (`true_scenes`): disparity with an offset that is
wrong by 20 % of the nearest point's. Where the camera moves, its poses fit the offset and the unit; where the scene has
a flat ground, right angles on it are marked, a pixel or so beside where they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ex4d.depth.camera_fit import KeyFrames, fit_to_camera
from ex4d.raster import create_rasterizer
from ex4d_core.angle_offset import OffsetError, offset_of_corner
from ex4d_core.depth_mapping import DepthMapping, mapping_of_range
from true_scenes import DepthError, Score, TrueScene, blurred, flickering, load_scenes, score

WRONG_BY = (0.2, -0.1)
_CORNERS = 25  # that are marked in each scene; the median of what they tell is shown
_MISSED_BY = 1.0  # pixels by which a click misses, standard deviation
_SIDES = 0.3  # length of a corner's sides over its distance


def network_like(depth: np.ndarray) -> np.ndarray:
    """Two pixels of blur, and 2 % of flicker."""
    return flickering(0.02)(blurred(2)(depth))


ERRORS: dict[str, DepthError] = {"exact": lambda depth: depth, "2 px blur, 2 % flicker": network_like}


def main() -> None:
    """Print a row for each scene, error of depth, offset, and way of finding it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", type=Path, help="a folder of further scenes, as .npz files")
    scenes = load_scenes(parser.parse_args().scenes)
    print("| scene | depth | offset | found by | offset found | depth error, median | PSNR seen |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for scene in scenes:
        for name, spoil in ERRORS.items():
            spoilt = spoil(scene.depth)
            _print(scene, name, "0", "as it is", None, spoilt)
            for offset in WRONG_BY:
                relative, plain = wrong_disparity(spoilt, offset)
                _print(scene, name, f"{offset:+.0%}", "as it is", 0.0, plain.depth(relative))
                for way, find in {"camera": by_camera, "corners": by_corners}.items():
                    mapping = find(scene, relative, plain)
                    if mapping is not None:
                        _print(scene, name, f"{offset:+.0%}", way, mapping.offset, mapping.depth(relative))


def wrong_disparity(depth: np.ndarray, offset: float) -> tuple[np.ndarray, DepthMapping]:
    """Relative disparity to which an offset must be added, and the mapping that knows nothing of it."""
    true = mapping_of_range(float(depth.min()), float(depth.max()))
    return true.changed(offset).disparity(depth), true


def by_camera(scene: TrueScene, relative: np.ndarray, plain: DepthMapping) -> DepthMapping | None:
    """The fit to the poses; None where the camera stands still."""
    fit = fit_to_camera(KeyFrames(zip(scene.color, relative, strict=True), len(relative)), scene.camera, plain)
    return None if fit is None else fit.mapping


def by_corners(scene: TrueScene, relative: np.ndarray, plain: DepthMapping) -> DepthMapping | None:
    """The median of what right angles on the ground of frame 0 tell, each of which is clicked a little beside."""
    corners = ground_corners(scene)
    random, found = np.random.default_rng(4), []
    lens, (height, width) = scene.camera.intrinsics[0], relative.shape[1:]
    for corner in corners:
        clicked = corner + random.normal(0, _MISSED_BY, corner.shape)
        column, row = (np.clip(clicked[:, axis].astype(int), 0, side - 1) for axis, side in enumerate((width, height)))
        rays = np.c_[clicked, np.ones(3)] @ np.linalg.inv(lens).T
        points = rays * plain.depth(relative[0, row, column])[:, None]
        try:
            found.append(offset_of_corner(points, plain))
        except OffsetError:
            continue
    return plain.changed(float(np.median(found))) if len(found) > _CORNERS // 2 else None


def ground_corners(scene: TrueScene) -> list[np.ndarray]:
    """Pixels (3, 2) of right angles that truly lie in one plane in the lower part of frame 0, with sides in it."""
    height, width = scene.depth.shape[1:]
    lens, depth = scene.camera.intrinsics[0], scene.depth[0]
    random, found = np.random.default_rng(3), []

    def at(pixel: np.ndarray) -> np.ndarray:
        column, row = np.clip(pixel.astype(int), 0, (width - 1, height - 1))
        return depth[row, column] * (np.linalg.inv(lens) @ [column + 0.5, row + 0.5, 1])

    across, upwards = np.array([0.1 * width, 0]), np.array([0, 0.1 * height])
    for _ in range(3000):
        start = np.array([random.uniform(0.1, 0.9) * width, random.uniform(0.65, 0.95) * height])
        corner, right, ahead = at(start), at(start + across), at(start - upwards)
        normal = np.cross(right - corner, ahead - corner)
        normal /= np.linalg.norm(normal)
        side = np.cross(normal, random.normal(size=3))
        side *= _SIDES * np.linalg.norm(corner) / np.linalg.norm(side)
        ends = [corner + side, corner + np.cross(normal, side)]
        pixels = np.array([(lens @ (point / point[2]))[:2] for point in (corner, *ends)])
        inside = ((pixels > 1) & (pixels < [width - 1, height - 1])).all()
        # The ground must be there: no step, and nothing that stands on it.
        if abs(normal[1]) > 0.7 and inside:
            missed = [np.linalg.norm(at(pixel) - point) for pixel, point in zip(pixels[1:], ends, strict=True)]
            if max(missed) < 0.01 * np.linalg.norm(corner):
                found.append(pixels)
    return found[:_CORNERS]


def _print(scene: TrueScene, error: str, wrong: str, way: str, offset: float | None, depth: np.ndarray) -> None:
    off = float(np.median(np.abs(np.log(depth / scene.depth))))
    total = Score.mean([_of_view(scene, index, depth.astype(np.float32)) for index in range(len(scene.views))])
    told = "" if offset is None else f"{offset:.3f}"
    row = scene.name, error, wrong, way, told, f"{100 * off:.1f} %", f"{total.psnr:.1f} dB"
    print(f"| {' | '.join(row)} |", flush=True)


def _of_view(scene: TrueScene, index: int, depth: np.ndarray) -> Score:
    view = scene.views[index]
    out = create_rasterizer("warp", "cpu").render(scene.surface([view.frame], "thickness", depth), view.camera)
    return score(view, out.mask[0].numpy(), out.color[0].numpy())


if __name__ == "__main__":
    main()
