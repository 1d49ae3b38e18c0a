"""Decoding latents to pixels with the VAE, in time order, and a cheap RGB preview of the denoised latents.

The VAE's decoder is causal and has a cache over time, so decoding one latent after the other gives the same frames as
decoding them at once, and each group of frames can be shown as soon as it exists.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ex4d.generation.wan.conditioning import latent_count
from ex4d.generation.wan.work_parts import PartCallback, WorkParts, reported_calls

if TYPE_CHECKING:
    from diffsynth.models.wan_video_vae import WanVideoVAE

# Ridge of the least-squares fit, for directions that a shot's latents hardly vary in.
_RIDGE = 1e-3


def encode_video(
    vae: WanVideoVAE, video: torch.Tensor, device: torch.device | str, on_part: PartCallback | None = None
) -> torch.Tensor:
    """Encode (1, 3, T, H, W) in [-1, 1] to normalised latents (1, 16, F, h, w) float32.

    Args:
        on_part: called before every layer for every latent.
    """
    weight = next(vae.model.parameters())
    layers = [*vae.model.encoder.downsamples, *vae.model.encoder.middle]
    try:
        with _reported(layers, latent_count(video.shape[2]), torch.device(device), on_part):
            return vae.single_encode(video.to(device, weight.dtype), device).float()
    finally:
        # It holds each layer's last frames: gigabytes for large images.
        vae.model.clear_cache()


@torch.inference_mode()
def decode_in_order(
    vae: WanVideoVAE,
    latents: torch.Tensor,
    precision: Callable[[], AbstractContextManager],
    on_part: PartCallback | None = None,
    *,
    ahead: int = 0,
) -> Iterator[torch.Tensor]:
    """Yield frames (n, 3, H, W) float32 in [-1, 1] for each latent in turn: one for the first, then four each.

    Read it to the end, or close it, before the VAE is used for anything else, since the VAE holds the cache. The VAE
    runs in the context ``precision()``, which is left before frames are yielded, since the caller runs in this thread.

    Args:
        on_part: called before every layer for every latent, and counts those of the present latent; with the following
            two, called before every latent.
        ahead: how many latents are under way while the frames of one are yielded: with a `SpreadDecoder`, one for each
            further device.
    """
    model = vae.model
    weight = next(model.parameters())
    mean, inverse = (values.to(latents.device, torch.float32).view(1, -1, 1, 1, 1) for values in vae.scale)
    model.clear_cache()
    cache = model._feat_map
    # Hooks of layers would hold several devices back.
    layers = [] if ahead else [*model.decoder.middle, *model.decoder.upsamples]
    try:
        with precision():
            features = model.conv2((latents.float() / inverse + mean).to(weight.dtype))
        waiting: deque[torch.Tensor] = deque()
        for index in range(latents.shape[2]):
            if on_part is not None and not layers:
                on_part(0, 1)
            with precision(), _reported(layers, 1, latents.device, on_part):
                frames, _, _ = model.decoder(features[:, :, index : index + 1], feat_cache=cache, feat_idx=[0])
            waiting.append(frames[0].transpose(0, 1).float().clamp(-1, 1))
            if len(waiting) > ahead:
                yield waiting.popleft().to(latents.device)
        while waiting:
            yield waiting.popleft().to(latents.device)
    finally:
        # Only this decoding's cache: the caller may have started the next one already.
        cache.clear()


def _reported(
    layers: Sequence[nn.Module], times: int, device: torch.device, on_part: PartCallback | None
) -> AbstractContextManager[None]:
    if on_part is None:
        return contextlib.nullcontext()
    return reported_calls(layers, WorkParts(on_part, times * len(layers), device))


def to_uint8_images(frames: torch.Tensor) -> np.ndarray:
    """Convert (n, 3, H, W) in [-1, 1] to (n, H, W, 3) uint8."""
    scaled = ((frames.float() + 1) * 127.5).clamp(0, 255).to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def to_float_images(frames: torch.Tensor) -> np.ndarray:
    """Convert (n, 3, H, W) in [-1, 1] to (n, H, W, 3) float32 in [0, 1]; 8 bits are 255 times that, rounded down."""
    scaled = ((frames.float() + 1) * 0.5).clamp(0, 1)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


class LatentToRgb:
    """A linear map from latents to RGB, fitted to a shot's own render, of which latents and pixels are known."""

    def __init__(self, latents: torch.Tensor, video: torch.Tensor):
        """Fit to the render's ``latents`` (1, 16, F, h, w) and pixels ``video`` (1, 3, T, H, W) in [-1, 1]."""
        samples = latents[0].flatten(1).T.float()
        # Each latent is compared with the last one of its frames.
        last = video[0, :, :: max(1, (video.shape[2] - 1) // max(1, latents.shape[2] - 1))][:, : latents.shape[2]]
        height, width = latents.shape[-2:]
        colors = functional.adaptive_avg_pool2d(last.transpose(0, 1).float(), (height, width))
        colors = colors.transpose(0, 1).flatten(1).T.to(samples.device)
        inputs = torch.cat([samples, samples.new_ones(len(samples), 1)], dim=1)
        square = inputs.T @ inputs + _RIDGE * len(inputs) * torch.eye(inputs.shape[1], device=inputs.device)
        self._matrix = torch.linalg.solve(square, inputs.T @ colors)

    def image(self, latents: torch.Tensor, index: int) -> np.ndarray:
        """Convert latent ``index`` of (1, 16, F, h, w) to (h, w, 3) uint8, an eighth of the frame's size."""
        frame = latents[0, :, index].float()
        height, width = frame.shape[-2:]
        colors = frame.flatten(1).T @ self._matrix[:-1] + self._matrix[-1]
        return to_uint8_images(colors.T.reshape(1, 3, height, width))[0]
