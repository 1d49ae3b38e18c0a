"""DepthCrafter as one of the clip models: published folders to a pipeline, a stream of frames to disparity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from ex4d.depth.depth_models import depth_model
from ex4d.depth.depthcrafter.pipeline import FRAMES_AT_ONCE, DepthCrafterPipeline, Sampling
from ex4d.depth.estimation import ClipModel, Step, pieces
from ex4d.weights.catalogue import DEPTHCRAFTER
from ex4d.weights.checkpoints import load_strictly, read_checkpoint
from ex4d.weights.places import repository_folder
from ex4d.weights.pretrained import damage_named, load_pretrained, read_config

MODEL = depth_model(DEPTHCRAFTER)
_LONGEST_SIDE = 1024
_MULTIPLE = 64  # of which both sides must be: the autoencoder's 8 times the denoiser's 8
_FARTHEST, _NEAREST = 1e4, 1e-4


class DepthCrafter(ClipModel):
    """Estimates a clip's disparity by diffusion, window by window.

    Args:
        pipeline: loaded; see `load`.
        sampling: steps, guidance and windows.
        seed: of the noise that the diffusion starts from; the same seed gives the same depth on one kind of device.
    """

    model = MODEL

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
        scale = min(1.0, _LONGEST_SIDE / max(width, height))
        sides = (max(_MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE) for side in (width, height))
        return tuple(sides)

    def predict(self, frames: Iterable[torch.Tensor], step: Step) -> Iterator[np.ndarray]:
        device = self.pipeline.unet.device
        generator = torch.Generator(device).manual_seed(self._seed)

        def noise(shape: tuple[int, ...]) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device)

        pipeline = self.pipeline.reporting(step)
        conditions = pipeline.encode(pieces(frames, FRAMES_AT_ONCE), noise)
        window = min(len(conditions.latents), self.sampling.window)
        initial = noise((window, *conditions.latents.shape[1:]))
        latents = pipeline.denoise(conditions, initial, self.sampling)
        for piece in pipeline.decode(latents):
            yield from piece.mean(dim=1).cpu().numpy()

    def work(self) -> dict[str, float]:
        return {"encode": 0.20, "denoise": 0.35, "decode": 0.45}  # as measured on an H200 at 1024x576

    def depth(self, raw: np.ndarray, lowest: float, highest: float) -> np.ndarray:
        return original_depth((raw - lowest) / max(highest - lowest, 1e-12))


def original_depth(disparity: np.ndarray) -> np.ndarray:
    """EX-4D's conversion: depth = 10000 / (3900 d), within [1e-4, 1e4], for disparity d in [0, 1] over the clip."""
    scaled = np.maximum(3900.0 * disparity, 1e-5)
    return np.clip(10_000.0 / scaled, _NEAREST, _FARTHEST).astype(np.float32)


def load_pipeline(own: Path, video: Path, device: torch.device, dtype: torch.dtype) -> DepthCrafterPipeline:
    """The pipeline from the two published folders, by their own file names.

    Args:
        own: of tencent/DepthCrafter, with the denoiser.
        video: of Stable Video Diffusion, with everything else.

    Raises:
        CheckpointError: a file is missing, incomplete, or does not fit.
    """
    from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler
    from transformers import CLIPVisionModelWithProjection

    from ex4d.depth.depthcrafter.unet import DepthCrafterUNet

    def loaded(kind: Callable[[dict], torch.nn.Module], config: Path, weights: Path) -> torch.nn.Module:
        settings = read_config(config)
        with damage_named(config), torch.device("meta"):
            network = kind(settings)
        return load_strictly(network, read_checkpoint(weights), weights, device=device, dtype=dtype)

    unet = loaded(DepthCrafterUNet.from_published, own / "config.json", own / "diffusion_pytorch_model.safetensors")
    vae = loaded(
        lambda settings: AutoencoderKLTemporalDecoder(**_without_marks(settings)),
        video / "vae" / "config.json",
        video / "vae" / "diffusion_pytorch_model.fp16.safetensors",
    )
    encoder = load_pretrained(
        CLIPVisionModelWithProjection, video / "image_encoder", dtype, variant="fp16", use_safetensors=True
    )
    path = video / "feature_extractor" / "preprocessor_config.json"
    preparing = read_config(path)
    with damage_named(path):
        mean, std = ([float(value) for value in preparing[name]] for name in ("image_mean", "image_std"))
    path = video / "scheduler" / "scheduler_config.json"
    settings = _without_marks(read_config(path))
    with damage_named(path):
        scheduler = EulerDiscreteScheduler(**settings)
    return DepthCrafterPipeline(unet, vae, encoder.to(device), scheduler, mean, std)


def _without_marks(config: dict) -> dict:
    """A diffusers configuration without its notes on class and version."""
    return {name: value for name, value in config.items() if not name.startswith("_")}
