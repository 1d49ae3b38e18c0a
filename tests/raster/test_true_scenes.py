"""Scenes with true views: what is loaded, and how masks and colours are scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ex4d_core.cameras import CameraPath
from true_scenes import TrueView, blurred, load_committed, noisy, score, speck_count


@pytest.fixture
def view() -> TrueView:
    """Of 10 x 10 pixels, the left half of which was seen."""
    visible = np.zeros((10, 10), bool)
    visible[:, :5] = True
    camera = CameraPath(np.eye(4)[None], np.diag([10.0, 10.0, 1.0]), 10, 10)
    return TrueView("one", 0, camera, np.full((10, 10, 3), 100, np.uint8), visible)


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
