"""How estimators work through a clip: in half precision, in pieces that fit memory, told frame by frame, stoppable."""

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
from ex4d.depth.depthcrafter.estimator import DepthCrafter
from ex4d.depth.depthcrafter.pipeline import FRAMES_AT_ONCE, Sampling
from ex4d.depth.estimation import ClipModel, ModelEstimator, Share
from ex4d.depth.estimator_choice import usual_precision
from ex4d.depth.per_image import DepthAnything, DepthPro
from ex4d.depth.video_depth_anything.estimator import VideoDepthAnything
from ex4d.depth.video_depth_anything.windows import WINDOW
from tests.depth.conftest import moving_picture
from tests.depth.toy_checkpoints import TOY_VIDEO_NETWORK

CPU = torch.device("cpu")
ESTIMATORS = [model.name for model in DEPTH_MODELS]
# More than a window, or than is worked at once.
FRAMES = {"depthcrafter": 14, "video-depth-anything": 38, "depth-pro": 6, "depth-anything-v2": 9}


@pytest.fixture(scope="module")
def models(toy_models, toy_video_models) -> dict[str, Path]:
    return {name: toy_video_models if name == "video-depth-anything" else toy_models for name in ESTIMATORS}


def load(name: str, models: dict[str, Path], dtype: torch.dtype = torch.float32) -> ClipModel:
    folder = models[name]
    if name == "depthcrafter":
        return DepthCrafter.load(folder, CPU, dtype, Sampling(steps=2, window=10, overlap=3))
    if name == "video-depth-anything":
        return VideoDepthAnything.load(folder, CPU, dtype, TOY_VIDEO_NETWORK, shorter_side=28)
    if name == "depth-pro":
        return DepthPro.load(folder, CPU, dtype)
    return DepthAnything(DepthAnything.load(folder, CPU, dtype)._network, shorter_side=42)


@pytest.fixture(scope="module")
def frames() -> list[torch.Tensor]:
    """A clip (3, 64, 64) each, of a bright bar that moves over waves."""
    y, x = np.mgrid[:64, :64]
    pictures = []
    for t in range(max(FRAMES.values())):
        waves = np.stack([0.4 + 0.3 * np.sin(x / 9 + t / 3 + c) * np.cos(y / 11 - c) for c in range(3)])
        waves[:, 20:40, t : t + 12] = 0.9
        pictures.append(torch.from_numpy(waves.astype(np.float32)))
    return pictures


def ready(name: str, frames: list[torch.Tensor]) -> list[torch.Tensor]:
    """As many as make sense, in the size that the toy models take."""
    frames = frames[: FRAMES[name]]
    if name in ("video-depth-anything", "depth-anything-v2"):
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
def test_half_precision_stays_near_the_whole(name, dtype, models, frames):
    clip = ready(name, frames)[:2]
    half, whole = raw(load(name, models, dtype), clip), raw(load(name, models), clip)
    assert np.isfinite(half).all() and half.dtype == np.float32
    error = np.linalg.norm(half - whole) / np.linalg.norm(whole - whole.mean())
    print(f"{name} in {dtype}: {error:.2%} of what the disparity varies by")
    # bfloat16 keeps 8 bits of a number, float16 11; the toy networks amplify what is lost.
    assert error < {torch.float16: 0.02, torch.bfloat16: 0.15}[dtype]


