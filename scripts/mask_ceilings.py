"""What masks could be at best: how true they get if something is known that the footage does not tell.

`measure_masks.py --ceilings` prints these rows beside the measured one. A goal above a ceiling asks for what is not in
the footage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ex4d.raster import Rasterizer
from true_scenes import Score, TrueScene, TrueView, score

# Depth that differs by less is that of one surface: the best of these is a ceiling.
TOLERANCES = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05)
# Depth with an error is plainly wrong from so much on.
WRONG = 0.08

Places = tuple[np.ndarray, np.ndarray, np.ndarray]


def footage_places(scene: TrueScene, view: TrueView) -> Places:
    """Where a view's true points lie in its footage frame: x, y in pixels, z along its camera's axis; (H, W) each."""
    height, width = view.depth.shape
    y, x = np.mgrid[:height, :width] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(view.camera.intrinsics[0]).T
    to_footage = scene.camera.world_to_camera[view.frame] @ view.camera.camera_to_world[0]
    with np.errstate(invalid="ignore"):  # where there is nothing depth is infinite, and no place is in the image
        points = rays * view.depth[..., None].astype(np.float64) @ to_footage[:3, :3].T + to_footage[:3, 3]
        z = points[..., 2]
        on_image = points @ scene.camera.intrinsics[view.frame].T / np.maximum(z, 1e-6)[..., None]
    return on_image[..., 0], on_image[..., 1], z


def are_inside(scene: TrueScene, places: Places) -> np.ndarray:
    """(H, W) bool, whether places are in the footage's image."""
    x, y, z = places
    height, width = scene.depth.shape[1:]
    return (z > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)


def with_all_surfaces(scene: TrueScene, view: TrueView, tolerance: float, pixels: int) -> np.ndarray:
    """A view's mask if every surface of the scene were known, hidden ones too: (H, W) bool.

    A point counts as seen if the footage's exact depth at its place is its own. So all that is unknown is what lies
    between the footage's pixels.

    Args:
        scene: of the view.
        view: whose true depth is used.
        tolerance: share of depth within which it is the same.
        pixels: 1 compares with the source pixel that the point falls into; 4 with those around it, by their weights.
    """
    places = footage_places(scene, view)
    x, y, z = places
    depth = scene.depth[view.frame]
    height, width = depth.shape

    def is_same(column: np.ndarray, row: np.ndarray) -> np.ndarray:
        found = depth[np.clip(row, 0, height - 1).astype(int), np.clip(column, 0, width - 1).astype(int)]
        return np.abs(found - z) < tolerance * np.abs(z)

    if pixels == 1:
        return are_inside(scene, places) & is_same(np.floor(x), np.floor(y))
    left, top = np.floor(x - 0.5), np.floor(y - 0.5)
    right, below = x - 0.5 - left, y - 0.5 - top
    share = sum(
        is_same(left + i, top + j) * np.where(i, right, 1 - right) * np.where(j, below, 1 - below)
        for i in (0, 1)
        for j in (0, 1)
    )
    return are_inside(scene, places) & (share >= 0.5)


def ceiling_rows(
    scene: TrueScene, depth: np.ndarray, rasterizer: Rasterizer, enlarged: TrueScene | None = None
) -> Iterator[tuple[str, Score]]:
    """What is known, and the mean score over the views in which anything was seen: "thickness", masks cleaned.

    Args:
        scene: to be measured.
        depth: (T, H, W), what is drawn.
        rasterizer: draws it.
        enlarged: the same scene, filmed with more pixels.
    """
    views = [view for view in scene.views if view.visible.any()]

    def mean(judge: Callable[[TrueView], Score]) -> Score:
        return Score.mean([judge(view) for view in views])

    def drawn(footage: TrueScene, shown: np.ndarray, view: TrueView) -> tuple[np.ndarray, np.ndarray]:
        surface = replace(footage.surface([view.frame], "thickness", shown), clean=True)
        images = rasterizer.render(surface, view.camera)
        return images.mask[0].numpy(), images.color[0].numpy()

    def without_outside(view: TrueView) -> Score:
        mask, color = drawn(scene, depth, view)
        return score(view, mask & (view.visible | are_inside(scene, footage_places(scene, view))), color)

    def best_test() -> Score:
        tests = [
            mean(lambda view: score(view, with_all_surfaces(scene, view, *how), view.color))  # noqa: B023 (called here)
            for how in ((tolerance, pixels) for tolerance in TOLERANCES for pixels in (1, 4))
        ]
        return max(tests, key=lambda found: found.agreement)

    yield "the footage", mean(lambda view: score(view, *drawn(scene, depth, view)))
    yield "and what stands outside its frame", mean(without_outside)
    if depth is not scene.depth:
        is_wrong = np.abs(np.log(depth / scene.depth)) > WRONG
        mended = np.where(is_wrong, scene.depth, depth)
        yield (
            f"and depth where it is wrong by {100 * WRONG:.0f} %",
            mean(lambda view: score(view, *drawn(scene, mended, view))),
        )
    if enlarged is not None:
        factor = enlarged.depth.shape[2] / scene.depth.shape[2]
        yield (
            f"and {factor:g} times the pixels a side",
            mean(lambda view: score(view, *drawn(enlarged, enlarged.depth, view))),
        )
    yield "every surface, by the depth of source pixels", best_test()
