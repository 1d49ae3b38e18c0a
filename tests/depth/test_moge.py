"""MoGe-2: the package's own points, normals and lens from its checkpoint layout, and metres for clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ex4d.depth.estimation import ModelEstimator
from ex4d.depth.moge.checkpoint import load_network
from ex4d.depth.moge.estimator import MoGe2
from ex4d.depth.moge.lens import lens_and_offset
from ex4d.weights.errors import CheckpointError
from tests.depth.toy_checkpoints import GOLDEN, MOGE_CONFIG, TOY_BACKBONES, pushed_points

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """Images, and what the package computed with them; see scripts/make_estimator_golden.py."""
    with np.load(GOLDEN / "moge.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def models(toy_newer_models) -> Path:
    return toy_newer_models


@pytest.fixture(scope="module")
def network(models):
    return load_network(models / "Ruicheng" / "moge-2-vitl-normal" / "model.pt", TOY_BACKBONES)


def difference(value: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(value.numpy() - expected) / np.linalg.norm(expected))


@torch.inference_mode()
def test_the_packages_points_normals_and_scale(golden, network):
    found = network(torch.from_numpy(golden["images"]), normals=True)
    for name in ("points", "solid", "normals", "metres"):
        assert difference(getattr(found, name), golden[name]) < 1e-5, name
    assert network(torch.from_numpy(golden["images"])).normals is None, "which take time"


def test_the_packages_lens_and_offset(golden):
    """Of noisy points, for an unknown and for a known lens."""
    points, solid = pushed_points(1.7, 0.5, noise=0.01)
    assert lens_and_offset(points, solid) == pytest.approx(tuple(golden["lenses"][0]), rel=2e-3)
    assert lens_and_offset(points, solid, 1.9) == pytest.approx(tuple(golden["lenses"][1]), rel=2e-3)


@pytest.mark.parametrize("known", [False, True], ids=["unknown lens", "known lens"])
def test_the_lens_and_the_offset_of_a_true_scene(known):
    for offset in (-0.8, 0.0, 0.5, 2.0):
        points, solid = pushed_points(1.7, offset)
        found = lens_and_offset(points, solid, 1.7 if known else None)
        assert found == pytest.approx((1.7, offset), rel=1e-2, abs=1e-2)
    assert lens_and_offset(points, torch.zeros_like(solid)) == (1.0, 0.0)


def test_a_clip_gets_metres_and_one_lens(models, write_clip):
    footage = write_clip(frames=3, width=96, height=64)

    def clip(focal: float | None):
        model = MoGe2.load(models, CPU, torch.float32, focal, TOY_BACKBONES)
        return ModelEstimator(model, edges=None, temporal_alignment=False).estimate(footage)

    known = clip(0.9)
    depth = np.stack(list(known))
    assert depth.shape == (3, 64, 96) and np.isfinite(depth).all() and depth.min() > 0
    assert known.scale == "metric" and known.intrinsics[0, 0, 0] == pytest.approx(0.9 * 96)
    found = clip(None)
    assert np.isfinite(np.stack(list(found))).all()
    assert found.intrinsics is None or found.intrinsics[0, 0, 0] > 0


def test_work_is_done_at_the_size_of_the_finest_level(models):
    model = MoGe2.load(models, CPU, torch.float32, None, TOY_BACKBONES)
    assert model.working_size(60, 40) == (60, 40), "nothing is enlarged"
    width, height = model.working_size(3840, 2160)
    assert height == pytest.approx(16 * 4, abs=2) and width / height == pytest.approx(16 / 9, rel=0.02)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"remap_output": "linear"}, "remap_output 'linear'"),
        ({"encoder": {**MOGE_CONFIG["encoder"], "backbone": "dinov3"}}, "dinov3"),
        ({"scale_head": {"dims": [32, 16, 1]}}, "scale_head"),
    ],
)
def test_a_file_of_another_network_is_named(models, tmp_path, change, says):
    file = models / "Ruicheng" / "moge-2-vits-normal" / "model.pt"
    document = torch.load(file, weights_only=True)
    path = tmp_path / "model.pt"
    torch.save({**document, "model_config": {**MOGE_CONFIG, **change}}, path)
    with pytest.raises(CheckpointError, match=says):
        load_network(path, TOY_BACKBONES)
    torch.save(document["model"], path)
    with pytest.raises(CheckpointError, match="'model_config'"):
        load_network(path, TOY_BACKBONES)
