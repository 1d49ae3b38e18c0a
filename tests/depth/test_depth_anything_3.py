"""Depth Anything 3: the package's own depth and cameras from its checkpoint layout, and clips of any length."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("safetensors")

from ex4d.depth.depth_anything_3.backbone import reference_first
from ex4d.depth.depth_anything_3.checkpoint import load_network
from ex4d.depth.depth_anything_3.estimator import (
    DepthAnything3Metric,
    DepthAnything3Small,
    with_far_sky,
)
from ex4d.depth.depth_anything_3.network import MetricNetwork, MultiViewNetwork, rotations
from ex4d.depth.estimation import ModelEstimator
from ex4d.weights.errors import CheckpointError
from ex4d_core.cameras import invert_rigid
from tests.depth.toy_checkpoints import GOLDEN, TOY_METRIC, TOY_VIEWS

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """Frames, and what the package computed with them; see scripts/make_estimator_golden.py."""
    with np.load(GOLDEN / "depth_anything_3.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def models(toy_newer_models) -> Path:
    return toy_newer_models


def file_of(models: Path, name: str) -> Path:
    return models / "depth-anything" / name / "model.safetensors"


def difference(value: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(value.numpy() - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("count", [1, 2, 5])
@torch.inference_mode()
def test_the_packages_depth_and_cameras(golden, models, count):
    """From three frames on the network chooses its reference, and gives everything in the frames' own order."""
    network = load_network(MultiViewNetwork, file_of(models, "DA3-SMALL"), TOY_VIEWS)
    found = network(torch.from_numpy(golden["frames"][:count]))
    assert difference(found.depth, golden[f"views/{count}/depth"]) < 1e-5
    assert difference(found.confidence, golden[f"views/{count}/depth_conf"]) < 1e-5
    extrinsics = invert_rigid(found.camera_to_world.numpy())[:, :3]
    assert np.allclose(extrinsics, golden[f"views/{count}/extrinsics"], atol=1e-4)
    focal = np.array([42, 28]) / 2 / (found.fields_of_view / 2).tan().numpy()
    assert np.allclose(focal, golden[f"views/{count}/intrinsics"][:, [0, 1], [0, 1]], rtol=1e-4)


@torch.inference_mode()
def test_the_packages_metric_depth_and_sky(golden, models):
    network = load_network(MetricNetwork, file_of(models, "DA3METRIC-LARGE"), TOY_METRIC)
    depth, sky = network(torch.from_numpy(golden["frames"]))
    assert difference(depth, golden["metric/depth"][:, 0]) < 1e-5
    assert difference(sky, golden["metric/sky"][:, 0]) < 1e-5


def test_what_the_file_holds_besides_is_known_and_nothing_else(golden, models, tmp_path):
    """The encoder of known cameras and the head for rays are in the file; a tensor that nobody knows is an error."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(file_of(models, "DA3-SMALL"))
    assert any(name.startswith("model.cam_enc.") for name in tensors)
    assert len(tensors) == len(json.loads(str(golden["views/layout"])))
    path = tmp_path / "model.safetensors"
    save_file({**tensors, "model.gs_head.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"gs_head"):
        load_network(MultiViewNetwork, path, TOY_VIEWS)
    del tensors["model.cam_dec.fc_t.bias"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"missing \(cam_dec.fc_t.bias\)"):
        load_network(MultiViewNetwork, path, TOY_VIEWS)


def test_rotations_of_quaternions():
    half = np.sqrt(0.5)
    around_y = rotations(torch.tensor([[0, half, 0, half], [0, 0, 0, -3]], dtype=torch.float64)).numpy()
    assert np.allclose(around_y[0], [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]) and np.allclose(around_y[1], np.eye(3))


def test_the_reference_goes_first_and_the_others_keep_their_order():
    first = torch.tensor([[1.0, 0.0, 0.1], [0.0, 3.0, 0.0], [0.8, 0.9, 0.5], [0.9, 0.1, 0.0]])
    order = reference_first(first).tolist()
    assert order[1:] == sorted(order[1:]) and sorted(order) == [0, 1, 2, 3]


def test_the_sky_is_as_far_as_the_farthest_thing():
    depth, solid = torch.arange(1.0, 101.0).reshape(10, 10), torch.ones(10, 10, dtype=torch.bool)
    assert torch.equal(with_far_sky(depth, solid), depth), "without a sky nothing changes"
    solid[:2] = False
    found = with_far_sky(depth, solid)
    assert torch.equal(found[2:], depth[2:]) and (found[:2] == found[0, 0]).all() and 98 < found[0, 0] < 100


def test_a_clip_longer_than_a_window_has_one_camera_for_each_frame(models, write_clip):
    footage, reports = write_clip(frames=45, width=84, height=56), []
    model = DepthAnything3Small.load(models, CPU, torch.float32, TOY_VIEWS, longer_side=42)
    assert model.working_size(1920, 1080) == (42, 28) and model.working_size(100, 4000) == (14, 42)
    clip = ModelEstimator(model).estimate(footage, lambda done, total: reports.append(done))
    depth = np.stack(list(clip))
    assert depth.shape == (45, 56, 84) and np.isfinite(depth).all() and depth.min() > 0
    assert reports == sorted(reports) and reports[-1] == 45
    assert clip.camera is not None and len(clip.camera) == 45 and clip.camera.size == (84, 56)
    assert np.array_equal(clip.camera.world_to_camera[0], np.eye(4))
    assert np.array_equal(clip.camera.intrinsics, clip.intrinsics)
    assert clip.scale == "relative"
    assert len(clip.first(7).camera) == 7


def test_metres_follow_from_the_lens(models, write_clip):
    footage = write_clip(frames=2, width=84, height=56)

    def depth(focal: float | None) -> np.ndarray:
        model = DepthAnything3Metric.load(models, CPU, torch.float32, focal, TOY_METRIC, longer_side=42)
        clip = ModelEstimator(model, edges=None, temporal_alignment=False).estimate(footage)
        assert clip.scale == "metric" and clip.camera is None
        return np.stack(list(clip))

    assert np.allclose(depth(2.0), 2 * depth(1.0), rtol=1e-5)
    assert np.allclose(depth(None), depth(0.5 / np.tan(np.radians(25))), rtol=1e-5), "50 degrees, as is assumed"
    # The package's rule: depth is the network's times the focal length in pixels of its own images, over 300.
    raw = next(
        DepthAnything3Metric.load(models, CPU, torch.float32, 1.0, TOY_METRIC, longer_side=42).predict(
            iter([torch.full((3, 28, 42), 0.5)]), lambda *_: None
        )
    )
    model = DepthAnything3Metric.load(models, CPU, torch.float32, 1.0, TOY_METRIC, longer_side=42)
    next(model.predict(iter([torch.full((3, 28, 42), 0.5)]), lambda *_: None))
    assert np.allclose(model.depth(raw, 0, 1), 42 / 300 / raw, rtol=1e-5)
