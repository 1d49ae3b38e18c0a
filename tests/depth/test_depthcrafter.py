"""DepthCrafter: the same latents and disparity as the original, from published folders, window by window."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from ex4d.depth.depthcrafter.estimator import DepthCrafter, original_depth
from ex4d.depth.depthcrafter.pipeline import FRAMES_AT_ONCE, Sampling
from ex4d.depth.estimation import ModelEstimator
from ex4d.weights.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
CPU, FLOAT = torch.device("cpu"), torch.float32


def difference(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))


def run(pipeline, video: torch.Tensor, noise, initial: torch.Tensor, sampling: Sampling):
    """Latents (T, 4, h, w) and normalised disparity (T, H, W)."""
    latents = pipeline.denoise(pipeline.encode(video.split(FRAMES_AT_ONCE), noise), initial, sampling)
    disparity = torch.cat(list(pipeline.decode(latents))).mean(dim=1)
    low, high = disparity.min(), disparity.max()
    return latents.numpy(), ((disparity - low) / (high - low)).numpy()


def given(noise: torch.Tensor):
    """Hands out the rows of known noise, as many as are requested."""
    rows = iter(noise)
    return lambda shape: torch.stack([next(rows) for _ in range(shape[0])])


def test_the_originals_results_over_windows_in_this_checkout(toy_models):
    """Three windows of four frames; the original drew all noise from one generator, first the frames', then its own.

    `ex4d parity depth` compares the whole golden data, where that is at hand.
    """
    with np.load(ROOT / "tests" / "data" / "golden" / "depthcrafter_toy.npz") as arrays:
        expected = dict(arrays)
    y, x = np.mgrid[:64, :64]
    waves = [
        [0.5 + 0.35 * np.sin(x / 9 + t / 3 + c) + 0.15 * np.cos(y / 11 - t / 4 * c) for c in range(3)] for t in range(7)
    ]
    video = torch.from_numpy(np.array(waves).clip(0, 1).astype(np.float32))
    generator = torch.Generator().manual_seed(int(expected["seed"]))
    pipeline = DepthCrafter.load(toy_models, CPU, FLOAT).pipeline
    augmentation = torch.randn(video.shape, generator=generator)
    latents, disparity = run(
        pipeline,
        video,
        given(augmentation),
        torch.randn((4, 4, 8, 8), generator=generator),
        Sampling(window=int(expected["window"]), overlap=int(expected["overlap"])),
    )
    assert difference(latents, expected["latents"]) < 1e-3
    assert difference(disparity, expected["disparity"]) < 1e-3


@pytest.mark.parametrize(
    ("frames", "windows"),
    [
        (1, [(0, 1)]),
        (110, [(0, 110)]),
        (111, [(0, 110), (85, 111)]),
        (195, [(0, 110), (85, 195)]),
        (300, [(0, 110), (85, 195), (170, 280), (255, 300)]),
    ],
)
def test_windows_cover_a_clip_of_any_length(frames, windows):
    assert Sampling().windows(frames) == windows


def test_the_originals_conversion():
    depth = original_depth(np.array([0, 1e-9, 0.5, 1], np.float32))
    assert depth == pytest.approx([1e4, 1e4, 10_000 / 1950, 10_000 / 3900])


@pytest.fixture(scope="module")
def depthcrafter(toy_models) -> DepthCrafter:
    return DepthCrafter.load(toy_models, CPU, FLOAT, Sampling(steps=1, window=3, overlap=1))


def test_a_clip_longer_than_a_window_becomes_depth(depthcrafter, write_clip):
    reports = []
    footage = write_clip(frames=4, width=64)
    clip = ModelEstimator(depthcrafter).estimate(footage, lambda done, total: reports.append((done, total)))
    depth = np.stack(list(clip))
    assert depth.shape == (4, 64, 64) and depth.dtype == np.float32
    assert np.isfinite(depth).all() and depth.min() >= 10_000 / 3900 - 1e-3
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert reports[-1] == (4, 4) and len({done for done, _ in reports}) >= 4
    assert (clip.scale, clip.intrinsics, clip.source) == ("relative", None, "DepthCrafter")
    assert "research" in clip.licence
    again = np.stack(list(ModelEstimator(depthcrafter).estimate(footage)))
    assert np.array_equal(again, depth), "the same clip gives the same depth"


def test_a_clip_of_one_frame(depthcrafter, write_clip):
    (depth,) = ModelEstimator(depthcrafter).estimate(write_clip(frames=1, width=64))
    assert depth.shape == (64, 64) and np.isfinite(depth).all()


class Cancelled(Exception):
    pass


def test_cancelling_ends_the_work_inside_a_window(depthcrafter, write_clip):
    """The denoiser reports between its blocks, many times before the first window's first step is done."""
    calls = 0

    def stop(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        ModelEstimator(depthcrafter).estimate(write_clip(frames=3, width=64), stop)
    assert calls == 4


@pytest.mark.parametrize(
    ("size", "working"), [((1920, 1080), (1024, 576)), ((1080, 1920), (576, 1024)), ((100, 60), (128, 64))]
)
def test_the_working_size_is_bounded_and_in_whole_blocks(depthcrafter, size, working):
    assert depthcrafter.working_size(*size) == working


@pytest.fixture
def broken(toy_models, tmp_path) -> Path:
    return Path(shutil.copytree(toy_models, tmp_path / "models"))


def test_an_incomplete_download_is_reported(broken):
    weights = broken / "tencent" / "DepthCrafter" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model.safetensors .*cut off.*ex4d models fetch"):
        DepthCrafter.load(broken, CPU, FLOAT)


def test_weights_that_lack_a_tensor_or_have_another_are_refused(broken):
    from safetensors.torch import load_file, save_file

    weights = broken / "tencent" / "DepthCrafter" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_out.bais"] = tensors.pop("conv_out.bias")
    save_file(tensors, weights)
    with pytest.raises(CheckpointError, match=r"missing \(conv_out.bias\).*unexpected \(conv_out.bais\)"):
        DepthCrafter.load(broken, CPU, FLOAT)


def test_an_image_encoder_that_lacks_a_tensor_is_refused(broken):
    from safetensors.torch import load_file, save_file

    weights = broken / "stabilityai/stable-video-diffusion-img2vid/image_encoder/model.fp16.safetensors"
    tensors = load_file(weights)
    del tensors["visual_projection.weight"]
    save_file(tensors, weights)
    with pytest.raises(CheckpointError, match=r"missing \(visual_projection.weight\)"):
        DepthCrafter.load(broken, CPU, FLOAT)


VIDEO = "stabilityai/stable-video-diffusion-img2vid"


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("tencent/DepthCrafter/config.json", {"block_out_channels": None}),
        ("tencent/DepthCrafter/config.json", {"surprise": 1}),
        (f"{VIDEO}/vae/config.json", {"block_out_channels": []}),
        (f"{VIDEO}/image_encoder/config.json", {"hidden_size": "x"}),
        (f"{VIDEO}/scheduler/scheduler_config.json", {"beta_schedule": "x"}),
        (f"{VIDEO}/feature_extractor/preprocessor_config.json", {"image_mean": None}),
    ],
)
def test_a_configuration_that_no_model_can_be_built_from_is_named(broken, path, change):
    file = broken / path
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=rf"{file.parent}.*cannot be loaded \(.*\). Delete it"):
        DepthCrafter.load(broken, CPU, FLOAT)
