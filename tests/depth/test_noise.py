"""Noise in the pixels of depth: found where it is, smoothed by as much, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ex4d.depth.depth_files import DepthFiles
from ex4d.depth.depth_settings import EdgeSettings
from ex4d.depth.edges import refined_depth
from ex4d.depth.noise import depth_without_noise, found_noise, without_noise
from ex4d.media import probe
from ex4d.pipeline.footage_depth import depth_of
from ex4d_core.sources import DepthSettings

DATA = Path(__file__).resolve().parents[1] / "data"
HEIGHT, WIDTH = 96, 128


def street() -> np.ndarray:
    """Ground up to a far wall, a ball and thin poles before it: disparity (H, W)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    disparity = np.maximum(0.06, 0.004 * (y - 40))
    inside = np.hypot(x - 90, y - 50) < 20
    ball = 0.25 + 0.0015 * np.sqrt(np.maximum(400 - (x - 90) ** 2 - (y - 50) ** 2, 0))
    disparity = np.where(inside, ball, disparity)
    return np.where((x % 31 < 2) & (x < 70) & (y < 80), 0.33, disparity).astype(np.float32)


def noisy(disparity: np.ndarray, share: float, power: float = 1) -> torch.Tensor:
    """Noise of a share of the disparity, or of one that grows or falls with it."""
    random = np.random.default_rng(7).standard_normal(disparity.shape)
    scale = share * np.median(disparity) * (disparity / np.median(disparity)) ** power
    return torch.from_numpy((disparity + scale * random).astype(np.float32))


@pytest.mark.parametrize("share", [0.003, 0.01, 0.03])
def test_how_strong_the_noise_is(share):
    noise = found_noise(noisy(street(), share))
    assert noise is not None and noise.share == pytest.approx(share, rel=0.15)


@pytest.mark.parametrize("power", [0, 2])
def test_noise_that_depends_on_how_far_things_are(power):
    """Of a stereo camera's disparity it is even; a time-of-flight camera's is another."""
    noise = found_noise(noisy(street(), 0.01, power))
    assert noise is not None
    far, near = (float(noise.sigma[place].median()) for place in (np.s_[:30], np.s_[-6:]))
    truth = (0.216 / 0.06) ** power
    assert near / far == pytest.approx(truth, rel=0.35)


@pytest.mark.parametrize("share", [0.003, 0.01, 0.03])
def test_noise_goes_and_edges_stay(share):
    true = street()
    spoilt = noisy(true, share)
    clean = without_noise(spoilt).numpy()
    before, after = np.abs(spoilt.numpy() / true - 1), np.abs(clean / true - 1)
    print(f"median error {np.median(before):.2%} -> {np.median(after):.2%}")
    assert np.median(after) < 0.3 * np.median(before)
    assert after.mean() < 0.5 * before.mean(), "poles and the ball's rim are in the mean"
    step = (clean[50, 72] - clean[50, 68]) / (true[50, 72] - true[50, 68])
    assert step > 0.9, "the ball's rim"


def exact_frames() -> list[np.ndarray]:
    """Of the committed scenes, one in half precision; and a made one."""
    frames = [1 / street()]
    for name in ("sample", "moving_camera"):
        footage = replace(probe(DATA / name / "footage.mp4"))
        frames.append(next(iter(DepthFiles(DATA / name / "depth.npz").estimate(footage))))
    return frames


def test_depth_without_noise_keeps_every_bit():
    """Half precision, blur and relief are not noise; and sharp edges are none to refine."""
    for depth in exact_frames():
        assert found_noise(1 / torch.from_numpy(depth)) is None
        assert depth_without_noise(depth) is depth
        image = np.zeros((*depth.shape, 3), np.uint8)
        assert np.array_equal(refined_depth(torch.from_numpy(depth), image, EdgeSettings()), depth)


def test_relief_of_every_size_is_no_noise():
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    for period in (3, 5, 9, 20):
        waves = 0.3 * (1 + 0.02 * np.sin(2 * np.pi * x / period) * np.cos(2 * np.pi * y / (period + 1)))
        assert period == 3 or found_noise(torch.from_numpy(waves.astype(np.float32))) is None
    leaves = np.random.default_rng(1).random((HEIGHT // 4, WIDTH // 4)).repeat(4, 0).repeat(4, 1)
    assert found_noise(torch.from_numpy((0.2 + 0.1 * leaves).astype(np.float32))) is None


@pytest.mark.parametrize("shape", [(1, 1), (4, 200), (8, 8), (96, 9)])
def test_frames_of_any_size(shape):
    disparity = 0.5 + 0.005 * torch.randn(shape, generator=torch.Generator().manual_seed(2))
    found = without_noise(disparity)
    assert found.shape == disparity.shape and torch.isfinite(found).all()


def test_holes_stay_holes():
    """Holes that were filled with the farthest depth are edges, and are neither smoothed in nor grown."""
    true = street()
    spoilt = noisy(true, 0.01).numpy()
    holes = np.zeros(true.shape, bool)
    holes[60:75, 20:40] = holes[30:33, 100:103] = True
    spoilt[holes] = spoilt.min()
    clean = without_noise(torch.from_numpy(spoilt)).numpy()
    assert np.abs(clean[holes] / spoilt.min() - 1).max() < 0.05
    around = ~holes & (true > 0.1)
    assert np.median(np.abs(clean / true - 1)[around]) < 0.005
    depth = refined_depth(torch.from_numpy(1 / clean), np.zeros((*true.shape, 3), np.uint8), EdgeSettings())
    assert np.array_equal(depth, 1 / clean), "the edge of a hole is sharp"


def test_files_are_smoothed_when_asked_only(write_clip, tmp_path):
    footage = write_clip(frames=2, width=WIDTH, height=HEIGHT)
    depth = np.stack([1 / noisy(street(), 0.01).numpy()] * 2)
    np.savez(tmp_path / "depth.npz", depth=depth)
    for setting, is_same in (("auto", True), ("off", True), ("on", False)):
        settings = DepthSettings("array", noise_filter=setting)
        clip = depth_of(tmp_path / "depth.npz", settings, footage, device="cpu")
        assert np.array_equal(np.stack(list(clip)), depth) == is_same
    assert np.median(np.abs(next(iter(clip)) * street() - 1)) < 0.003
    assert "noise_filter" not in DepthSettings("array").to_wire()
    assert DepthSettings.from_wire(settings.to_wire()) == settings


@pytest.mark.gpu
def test_a_gpu_cleans_as_the_processor_does():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    depth = 1 / noisy(street(), 0.01).numpy()
    smooth = depth_without_noise(depth)
    assert np.allclose(depth_without_noise(depth, "cuda"), smooth, rtol=1e-4)
    soft = 1 / F.avg_pool2d(torch.from_numpy(street())[None, None], 5, 1, 2, count_include_pad=False)[0, 0]
    on_processor, on_gpu = (refined_depth(soft, image, EdgeSettings(), device) for device in ("cpu", "cuda"))
    assert not np.array_equal(on_processor, soft.numpy())
    # Pixels half way between two surfaces may round to either.
    assert (np.abs(on_gpu / on_processor - 1) > 1e-3).mean() < 0.005
