"""Full-size models against the names and shapes of the published checkpoints, on the meta device: no memory, no files.

tests/data/golden/depth_layouts.json.gz was made from the original repositories' classes (DepthCrafter's denoiser, Video
Depth Anything) and, for the others, from the libraries whose layout is the published one.
"""

from __future__ import annotations

import gzip
import json
from math import prod
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from bench import estimator_configs as published
from ex4d.depth.depth_models import DEPTH_MODELS, depth_model

LAYOUTS = Path(__file__).resolve().parents[1] / "data" / "golden" / "depth_layouts.json.gz"


@pytest.fixture(scope="module")
def layouts() -> dict[str, dict[str, tuple[int, ...]]]:
    document = json.loads(gzip.decompress(LAYOUTS.read_bytes()))
    return {model: {name: tuple(shape) for name, shape in layout.items()} for model, layout in document.items()}


def shapes(tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def test_depthcrafters_denoiser(layouts):
    from ex4d.depth.depthcrafter.unet import DepthCrafterUNet

    with torch.device("meta"):
        network = DepthCrafterUNet()
    assert shapes(network.state_dict()) == layouts["depthcrafter/unet"]


def test_stable_video_diffusions_autoencoder(layouts):
    from diffusers import AutoencoderKLTemporalDecoder

    with torch.device("meta"):
        network = AutoencoderKLTemporalDecoder(**published.VAE)
    assert shapes(network.state_dict()) == layouts["depthcrafter/vae"]


def test_video_depth_anything(layouts):
    from ex4d.depth.video_depth_anything.checkpoint import published_layout
    from ex4d.depth.video_depth_anything.network import NetworkSize, VideoDepthNetwork

    with torch.device("meta"):
        network = VideoDepthNetwork(NetworkSize())
    assert published_layout(NetworkSize(), network.state_dict()) == layouts["video-depth-anything"]


@pytest.mark.parametrize(
    ("kind", "config", "settings", "layout"),
    [
        ("CLIPVisionModelWithProjection", "CLIPVisionConfig", published.IMAGE_ENCODER, "depthcrafter/image_encoder"),
        ("DepthAnythingForDepthEstimation", "DepthAnythingConfig", {}, "depth-anything-v2"),
        ("DepthProForDepthEstimation", "DepthProConfig", published.DEPTH_PRO, "depth-pro"),
    ],
)
def test_models_of_transformers(kind, config, settings, layout, layouts):
    """Under the names that the library saves, whatever it calls the tensors in memory."""
    import transformers

    conversion = pytest.importorskip("transformers.core_model_loading")
    with torch.device("meta"):
        network = getattr(transformers, kind)(getattr(transformers, config)(**settings))
    saved = conversion.revert_weight_conversion(network, network.state_dict())
    assert shapes(saved) == layouts[layout]


def test_depth_anything_3(layouts):
    """All that our networks need; what else the files hold is what the loader knows as unused."""
    from ex4d.depth.depth_anything_3 import checkpoint, network

    sizes = {
        "depth-anything-3-small": (network.MultiViewNetwork, network.SMALL),
        "depth-anything-3-base": (network.MultiViewNetwork, network.BASE),
        "depth-anything-3-metric": (network.MetricNetwork, network.METRIC_LARGE),
    }
    for name, (kind, size) in sizes.items():
        with torch.device("meta"):
            ours = kind(size)
        used = {checkpoint.own_name(key): shape for key, shape in layouts[name].items()}
        used.pop(None, None)
        assert used == shapes(ours.state_dict()), name


def test_moge(layouts):
    """The large one; the small one's sizes are in its file."""
    from ex4d.depth.moge.network import GeometryNetwork

    with torch.device("meta"):
        network = GeometryNetwork(published.MOGE_2)
    assert shapes(network.state_dict()) == layouts["moge-2"]


# DepthCrafter and Depth Pro are published in float16.
HALF = ("depthcrafter", "depth-pro")


@pytest.mark.parametrize("name", [model.name for model in DEPTH_MODELS if model.name != "moge-2-small"])
def test_the_registry_states_the_sizes_that_the_layouts_add_up_to(name, layouts):
    weights = [file.size for file in depth_model(name).part.files if "json" not in file.path]
    parts = [layout for model, layout in layouts.items() if model.split("/")[0] == name]
    expected = [(2 if name in HALF else 4) * sum(prod(shape) for shape in layout.values()) for layout in parts]
    assert sum(weights) == pytest.approx(sum(expected), rel=0.03)
    assert len(weights) == len(expected)


@pytest.mark.parametrize("model", DEPTH_MODELS, ids=lambda model: model.name)
def test_the_benchmark_builds_every_model_at_full_size(model):
    from bench.estimators import random_model

    found = random_model(model, torch.device("meta"))
    assert found.model is model
    width, height = found.working_size(1024, 576)
    least = 140_000 if model.name.startswith("depth-anything-3") else 400_000  # it was trained at 504 pixels
    assert width * height > least and 1.7 < width / height < 1.81
