"""Scenes with true views: what is loaded, and how masks and colours are scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ex4d.evaluation.mask_measures import speck_count
from ex4d_core.cameras import CameraPath
from true_scenes import TRUE_SCENES, TrueScene, TrueView, blurred, load_committed, noisy, score


@pytest.fixture
def view() -> TrueView:
    """Of 10 x 10 pixels, the left half of which was seen."""
    visible = np.zeros((10, 10), bool)
    visible[:, :5] = True
    camera = CameraPath(np.eye(4)[None], np.diag([10.0, 10.0, 1.0]), 10, 10)
    return TrueView("one", 0, camera, np.full((10, 10, 3), 100, np.uint8), visible, np.ones((10, 10)))


def test_shares_of_false_and_missed_pixels_are_of_all_pixels(view):
    seen = view.visible.copy()
    seen[0, :2], seen[9, 5:9] = False, True
    found = score(view, seen, view.color + np.uint8(10))
    assert (found.missed, found.false) == (0.02, 0.04)
    assert found.agreement == 48 / 54
    assert found.psnr == pytest.approx(20 * np.log10(25.5))


def test_colours_count_where_both_call_them_seen(view):
    color = view.color.copy()
    color[:, 5:] = 0
    assert score(view, np.ones((10, 10), bool), color).psnr > 100
    nothing = score(replace(view, visible=np.zeros((10, 10), bool)), np.zeros((10, 10), bool), color)
    assert np.isnan(nothing.agreement) and np.isnan(nothing.psnr)


def test_specks_are_small_regions_of_either_kind():
    mask = np.zeros((20, 20), bool)
    mask[2:4, 2:4] = True  # a speck of four pixels
    mask[10:15, 10:15] = True
    mask[12, 12] = False  # a pinhole
    mask[17, 1:6] = True  # five in a row are none
    assert speck_count(mask) == 2


def test_the_committed_scenes_have_what_their_page_says():
    scene = load_committed("moving_camera")
    assert scene.color.shape == (20, 256, 256, 3) and scene.depth.shape == (20, 256, 256)
    assert len(scene.views) == 8 and scene.views[0].color.shape == (144, 144, 3)
    assert scene.surface([3, 3], "thickness").frames == 2
    spoilt = noisy(0.01)(scene.depth)
    assert np.std(spoilt / scene.depth) == pytest.approx(0.01, rel=0.05)
    assert np.abs(blurred(2)(scene.depth[:1]) - scene.depth[:1]).max() > 0.1


SCENES = sorted(path.stem for path in TRUE_SCENES.glob("*.npz"))


def test_the_scenes_are_six_and_small():
    assert SCENES == ["courtyard", "foliage", "garden", "pond", "room", "side_street"]
    assert sum(path.stat().st_size for path in TRUE_SCENES.iterdir()) < 4e6


@pytest.mark.parametrize("name", SCENES)
def test_what_a_scene_calls_visible_lies_on_the_depth_of_its_frame(name):
    scene = load_committed(name)
    assert {view.name.split()[0] for view in scene.views} == {"orbit", "dolly_in", "dolly_out", "crane", "zoom_out"}
    with np.load(TRUE_SCENES / f"{name}.npz") as stored:
        depths = stored["true_depth"].astype(np.float64)
    found, hidden = [], []
    for view, depth in zip(scene.views, depths, strict=True):
        lies = lies_on_depth(scene, view, depth)
        found.append(lies[view.visible].mean())
        hidden.append((~lies)[~view.visible].mean())
    assert np.mean(found) > 0.97
    # The backs of leaves lie on the depth of their fronts.
    assert np.mean(hidden) > (0.65 if name == "foliage" else 0.8)


def lies_on_depth(scene: TrueScene, view: TrueView, depth: np.ndarray) -> np.ndarray:
    """Where a view's points, carried to the footage frame, are on its depth in one of 3 x 3 pixels, within 2 %."""
    rows, columns = np.indices(depth.shape) + 0.5
    lens, source = view.camera.intrinsics[0], scene.camera.at([view.frame])
    z = np.where(np.isfinite(depth), depth, 1e6)
    points = np.stack([(columns - lens[0, 2]) / lens[0, 0] * z, (rows - lens[1, 2]) / lens[1, 1] * z, z], -1)
    pose = source.world_to_camera[0] @ view.camera.camera_to_world[0]
    x, y, z = np.moveaxis(points @ pose[:3, :3].T + pose[:3, 3], -1, 0)
    before = z > 1e-3
    z = np.where(before, z, 1.0)
    column = np.floor(x / z * source.intrinsics[0, 0, 0] + source.intrinsics[0, 0, 2]).astype(int)
    row = np.floor(y / z * source.intrinsics[0, 1, 1] + source.intrinsics[0, 1, 2]).astype(int)
    height, width = depth.shape
    inside = before & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    near = [
        scene.depth[view.frame][np.clip(row + dy, 0, height - 1), np.clip(column + dx, 0, width - 1)] / z - 1
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    ]
    return inside & (np.abs(near).min(axis=0) < 0.02)