@contextmanager
def batches(module: torch.nn.Module, axis: int = 0) -> Iterator[list[int]]:
    """How many frames a network gets at once."""
    seen: list[int] = []
    handle = module.register_forward_pre_hook(
        lambda _, given, named: seen.append((given or tuple(named.values()))[0].shape[axis]), with_kwargs=True
    )
    yield seen
    handle.remove()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_clip_is_worked_in_pieces(name, models, frames):
    """However long a clip is, the largest piece is the same, and so is the memory that it takes."""
    model, clip = load(name, models), ready(name, frames)
    if name == "depthcrafter":
        pipeline = model.pipeline
        with (
            batches(pipeline.vae.encoder) as encoded,
            batches(pipeline.image_encoder) as embedded,
            batches(pipeline.unet, axis=1) as denoised,
            batches(pipeline.vae.decoder) as decoded,
        ):
            raw(model, clip)
        assert max(encoded) == max(embedded) == max(decoded) == FRAMES_AT_ONCE
        assert max(denoised) == model.sampling.window
        return
    largest = {"video-depth-anything": WINDOW, "depth-anything-v2": 4, "depth-pro": 1}[name]
    with batches(model._network) as seen:
        raw(model, clip)
    assert max(seen) == largest and sum(seen) >= len(clip)
    if name == "video-depth-anything":
        with batches(model._network.head.scratch.output_conv2) as widest:
            raw(model, clip)
        assert max(widest) == 4


class Clip:
    """A model of which the estimator asks the size of the clip at hand."""

    def __init__(self, model: ClipModel, size: tuple[int, int]) -> None:
        self._model, self._size = model, size

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        return self._size


def estimator(name: str, models: dict[str, Path], steady: bool = False) -> ModelEstimator:
    small = {"video-depth-anything": (56, 42), "depth-anything-v2": (56, 42)}
    return ModelEstimator(Clip(load(name, models), small.get(name, (64, 64))), steady=steady, edges=None)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_progress_is_told_frame_by_frame(name, models, write_clip):
    frames, told = FRAMES[name], []
    footage = write_clip(frames=frames, width=64, height=64)
    estimator(name, models).estimate(footage, lambda done, total: told.append((done, total)))
    done = [number for number, _ in told]
    assert {total for _, total in told} == {frames}
    assert done[0] <= 1 and done[-1] == frames and done == sorted(done)
    leaps = np.diff(done)
    print(f"{name}: {len(told)} reports, largest step {leaps.max()} frames of {frames}")
    assert leaps.max() <= 5, "no window is told as one lump"


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kind", ["one frame", "shorter than a window", "black", "black in between", "still"])
def test_awkward_clips(name, kind, models, write_clip):
    """Clips longer than a window are the ones above."""
    black = np.zeros((64, 64, 3), np.uint8)
    pictures = {
        "one frame": [moving_picture(0, 64, 64)],
        "shorter than a window": [moving_picture(index, 64, 64) for index in range(4)],
        "black": [black] * 3,
        "black in between": [moving_picture(0, 64, 64), black, black, moving_picture(3, 64, 64)],
        "still": [moving_picture(0, 64, 64)] * 4,
    }[kind]
    clip = estimator(name, models, steady=True).estimate(write_clip(frames=len(pictures), pictures=pictures))
    depth = np.stack(list(clip))
    assert depth.shape == (len(pictures), 64, 64)
    assert np.isfinite(depth).all() and depth.min() > 0


class Stopped(Exception):
    pass


@pytest.mark.parametrize("name", ESTIMATORS)
def test_cancelling_ends_the_work_within_a_window(name, models, write_clip):
    footage, calls = write_clip(frames=FRAMES[name], width=64, height=64), []

    def stop(done: int, total: int) -> None:
        calls.append(done)
        if done >= 3:
            raise Stopped

    with pytest.raises(Stopped):
        estimator(name, models).estimate(footage, stop)
    assert calls[-1] <= 8 < WINDOW, "long before a window is done"


@pytest.mark.parametrize(("frames", "calls"), [(110, 45), (3, 16), (32, 16), (5, 1)])
def test_a_share_tells_every_frame_once(frames, calls):
    told = []
    share = Share(lambda stage, count: told.append(count), "work", frames, calls)
    for _ in range(calls + 2):  # more calls than were expected do no harm
        share.tick()
    share.finish()
    assert sum(told) == frames and min(told) >= 0
    assert max(told) <= max(1, -(-frames // calls))
