"""Samples of each pixel, from the command line to the files: soft masks, takes of earlier versions, views as before."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.media import read_frames, read_png
from ex4d.pipeline.coverage import SceneCoverage
from ex4d.pipeline.view import SceneViews
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest
from ex4d_core.trajectories import Trajectory, build_path

MOVE = ["--preset", "orbit", "--amount", "30", "--size", "96x96", "--frames", "2", "--device", "cpu"]


def render(scene: Scene, out, *arguments: str) -> dict[str, np.ndarray]:
    assert main(["render", str(scene.path("color").parent), *MOVE, *arguments, "-o", str(out)]) == 0
    with np.load(out) as arrays:
        return dict(arrays)


def test_renders_have_soft_masks_unless_asked_otherwise(sample_scene, tmp_path):
    soft = render(sample_scene, tmp_path / "soft.npz")
    hard = render(sample_scene, tmp_path / "hard.npz", "--samples", "1")
    assert set(np.unique(hard["alpha"])) == {0, 255} and len(np.unique(soft["alpha"])) == 10
    for arrays in (soft, hard):
        assert np.array_equal(arrays["mask"], arrays["alpha"] >= 128)
        assert np.allclose(arrays["coverage"], arrays["alpha"].mean(axis=(1, 2)) / 255)
    assert np.abs(soft["coverage"] - hard["coverage"]).max() < 0.01
    # What was seen of a pixel at the mask's edge keeps its colour, however little it is.
    edge = (soft["alpha"] > 0) & (soft["alpha"] < 128)
    assert edge.any() and soft["color"][edge].any(axis=1).mean() > 0.99


@pytest.fixture
def shot(sample_scene) -> ShotRequest:
    manifest = sample_scene.manifest
    lens = sample_scene.source_camera().intrinsics[0]
    camera = build_path(Trajectory("orbit", 30), 2, lens, manifest.width, manifest.height, 2.0)
    return ShotRequest(sample_scene.digest, camera.frames(1, 2).resized(96, 96))


def test_views_and_coverage_have_one_sample_whatever_the_request_says(sample_scene, shot):
    one = replace(shot, render=RenderSettings(samples=1))
    views, coverage = (kind(sample_scene, device="cpu") for kind in (SceneViews, SceneCoverage))
    assert shot.render.samples == 3
    assert np.array_equal(views.look(shot).image, views.look(one).image)
    assert coverage.of(shot).seen == coverage.of(one).seen


def test_a_takes_mask_has_soft_edges_and_its_request_says_how(sample_scene, tmp_path, capsys):
    generate = ["generate", str(sample_scene.path("color").parent), *MOVE, "-o", str(tmp_path / "take")]
    assert main(generate) == 0
    request = json.loads((tmp_path / "take" / "request.json").read_text())
    assert request["render"]["samples"] == 3
    masks = list(read_frames(tmp_path / "take" / "mask.mp4"))
    grey = (masks[1][..., 1] > 40) & (masks[1][..., 1] < 215)
    assert 0.01 < grey.mean() < 0.2

    # A take of an earlier version has no samples in its request: it had one, and is not continued with nine.
    del request["render"]["samples"]
    (tmp_path / "take" / "request.json").write_text(json.dumps(request))
    (tmp_path / "take" / "frame_00001.png").unlink()
    assert main([*generate, "--resume"]) == 1
    assert "render.samples (1, now 3)" in capsys.readouterr().err
    assert main([*generate, "--resume", "--samples", "1"]) == 0
    assert read_png(tmp_path / "take" / "frame_00001.png").shape == (96, 96, 3)
