"""Video Depth Anything: the original code's disparity from its own checkpoint layout, and clips of any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from ex4d.depth.estimation import ModelEstimator
from ex4d.depth.video_depth_anything.checkpoint import load_network
from ex4d.depth.video_depth_anything.estimator import VideoDepthAnything
from ex4d.depth.video_depth_anything.network import NetworkSize
from ex4d.depth.video_depth_anything.window_stitching import (
    WINDOW,
    fitted_to_key_frames,
    fitted_to_shared_frames,
    scale_and_shift,
    stitched_windows,
)
from ex4d.weights.errors import CheckpointError
from tests.depth.toy_checkpoints import GOLDEN
from tests.depth.toy_checkpoints import TOY_VIDEO_NETWORK as TOY

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """Weights, frames, and what the original repository's code computed with them."""
    with np.load(GOLDEN / "video_depth_anything.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def models(toy_video_models) -> Path:
    return toy_video_models


@pytest.fixture(scope="module")
def network(models):
    return load_network(next(models.rglob("*.pth")), TOY, torch.float32)


def normalised(frames: np.ndarray) -> torch.Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(frames).float() / 255 - mean) / std).permute(0, 3, 1, 2)


def difference(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))


@torch.inference_mode()
def test_the_originals_disparity_of_one_window(golden, network):
    disparity = network(normalised(golden["frames"][:6])).numpy()
    assert difference(disparity, golden["single"]) < 1e-3


@torch.inference_mode()
def test_the_originals_disparity_over_two_windows(golden, network):
    """By its own fit; the other fit differs by little where windows agree."""
    frames = normalised(golden["frames"])
    disparity = torch.stack(list(stitched_windows(frames, network, fitted_to_key_frames))).numpy()
    assert disparity.shape == golden["long"].shape == (40, 28, 42)
    assert difference(disparity, golden["long"]) < 1e-3


@pytest.mark.parametrize("fit", [fitted_to_shared_frames, fitted_to_key_frames])
@pytest.mark.parametrize("frames", [1, 24, 32, 33, 54, 55, 80])
def test_windows_of_any_scale_become_one_clip(frames, fit):
    """Every window comes back with another factor and offset; the clip has one."""
    truth = torch.rand(frames, 6, 8, generator=torch.Generator().manual_seed(0)) + 1
    windows = 0

    def predict(inputs: torch.Tensor) -> torch.Tensor:
        nonlocal windows
        assert len(inputs) == WINDOW
        windows += 1
        return inputs[:, 0] / windows + 0.05 * (windows - 1)

    found = torch.stack(list(stitched_windows((one.expand(3, -1, -1) for one in truth), predict, fit)))
    assert torch.allclose(found, truth, atol=1e-4)
    assert windows == max(1, -(-(frames - 10) // 22))


def test_a_window_that_errs_in_one_frame_does_not_bend_the_clip():
    """Every window sees its frames a little differently, and something that is not there in one of its key frames."""
    frames, random = 340, torch.Generator().manual_seed(3)
    truth = 1 + torch.rand(frames, 12, 16, generator=random)

    def predict(inputs: torch.Tensor) -> torch.Tensor:
        factor = 1 + 0.02 * torch.randn(len(inputs), 1, 1, generator=random)
        found = inputs[:, 0] * factor
        found[1, :6, :8] += 2
        return found * (0.5 + float(torch.rand(1, generator=random)))

    def scale_error(fit) -> float:
        """Of the clip's last half, on the average over frames."""
        random.manual_seed(4)
        found = torch.stack(list(stitched_windows((one.expand(3, -1, -1) for one in truth), predict, fit)))
        scales = (found / truth).flatten(1).median(dim=1).values
        return float((scales[frames // 2 :] / scales[:24].mean()).log().abs().mean())

    by_two, by_all = scale_error(fitted_to_key_frames), scale_error(fitted_to_shared_frames)
    print(f"scale off by {by_two:.1%} with two frames, {by_all:.1%} with all")
    assert by_all < 0.5 * by_two and by_all < 0.03


def test_constant_values_have_no_scale():
    assert scale_and_shift(torch.ones(5), torch.full((5,), 3.0)) == (1.0, 0.0)


def test_a_clip_becomes_depth(models, write_clip):
    footage = write_clip(frames=34, width=56, height=42)
    reports = []
    estimator = ModelEstimator(VideoDepthAnything.load(models, CPU, torch.float32, TOY, shorter_side=28))
    clip = estimator.estimate(footage, lambda done, total: reports.append(done))
    depth = np.stack(list(clip))
    assert depth.shape == (34, 42, 56) and np.isfinite(depth).all() and depth.min() > 0
    assert reports == sorted(reports) and reports[-1] == 34
    assert clip.licence == "Apache-2.0"


def test_cancelling_ends_the_work_inside_a_window(models, write_clip):
    model = VideoDepthAnything.load(models, CPU, torch.float32, TOY, shorter_side=28)
    calls = []

    def stop(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ModelEstimator(model).estimate(write_clip(frames=3, width=56, height=42), stop)
    assert calls == [0, 0, 0], "before the window was done"


def test_an_incomplete_download_is_reported(models, tmp_path):
    whole = next(models.rglob("*.pth")).read_bytes()
    file = tmp_path / "video_depth_anything_vits.pth"
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cut off"):
        load_network(file, TOY, torch.float32)
    with pytest.raises(CheckpointError, match=r"no\.pth"):
        load_network(tmp_path / "no.pth", TOY, torch.float32)


def test_weights_of_another_size_are_refused(models):
    with pytest.raises(CheckpointError, match="is not the VideoDepthNetwork it should be"):
        load_network(next(models.rglob("*.pth")), NetworkSize(), torch.float32)


def test_a_pickle_with_code_is_never_run(tmp_path):
    import os

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    torch.save({"pretrained.cls_token": Bomb()}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError):
        load_network(tmp_path / "weights.pth", TOY, torch.float32)
    assert not (tmp_path / "exploded").exists()
