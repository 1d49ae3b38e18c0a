"""Measures the speed and memory of depth estimators on this machine: full-size networks with random weights.

Speed does not depend on the weights, so nothing needs to be downloaded. `ex4d bench depth` prints the table.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from bench import estimator_configs as published
from ex4d.depth.depth_models import DEPTH_MODELS, DepthModel
from ex4d.depth.estimation import ClipModel
from ex4d.depth.estimator_choice import usual_precision
from ex4d.weights.catalogue import (
    DEPTH_ANYTHING_3_BASE,
    DEPTH_ANYTHING_3_METRIC,
    DEPTH_PRO,
    DEPTHCRAFTER,
    MOGE_2,
    MOGE_2_SMALL,
    VIDEO_DEPTH_ANYTHING,
)

Network = TypeVar("Network", bound=torch.nn.Module)

# Figures of the authors, for the last column: milliseconds a frame, gigabytes, and where.
PUBLISHED = {
    DEPTHCRAFTER: "466 ms, 26 GB at 1024x576 (A100)",
    VIDEO_DEPTH_ANYTHING: "7.5 ms, 6.8 GB at 518x518 (A100, half precision)",
}


@dataclass(frozen=True)
class Speed:
    """One estimator's figures.

    Attributes:
        model: its entry in the catalogue.
        size: (width, height) that the network works at.
        frames: how many were measured, after a few to warm up.
        seconds: a frame, networks only: neither reading footage nor refining edges.
        gigabytes: largest GPU memory allocated; None on a CPU.
    """

    model: DepthModel
    size: tuple[int, int]
    frames: int
    seconds: float
    gigabytes: float | None


def measure_estimators(names: list[str], frames: int, width: int, height: int, device: torch.device) -> Iterator[Speed]:
    """Measures estimators one after the other, each loaded alone.

    Args:
        names: of models; empty for all.
        frames: length of the clip.

    Raises:
        EstimatorUnavailableError: a package is missing.
    """
    for model in DEPTH_MODELS:
        if names and model.name not in names:
            continue
        model.require_packages()
        yield _measured(random_model(model, device), frames, width, height, device)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _measured(model: ClipModel, frames: int, width: int, height: int, device: torch.device) -> Speed:
    size = model.working_size(width, height)
    clip = torch.rand(8, 3, size[1], size[0], device=device)

    def run(count: int) -> int:
        return sum(1 for _ in model.predict((clip[index % 8] for index in range(count)), lambda *_: None))

    run(min(frames, len(clip)))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    run(frames)  # every prediction comes back to the CPU, so the clock stops when all is done
    seconds = (time.perf_counter() - start) / frames
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    return Speed(model.model, size, frames, seconds, peak)


def random_model(model: DepthModel, device: torch.device) -> ClipModel:
    """The full-size network with random weights, in the precision that it runs in."""
    dtype = usual_precision(model, device)
    with torch.device(device):
        if model.name == DEPTHCRAFTER:
            return _depthcrafter(device, dtype)
        if model.name == VIDEO_DEPTH_ANYTHING:
            from ex4d.depth.video_depth_anything.estimator import VideoDepthAnything
            from ex4d.depth.video_depth_anything.network import NetworkSize, VideoDepthNetwork

            return VideoDepthAnything(_ready(VideoDepthNetwork(NetworkSize()), device, dtype))
        if model.name.startswith("depth-anything-3"):
            return _depth_anything_3(model, device, dtype)
        if model.name in (MOGE_2, MOGE_2_SMALL):
            return _moge(model, device, dtype)
        import transformers

        from ex4d.depth.per_image import DepthAnything, DepthPro

        if model.name == DEPTH_PRO:
            config = transformers.DepthProConfig(**published.DEPTH_PRO)
            return DepthPro(_ready(transformers.DepthProForDepthEstimation(config), device, dtype))
        network = transformers.DepthAnythingForDepthEstimation(transformers.DepthAnythingConfig())
        return DepthAnything(_ready(network, device, dtype))


def _depth_anything_3(model: DepthModel, device: torch.device, dtype: torch.dtype) -> ClipModel:
    from ex4d.depth.depth_anything_3 import estimator
    from ex4d.depth.depth_anything_3.network import METRIC_LARGE, MetricNetwork, MultiViewNetwork

    # Weights stay in float32; only the backbone's products are in `dtype`.
    if model.name == DEPTH_ANYTHING_3_METRIC:
        return estimator.DepthAnything3Metric(_ready(MetricNetwork(METRIC_LARGE), device, torch.float32), dtype)
    kind = estimator.DepthAnything3Base if model.name == DEPTH_ANYTHING_3_BASE else estimator.DepthAnything3Small
    return kind(_ready(MultiViewNetwork(kind.size), device, torch.float32), dtype)


def _moge(model: DepthModel, device: torch.device, dtype: torch.dtype) -> ClipModel:
    """The small one with the large one's layers around another backbone, since its own sizes are in its file."""
    from ex4d.depth.moge.estimator import MoGe2, MoGe2Small
    from ex4d.depth.moge.network import GeometryNetwork

    config = published.MOGE_2
    if model.name == MOGE_2:
        return MoGe2(_ready(GeometryNetwork(config), device, torch.float32), dtype)
    levels = [384, 256, 128, 64, 32]
    stacks = {
        name: {**config[name], "dim_res_blocks": levels, "dim_in": [386, 2, 2, 2, 2] if name == "neck" else levels}
        for name in ("neck", "points_head", "normal_head", "mask_head")
    }
    encoder = {"backbone": "dinov2_vits14", "intermediate_layers": [2, 5, 8, 11], "dim_out": 384}
    config = {**config, **stacks, "encoder": encoder, "scale_head": {"dims": [384, 384, 384, 1]}}
    return MoGe2Small(_ready(GeometryNetwork(config), device, torch.float32), dtype)


def _depthcrafter(device: torch.device, dtype: torch.dtype) -> ClipModel:
    from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from ex4d.depth.depthcrafter.estimator import DepthCrafter
    from ex4d.depth.depthcrafter.pipeline import DepthCrafterPipeline
    from ex4d.depth.depthcrafter.unet import DepthCrafterUNet

    with torch.device("cpu"):  # its schedule is computed with NumPy
        scheduler = EulerDiscreteScheduler(**published.SCHEDULER)
    return DepthCrafter(
        DepthCrafterPipeline(
            _ready(DepthCrafterUNet(), device, dtype),
            _ready(AutoencoderKLTemporalDecoder(**published.VAE), device, dtype),
            _ready(CLIPVisionModelWithProjection(CLIPVisionConfig(**published.IMAGE_ENCODER)), device, dtype),
            scheduler,
            published.IMAGE_MEAN,
            published.IMAGE_STD,
        )
    )


def _ready(network: Network, device: torch.device, dtype: torch.dtype) -> Network:
    # Not diffusers' own `to`, whose warnings only matter to published weights.
    torch.nn.Module.to(network, device, dtype)
    return network.eval().requires_grad_(False)
