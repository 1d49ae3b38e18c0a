"""DepthCrafter as one of the clip models: published folders to a pipeline, a stream of frames to disparity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from ex4d.depth.depth_models import depth_model
from ex4d.depth.depthcrafter.pipeline import FRAMES_AT_ONCE, DepthCrafterPipeline, Sampling
from ex4d.depth.estimation import ClipModel, Step, batches
from ex4d.weights.catalogue import DEPTHCRAFTER
from ex4d.weights.checkpoints import load_strictly, read_checkpoint
from ex4d.weights.places import repository_folder
from ex4d.weights.pretrained import damage_named, load_pretrained, read_config
from ex4d_core.depth_mapping import NEAREST_DEPTH, DepthMapping

_Network = TypeVar("_Network", bound=torch.nn.Module)

MODEL = depth_model(DEPTHCRAFTER)
_LONGEST_SIDE = 1024
_MULTIPLE = 64  # of which both sides must be: the autoencoder's 8 times the denoiser's 8
# EX-4D's conversion: depth = 10000 / (3900 d), at most 10000, for disparity d in [0, 1] over the clip.
_MAPPING = DepthMapping(NEAREST_DEPTH, far_limit=3900)


class DepthCrafter(ClipModel):
    """Estimates a clip's disparity by diffusion, window by window.

    Args:
        pipeline: loaded; see `load`.
        sampling: steps, guidance and windows.
        seed: of the noise that the diffusion starts from; the same seed gives the same depth on one kind of device.
    """

    model = MODEL
    farthest_share = 1 / _MAPPING.far_limit
    # As measured on an H200 at 1024x576.
    stages: ClassVar[Mapping[str, float]] = {"encode": 0.20, "denoise": 0.35, "decode": 0.45}

    def __init__(self, pipeline: DepthCrafterPipeline, sampling: Sampling | None = None, seed: int = 42) -> None:
        self.pipeline = pipeline
        self.sampling = sampling or Sampling()
        self._seed = seed

    @classmethod
    def load(
        cls, models: Path, device: torch.device, dtype: torch.dtype, sampling: Sampling | None = None
    ) -> DepthCrafter:
        """With the published weights from a folder of models.

        Raises:
            CheckpointError: the published files do not fit.
        """
        own, video = (repository_folder(models, repository) for repository in MODEL.part.repositories)
        return cls(load_pipeline(own, video, device, dtype), sampling)

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """As the base class; at most 1024 pixels, in whole blocks of the network."""
        scale = min(1.0, _LONGEST_SIDE / max(width, height)) / _MULTIPLE
        return _MULTIPLE * max(1, round(width * scale)), _MULTIPLE * max(1, round(height * scale))

    def predict(self, frames: Iterable[torch.Tensor], step: Step) -> Iterator[np.ndarray]:
        """As the base class; the latents of the whole clip are in memory."""
        device = self.pipeline.unet.device
        generator = torch.Generator(device).manual_seed(self._seed)

        def noise(shape: tuple[int, ...]) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device)

        pipeline = self.pipeline.reporting(step)
        conditioning = pipeline.encode(batches(frames, FRAMES_AT_ONCE), noise)
        window = min(len(conditioning.latents), self.sampling.window)
        initial = noise((window, *conditioning.latents.shape[1:]))
        latents = pipeline.denoise(conditioning, initial, self.sampling)
        for batch in pipeline.decode(latents):
            yield from batch.mean(dim=1).cpu().numpy()

    def relative(self, raw: np.ndarray, lowest: float, highest: float) -> np.ndarray:
        """As the base class; 0 at the clip's farthest point, as EX-4D has it."""
        return (raw - lowest) / max(highest - lowest, 1e-12)


def original_depth(disparity: np.ndarray) -> np.ndarray:
    """EX-4D's conversion of disparity in [0, 1] over the clip to depth."""
    return _MAPPING.depth(disparity)


def load_pipeline(own: Path, video: Path, device: torch.device, dtype: torch.dtype) -> DepthCrafterPipeline:
    """The pipeline from the two published folders, by their own file names.

    Args:
        own: of tencent/DepthCrafter, with the denoiser.
        video: of Stable Video Diffusion, with everything else.

    Raises:
        CheckpointError: a file is missing, incomplete, or does not fit.
    """
    from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
    from transformers import CLIPVisionModelWithProjection

    from ex4d.depth.depthcrafter.unet import DepthCrafterUNet

    def loaded(kind: Callable[..., _Network], config: Path, weights: Path) -> _Network:
        settings = _without_notes(read_config(config))
        with damage_named(config), torch.device("meta"):
            network = kind(**settings)
        return load_strictly(network, read_checkpoint(weights), weights, device=device, dtype=dtype)

    unet = loaded(DepthCrafterUNet, own / "config.json", own / "diffusion_pytorch_model.safetensors")
    vae_weights = video / "vae" / "diffusion_pytorch_model.fp16.safetensors"
    vae = loaded(AutoencoderKLTemporalDecoder, video / "vae" / "config.json", vae_weights)
    encoder = load_pretrained(
        CLIPVisionModelWithProjection, video / "image_encoder", dtype, variant="fp16", use_safetensors=True
    )
    path = video / "feature_extractor" / "preprocessor_config.json"
    preprocessing = read_config(path)
    with damage_named(path):
        mean, std = ([float(value) for value in preprocessing[name]] for name in ("image_mean", "image_std"))
    path = video / "scheduler" / "scheduler_config.json"
    settings = _without_notes(read_config(path))
    with damage_named(path):
        scheduler = EulerDiscreteScheduler(**settings)
    return DepthCrafterPipeline(unet, vae, encoder.to(device), scheduler, mean, std)


def _without_notes(config: dict[str, Any]) -> dict[str, Any]:
    """A diffusers configuration without its notes on class and version."""
    return {name: value for name, value in config.items() if not name.startswith("_")}
