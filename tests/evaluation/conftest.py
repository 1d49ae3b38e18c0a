"""A small data set with a true view of a textured scene, and networks with random weights in the published files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from ex4d.evaluation.networks import Networks
from ex4d.media import VideoWriter
from ex4d.weights.catalogue import CLIP, I3D, INCEPTION, LPIPS_BACKBONE, part
from ex4d.weights.places import path_of

for package in ("lpips", "torch_fidelity", "cdfvd", "torchmetrics", "transformers"):
    pytest.importorskip(package, reason=f"the extra evaluate has {package}")


@pytest.fixture(scope="session")
def write_movie() -> Callable[[Path, Iterable[np.ndarray]], Path]:
    """Writes (H, W, 3) uint8 frames as a movie, and returns its path."""

    def write(path: Path, frames: Iterable[np.ndarray]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = list(frames)
        with VideoWriter(path, frames[0].shape[1], frames[0].shape[0], Fraction(24)) as writer:
            for frame in frames:
                writer.write(np.ascontiguousarray(frame))
        return path

    return write


@pytest.fixture(scope="session")
def random_models(tmp_path_factory) -> Path:
    """A folder of models with all networks of `ex4d evaluate`, in their published layouts, with random weights."""
    from cdfvd.third_party.i3d.pytorch_i3d import InceptionI3d
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torchvision.models import alexnet
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)

    def target(name: str) -> Path:
        path = path_of(folder, part(name).files[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    torch.save(alexnet(weights=None).state_dict(), target(LPIPS_BACKBONE))
    torch.save(_as_large_as_trained(InceptionI3d(400, in_channels=3).state_dict(), "conv3d.weight"), target(I3D))
    torch.save(_without_download(FeatureExtractorInceptionV3), target(INCEPTION))
    config = CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    CLIPVisionModelWithProjection(config).save_pretrained(target(CLIP).parent)
    return folder


def _as_large_as_trained(state: dict[str, torch.Tensor], weights: str) -> dict[str, torch.Tensor]:
    """Random weights scaled so that features do not die away from layer to layer, and depend on the pictures."""
    return {key: value * 6**0.5 if key.endswith(weights) else value for key, value in state.items()}


def _without_download(kind: type) -> dict[str, torch.Tensor]:
    """The state of torch-fidelity's Inception, which its constructor would otherwise download."""
    made: list[dict[str, torch.Tensor]] = []

    def keep(self: torch.nn.Module, state: object) -> None:
        made.append(_as_large_as_trained(self.state_dict(), "conv.weight"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "load_state_dict", keep)
        patch.setattr(torch, "load", lambda *_, **__: {})
        kind("inception-v3-compat", ["2048"], feature_extractor_weights_path="random")
    return made[0]


@pytest.fixture(scope="session")
def random_networks(random_models) -> Networks:
    return Networks(random_models, torch.device("cpu"))
