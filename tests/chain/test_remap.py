"""`ex4d remap`: a scene is made again with another depth offset, which a square corner in its picture tells."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.depth import DepthClip
from ex4d.media import VideoWriter, probe
from ex4d.pipeline.scene_building import build_scene
from ex4d_core.cameras import intrinsics_matrix
from ex4d_core.depth_mapping import DepthMapping
from ex4d_core.scene import Scene

WIDTH, HEIGHT = 160, 96
LENS = intrinsics_matrix(120, 120, WIDTH / 2, HEIGHT / 2)
# A ground 1.5 below the camera, which looks down a little and is tilted.
UP = np.array([0.1, -0.95, -0.3]) / np.linalg.norm([0.1, -0.95, -0.3])


def true_depth() -> np.ndarray:
    """The ground, before a wall at depth 6."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(LENS).T
    return np.minimum(1.5 / np.maximum(-(rays @ UP), 1e-3), 6.0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """Two frames of that ground as an estimate shows it that lacks an offset of 0.2."""
    folder = tmp_path_factory.mktemp("remap")
    with VideoWriter(folder / "clip.mp4", WIDTH, HEIGHT, Fraction(24)) as movie:
        for _ in range(2):
            movie.write(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    footage, depth = probe(folder / "clip.mp4"), true_depth()
    mapping = DepthMapping(float(depth.min()))
    relative = mapping.changed(0.2).disparity(depth).astype(np.float32)
    clip = DepthClip(footage, None, "relative", "an estimate", "", lambda: iter([relative] * 2), mapping=mapping)
    build_scene(footage, clip, LENS, folder / "scene", name="ground")
    return folder / "scene"


def square_corner() -> list[str]:
    """Pixels of a right angle on the ground: the corner, and a point along each of its sides."""
    side = np.cross(UP, [0.5, 0.1, 1.0])
    side /= np.linalg.norm(side)
    corner = -1.5 * UP + 3.0 * np.cross(side, UP)
    points = np.array([corner, corner + 0.8 * side, corner + 1.2 * np.cross(side, UP)]) @ LENS.T
    return [f"{x:.2f},{y:.2f}" for x, y in points[:, :2] / points[:, 2:]]


def test_a_square_corner_tells_the_offset(scene, tmp_path, capsys):
    words = ["remap", str(scene), "-o", str(tmp_path / "new"), "--square-corner", *square_corner(), "--json"]
    assert main(words) == 0
    made = Scene.open(tmp_path / "new")
    assert made.manifest.depth_mapping.offset == pytest.approx(0.2, abs=0.01)
    assert np.median(np.abs(np.log(made.depth()[1] / true_depth()))) < 0.02
    told = json.loads(capsys.readouterr().out)["result"]
    assert told["mapping"]["offset"] == made.manifest.depth_mapping.offset
    assert np.median(np.abs(np.log(Scene.open(scene).depth()[1] / true_depth()))) > 0.2, "the old scene stays"


def test_an_offset_and_a_far_limit_are_set(scene, tmp_path):
    words = ["remap", str(scene), "-o", str(tmp_path / "new"), "--depth-offset", "0.2", "--far-limit", "3"]
    assert main(words) == 0
    made, nearest = Scene.open(tmp_path / "new"), float(true_depth().min())
    assert np.array(made.depth()[0]) == pytest.approx(np.minimum(true_depth(), 3 * nearest), rel=1e-4)
    assert main(words) == 1, "nothing is overwritten"
    assert main([*words, "--overwrite"]) == 0
    assert main([*words[:2], "-o", str(scene), "--depth-offset", "0.1", "--overwrite"]) == 1, "least of all the input"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "nothing to change"),
        (["--square-corner", "1,1", "2,2", "3,3", "--depth-offset", "0.1"], "leave --depth-offset"),
        (["--square-corner", "1,1", "200,2", "3,3"], "200,2 is outside"),
        (["--square-corner", "1,1", "2,2", "3,3", "--frame", "7"], "frames 0 to 1"),
        (["--square-corner", "40,5", "41,5", "40,6"], "hardly changes"),
        (["--camera-fit"], "moves too little"),
    ],
)
def test_what_tells_nothing_is_said(scene, tmp_path, capsys, options, says):
    main(["remap", str(scene), "-o", str(tmp_path / "new"), *options])
    assert says in capsys.readouterr().err
