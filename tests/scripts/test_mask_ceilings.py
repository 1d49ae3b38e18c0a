"""`measure_masks.py --ceilings`: where true points lie in the footage, and what a mask could be at best."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

import measure_masks
from ex4d.raster import create_rasterizer
from ex4d_core.cameras import CameraPath
from mask_ceilings import are_inside, ceiling_rows, footage_places, with_all_surfaces
from true_scenes import TrueScene, TrueView, blurred, load_committed

LENS = np.array([[10.0, 0, 5], [0, 10, 5], [0, 0, 1]])
WALL, CARD = 4.0, 2.0


@pytest.fixture
def scene() -> TrueScene:
    """Footage of a wall, with a card over its three left columns; and a view from one unit to the right."""
    footage = CameraPath(np.eye(4)[None], LENS[None], 10, 10)
    pose = np.eye(4)
    pose[0, 3] = -1.0
    depth = np.full((1, 10, 10), WALL, np.float32)
    depth[..., :3] = CARD
    color, seen = np.zeros((1, 10, 10, 3), np.uint8), np.full((10, 10), WALL, np.float32)
    visible = np.zeros((10, 10), bool)
    visible[:, :7] = True
    view = TrueView("aside", 0, CameraPath(pose[None], LENS[None], 10, 10), color[0], visible, seen)
    return TrueScene("card", color, depth, footage, (view,))


def test_true_points_have_places_in_the_footage(scene):
    (view,) = scene.views
    x, y, z = footage_places(scene, view)
    np.testing.assert_allclose(x[0], np.arange(10) + 0.5 + LENS[0, 0] / WALL)
    np.testing.assert_allclose(y[:, 0], np.arange(10) + 0.5)
    np.testing.assert_allclose(z, WALL)
    assert are_inside(scene, (x, y, z))[0].tolist() == [True] * 7 + [False] * 3


@pytest.mark.parametrize("pixels", [1, 4])
def test_points_are_seen_where_the_footage_has_their_depth(scene, pixels):
    (view,) = scene.views
    assert np.array_equal(with_all_surfaces(scene, view, 0.01, pixels), view.visible)
    behind = replace(view, depth=view.depth + 0.2)
    assert with_all_surfaces(scene, behind, 0.1, pixels)[:, 1:6].all()
    assert not with_all_surfaces(scene, behind, 0.01, pixels).any()


def test_what_is_known_makes_masks_truer():
    courtyard = load_committed("courtyard")
    some = replace(courtyard, views=courtyard.views[2:4])
    rows = dict(ceiling_rows(some, blurred(2)(some.depth), create_rasterizer("warp", "cpu")))
    measured, outside, mended, every = (found.agreement for found in rows.values())
    assert measured < outside and measured + 0.02 < mended and max(outside, mended) < every


def test_the_table_has_a_row_for_each_thing_known(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["measure_masks.py", "--ceilings", "--only", "pond", "--depth-error", "exact"])
    measure_masks.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| pond")]
    assert len(lines) == 3 and all(line.count(" % |") == 2 for line in lines)
