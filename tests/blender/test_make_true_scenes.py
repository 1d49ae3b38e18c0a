"""`make_true_scenes.py` films a scene and says by ray casts what new views of it show: here a box before a wall."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from make_true_scenes import filmed, main
from sample_garden import add, place
from sample_shapes import sheet, translation
from scenes.filming import COLOR_STEP, FilmedScene, Pose
from scenes.painting import painted, slab

WIDTH, HEIGHT = 32, 24
WALL, FRONT = 4.0, 2.0  # distances from the camera; the box is 0.4 deep


def build() -> Pose:
    """A wall across the view, a box that moves to the right, and a leaf behind it."""
    add(slab((-20, WALL, -20), (40, 0.1, 40)), painted("wall", "203080 8090ff"), smooth=False)
    box = add(slab((-0.5, FRONT, -0.5), (0.6, 0.4, 1.0)), painted("box", "c04020 f08060"), smooth=False)
    leaf = np.array([[(x, 3.0, z) for x in (-0.6, -0.3)] for z in (-0.3, 0.3)])
    add(sheet(leaf), painted("leaf", "208030 60c070"))
    return lambda time: place(box, translation(0.5 * time, 0, 0))


MOVES = ("zoom_in 1", "zoom_out 2", "truck 0.3", "orbit 180")
SCENE = FilmedScene("box", build, eye=(0, 0, 0), target=(0, 1.95, 0), frames=2, field_of_view=60, moves=MOVES)


@pytest.fixture(scope="module")
def made() -> dict[str, np.ndarray]:
    return filmed(SCENE, WIDTH, HEIGHT)


def view(made: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The arrays of one view."""
    (index,) = np.flatnonzero(made["view_name"] == name)
    views = (
        "view_frame",
        "extrinsics",
        "view_intrinsics",
        "true_rgb",
        "true_depth",
        "true_visible",
        "elsewhere",
        "static",
    )
    return {key: made[key][index] for key in views}


def test_the_clip_has_exact_depth_and_the_colors_of_its_surfaces(made):
    assert made["rgb"].shape == (2, HEIGHT, WIDTH, 3) and made["rgb"].dtype == np.uint8
    assert (made["rgb"] % COLOR_STEP == 0).all()
    assert set(np.unique(np.round(made["depth"], 2))) == {FRONT, 3.0, WALL}
    box = made["depth"][0] < 2.5
    assert made["rgb"][0][box][:, 0].mean() > made["rgb"][0][box][:, 2].mean() + 50  # red before blue
    moved = np.flatnonzero((made["depth"][1] < 2.5).any(0))[0] - np.flatnonzero(box.any(0))[0]
    assert moved == pytest.approx(0.5 / FRONT * made["intrinsics"][0, 0], abs=1)
    assert np.array_equal(made["source_extrinsics"], np.eye(4)[None].repeat(2, 0))


def test_the_same_view_is_the_frame_and_all_of_it_was_seen(made):
    same = view(made, "zoom_in 1")
    assert np.array_equal(same["true_rgb"], made["rgb"][same["view_frame"]])
    assert same["true_visible"].all()
    assert np.allclose(same["true_depth"], made["depth"][same["view_frame"]], rtol=0.005)


def test_what_lies_outside_the_clip_s_picture_was_not_seen(made):
    seen = view(made, "zoom_out 2")["true_visible"]
    middle = np.zeros((HEIGHT, WIDTH), bool)
    middle[HEIGHT // 4 : -HEIGHT // 4, WIDTH // 4 : -WIDTH // 4] = True
    assert np.array_equal(seen, middle)


def test_the_other_frame_saw_what_the_box_hides_in_this_one(made):
    aside, row = view(made, "truck 0.3"), HEIGHT // 2
    to_view, lens = aside["extrinsics"], aside["view_intrinsics"]
    column = np.arange(WIDTH) + 0.5
    wall = np.isclose(aside["true_depth"][row].astype(float), WALL, rtol=0.01)
    x = (column - lens[0, 2]) / lens[0, 0] * WALL - to_view[0, 3]
    inside = np.abs(x) < WALL * WIDTH / 2 / made["intrinsics"][0, 0]
    # Shadows that the box, at two units, and the leaf, at three, throw on the wall, seen from the source camera.
    by_leaf = (x > -0.6 * 4 / 3) & (x < -0.3 * 4 / 3)
    in_first, in_second = (x > -1.0) & (x < 0.2), (x > 0.0) & (x < 1.2)
    edge = np.min([np.abs(x - at) for at in (-1.0, 0.2, 0.0, 1.2, -0.8, -0.4)], axis=0) < 0.05
    sure = wall & ~edge
    assert np.array_equal(aside["true_visible"][row][sure], (inside & ~in_first & ~by_leaf)[sure])
    assert np.array_equal(aside["elsewhere"][row][sure], (inside & ~in_second & ~by_leaf)[sure])
    assert (aside["elsewhere"][row] & ~aside["true_visible"][row])[sure].any()


def test_only_what_stands_still_counts_as_seen_elsewhere(made):
    aside = view(made, "truck 0.3")
    box = aside["true_depth"] < 2.5
    assert box.any() and np.array_equal(aside["static"], ~box)
    assert not aside["elsewhere"][box].any()


def test_the_back_of_a_leaf_is_not_its_front(made):
    behind = view(made, "orbit 180")
    leaf = np.isclose(behind["true_depth"].astype(float), 0.9, rtol=0.01)
    assert leaf.any() and (np.abs(made["depth"][behind["view_frame"]] - 3.0) < 0.01).any(), "its front was seen"
    assert not behind["true_visible"][leaf].any()


def test_whole_moves_have_every_frame_and_begin_at_the_clip_s_own_view(made):
    whole = filmed(replace(SCENE, moves=("truck 0.3",), frames=3, whole=True), WIDTH, HEIGHT)
    assert whole["view_name"].tolist() == ["truck 0.3"] * 3 and whole["view_frame"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(whole["extrinsics"][0], whole["source_extrinsics"][0], atol=1e-6)
    assert whole["true_visible"][0].all() and not whole["true_visible"][-1].all()
    moved = np.diff(whole["extrinsics"][:, 0, 3])
    assert (moved < 0).all()  # to the right, all the way
    end = view(made, "truck 0.3")["extrinsics"]
    np.testing.assert_allclose(whole["extrinsics"][-1], end, atol=1e-6)
    assert "elsewhere" not in whole and whole["static"].shape == whole["true_visible"].shape


def test_files_of_another_size_never_replace_the_committed_ones(capsys):
    for words in (["--whole", "4"], ["--enlarge", "2"]):
        with pytest.raises(SystemExit):
            main([*words, "--only", "pond"])
        assert "-o" in capsys.readouterr().err
