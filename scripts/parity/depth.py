"""Compares DepthCrafter with the original: a folder with unet/, svd/ and expected.npz, laid out like the golden data.

Every case of expected.npz (``NAME_video``, ``NAME_settings``, ...) goes through the estimator's own loading code and
pipeline in float32, with the noise that the original drew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ex4d.depth.depth_models import depth_model
from ex4d.devices import torch_device
from ex4d.weights.catalogue import DEPTHCRAFTER
from parity.comparison import Comparison, ParityCaseError, compare_arrays, read_case

if TYPE_CHECKING:
    from ex4d.depth.depthcrafter.pipeline import DepthCrafterPipeline

# Relative L2 to the original, which computed in float32 too.
BOUND = 1e-3
# Of the conversion alone, from the original's own disparity.
DEPTH_BOUND = 1e-5

_PARTS = ("settings", "video", "augmentation_noise", "initial_noise", "latents", "frames", "disparity", "depth")
_SETTINGS = ("num_inference_steps", "guidance_scale", "window_size", "overlap")


def compare_depth(folder: Path, device: str = "cpu") -> Iterator[Comparison]:
    """Every comparison of a folder's cases, each as soon as it is done.

    Raises:
        ParityCaseError: a file is missing or not laid out like the golden data.
        CheckpointError: weights cannot be loaded.
        EstimatorUnavailableError: a package is missing.
    """
    depth_model(DEPTHCRAFTER).require_packages()
    from ex4d.depth.depthcrafter.estimator import load_pipeline

    case = read_case(folder / "expected.npz", ())
    names = [key.removesuffix("_settings") for key in case if key.endswith("_settings")]
    if not names:
        raise ParityCaseError(f"{folder / 'expected.npz'} has no NAME_settings, so no case to compare with")
    pipeline = load_pipeline(folder / "unet", folder / "svd", torch_device(device), torch.float32)
    for name in names:
        missing = [f"{name}_{part}" for part in _PARTS if f"{name}_{part}" not in case]
        if missing:
            raise ParityCaseError(f"{folder / 'expected.npz'} lacks the arrays {', '.join(missing)}")
        yield from _case(pipeline, name, {part: case[f"{name}_{part}"] for part in _PARTS})


def _case(pipeline: DepthCrafterPipeline, name: str, case: dict[str, np.ndarray]) -> Iterator[Comparison]:
    from ex4d.depth.depthcrafter.estimator import original_depth
    from ex4d.depth.depthcrafter.pipeline import FRAMES_AT_ONCE, Sampling

    try:
        sampling = Sampling(*(json.loads(str(case["settings"]))[key] for key in _SETTINGS))
    except (KeyError, ValueError) as error:
        raise ParityCaseError(f"{name}_settings is not laid out like the golden data: {error!r}") from error
    video = _float32(case["video"]).permute(0, 3, 1, 2)
    conditioning = pipeline.encode(video.split(FRAMES_AT_ONCE), _known_noise(case["augmentation_noise"]))
    latents = pipeline.denoise(conditioning, _float32(case["initial_noise"])[0], sampling)
    frames = torch.cat(list(pipeline.decode(latents))).permute(0, 2, 3, 1).cpu().numpy()
    disparity = frames.mean(axis=3)
    disparity = (disparity - disparity.min()) / max(float(np.ptp(disparity)), 1e-12)
    for part, ours, bound in (
        ("latents", latents.cpu().numpy()[None], BOUND),
        ("frames", frames, BOUND),
        ("disparity", disparity, BOUND),
        ("depth", original_depth(case["disparity"]), DEPTH_BOUND),
    ):
        yield compare_arrays(f"{name}, {part}", ours, case[part], bound)


def _known_noise(noise: np.ndarray) -> Callable[[tuple[int, ...]], torch.Tensor]:
    """Hands out known noise, as many rows at a time as are requested."""
    rows = iter(_float32(noise))
    return lambda shape: torch.stack([next(rows) for _ in range(shape[0])])


def _float32(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
