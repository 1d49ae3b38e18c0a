"""How estimators work through a clip: in half precision, in batches that fit memory, with progress, cancellable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from ex4d.depth import DEPTH_MODELS
from ex4d.depth.depth_anything_3 import estimator as depth_anything_3
from ex4d.depth.depthcrafter.estimator import DepthCrafter
from ex4d.depth.depthcrafter.pipeline import FRAMES_AT_ONCE, Sampling
from ex4d.depth.estimation import ClipModel, ModelEstimator, StageProgress
from ex4d.depth.estimator_choice import usual_precision
from ex4d.depth.moge import estimator as moge
from ex4d.depth.per_image import DepthAnything, DepthPro
from ex4d.depth.video_depth_anything.estimator import VideoDepthAnything
from ex4d.depth.video_depth_anything.window_stitching import WINDOW
from tests.depth.conftest import moving_image
from tests.depth.toy_checkpoints import TOY_BACKBONES, TOY_METRIC, TOY_VIDEO_NETWORK, TOY_VIEWS

CPU = torch.device("cpu")
ESTIMATORS = [model.name for model in DEPTH_MODELS]
# More than a window, or than is worked at once.
FRAMES = {
    "depthcrafter": 14,
    "video-depth-anything": 38,
    "depth-anything-3-base": 36,
    "depth-anything-3-small": 40,
    "depth-pro": 6,
    "moge-2": 10,
    "depth-anything-3-metric": 9,
    "moge-2-small": 3,
    "depth-anything-v2": 9,
}
# Their toy networks take this size.
SMALL = ("video-depth-anything", "depth-anything-v2", *(name for name in FRAMES if name.startswith("depth-anything-3")))


@pytest.fixture(scope="module")
def models(toy_models, toy_video_models, toy_newer_models) -> dict[str, Path]:
    folders = {"video-depth-anything": toy_video_models, "depthcrafter": toy_models, "depth-pro": toy_models}
    folders["depth-anything-v2"] = toy_models
    return {name: folders.get(name, toy_newer_models) for name in ESTIMATORS}


def load(name: str, models: dict[str, Path], dtype: torch.dtype = torch.float32) -> ClipModel:
    folder = models[name]
    if name == "depthcrafter":
        return DepthCrafter.load(folder, CPU, dtype, Sampling(steps=2, window=10, overlap=3))
    if name == "video-depth-anything":
        return VideoDepthAnything.load(folder, CPU, dtype, TOY_VIDEO_NETWORK, shorter_side=28)
    if name == "depth-pro":
        return DepthPro.load(folder, CPU, dtype)
    if name == "depth-anything-3-metric":
        return depth_anything_3.DepthAnything3Metric.load(folder, CPU, dtype, 1.0, TOY_METRIC, longer_side=56)
    if name.startswith("depth-anything-3"):
        kind = depth_anything_3.DepthAnything3Base if name.endswith("base") else depth_anything_3.DepthAnything3Small
        return kind.load(folder, CPU, dtype, TOY_VIEWS, longer_side=56)
    if name.startswith("moge"):
        kind = moge.MoGe2Small if name.endswith("small") else moge.MoGe2
        return kind.load(folder, CPU, dtype, 1.0, TOY_BACKBONES)
    return DepthAnything(DepthAnything.load(folder, CPU, dtype)._network, shorter_side=42)


@pytest.fixture(scope="module")
def frames() -> list[torch.Tensor]:
    """A clip (3, 64, 64) each, of a bright bar that moves over waves."""
    y, x = np.mgrid[:64, :64]
    images = []
    for t in range(max(FRAMES.values())):
        waves = np.stack([0.4 + 0.3 * np.sin(x / 9 + t / 3 + c) * np.cos(y / 11 - c) for c in range(3)])
        waves[:, 20:40, t : t + 12] = 0.9
        images.append(torch.from_numpy(waves.astype(np.float32)))
    return images


def ready(name: str, frames: list[torch.Tensor]) -> list[torch.Tensor]:
    """As many as make sense, in the size that the toy models take."""
    frames = frames[: FRAMES[name]]
    if name in SMALL:
        return [frame[:, :42, :56].contiguous() for frame in frames]
    return frames


def raw(model: ClipModel, frames: list[torch.Tensor]) -> np.ndarray:
    return np.stack(list(model.predict(iter(frames), lambda stage, count: None)))


def test_half_precision_is_the_default_on_a_gpu_and_nowhere_else():
    for model in DEPTH_MODELS:
        assert usual_precision(model, torch.device("cuda")) == getattr(torch, model.half) != torch.float32
        assert usual_precision(model, CPU) == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_half_precision_stays_near_full_precision(name, dtype, models, frames):
    clip = ready(name, frames)[:2]
    half, full = raw(load(name, models, dtype), clip), raw(load(name, models), clip)
    assert np.isfinite(half).all() and half.dtype == np.float32
    error = np.linalg.norm(half - full) / np.linalg.norm(full - full.mean())
    print(f"{name} in {dtype}: {error:.2%} of what the disparity varies by")
    # bfloat16 keeps 8 bits of a number, float16 11; the toy networks amplify what is lost.
    bound = {torch.float16: 0.02, torch.bfloat16: 0.15}[dtype]
    assert error < (2 * bound if name.startswith("moge") else bound), "whose head is in half precision, too"


@contextmanager
def frames_at_once(module: torch.nn.Module, axis: int = 0) -> Iterator[list[int]]:
    """How many frames a network gets at once."""
    counts: list[int] = []
    handle = module.register_forward_pre_hook(
        lambda _, given, named: counts.append((given or tuple(named.values()))[0].shape[axis]), with_kwargs=True
    )
    yield counts
    handle.remove()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_clip_is_processed_in_batches(name, models, frames):
    """However long a clip is, the largest batch is the same, and so is the memory that it takes."""
    model, clip = load(name, models), ready(name, frames)
    if name == "depthcrafter":
        pipeline = model.pipeline
        with (
            frames_at_once(pipeline.vae.encoder) as encoded,
            frames_at_once(pipeline.image_encoder) as embedded,
            frames_at_once(pipeline.unet, axis=1) as denoised,
            frames_at_once(pipeline.vae.decoder) as decoded,
        ):
            raw(model, clip)
        assert max(encoded) == max(embedded) == max(decoded) == FRAMES_AT_ONCE
        assert max(denoised) == model.sampling.window
        return
    largest = {"depth-pro": 1, "moge-2": 1, "moge-2-small": 1, "depth-anything-v2": 4, "depth-anything-3-metric": 4}
    largest = largest.get(name, WINDOW)
    with frames_at_once(model._network) as counts:
        raw(model, clip)
    assert max(counts) == largest and sum(counts) >= len(clip)
    if name == "video-depth-anything":
        with frames_at_once(model._network.head.scratch.output_conv2) as widest:
            raw(model, clip)
        assert max(widest) == 4


class Clip:
    """A model whose working size is given."""

    def __init__(self, model: ClipModel, size: tuple[int, int]) -> None:
        self._model, self._size = model, size

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        return self._size


def estimator(name: str, models: dict[str, Path], align: bool = False) -> ModelEstimator:
    size = (56, 42) if name in SMALL else (64, 64)
    return ModelEstimator(Clip(load(name, models), size), temporal_alignment=align, edges=None)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_progress_is_reported_frame_by_frame(name, models, write_clip):
    frames, reports = FRAMES[name], []
    footage = write_clip(frames=frames, width=64, height=64)
    estimator(name, models).estimate(footage, lambda done, total: reports.append((done, total)))
    done = [number for number, _ in reports]
    assert {total for _, total in reports} == {frames}
    assert done[0] <= 1 and done[-1] == frames and done == sorted(done)
    leaps = np.diff(done)
    print(f"{name}: {len(reports)} reports, largest step {leaps.max()} frames of {frames}")
    assert leaps.max() <= 5, "no window is reported at once"


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kind", ["one frame", "shorter than a window", "black", "black in between", "still"])
def test_awkward_clips(name, kind, models, write_clip):
    """Clips longer than a window are the ones above."""
    black = np.zeros((64, 64, 3), np.uint8)
    images = {
        "one frame": [moving_image(0, 64, 64)],
        "shorter than a window": [moving_image(index, 64, 64) for index in range(4)],
        "black": [black] * 3,
        "black in between": [moving_image(0, 64, 64), black, black, moving_image(3, 64, 64)],
        "still": [moving_image(0, 64, 64)] * 4,
    }[kind]
    clip = estimator(name, models, align=True).estimate(write_clip(frames=len(images), images=images))
    depth = np.stack(list(clip))
    assert depth.shape == (len(images), 64, 64)
    assert np.isfinite(depth).all() and depth.min() > 0


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("name", ESTIMATORS)
def test_cancelling_ends_the_work_within_a_window(name, models, write_clip):
    footage, calls = write_clip(frames=FRAMES[name], width=64, height=64), []

    def stop(done: int, total: int) -> None:
        calls.append(done)
        if done >= 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        estimator(name, models).estimate(footage, stop)
    assert calls[-1] <= 8 < WINDOW, "long before a window is done"


@pytest.mark.parametrize(("frames", "calls"), [(110, 45), (3, 16), (32, 16), (5, 1)])
def test_stage_progress_reports_every_frame_once(frames, calls):
    reported = []
    progress = StageProgress(lambda stage, count: reported.append(count), "work", frames, calls)
    for _ in range(calls + 2):  # more calls than expected do no harm
        progress.tick()
    progress.finish()
    assert sum(reported) == frames and min(reported) >= 0
    assert max(reported) <= max(1, -(-frames // calls))
