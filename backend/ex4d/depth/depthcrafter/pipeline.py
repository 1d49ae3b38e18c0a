"""DepthCrafter from frames to disparity: encode, denoise window by window, decode, each in batches that fit memory.

Frames enter as a stream and disparity leaves as one; in between, only latents (a 48th of the frames' size) are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ex4d.depth.estimation import StageProgress, Step

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
    from transformers import CLIPVisionModelWithProjection

    from ex4d.depth.depthcrafter.unet import DepthCrafterUNet

FRAMES_AT_ONCE = 8  # by the autoencoder; its decoder attends over time inside a batch, so this changes results a little
_TIME_IDS = (7.0, 127.0, 0.02)  # frames a second less one, motion bucket, noise augmentation: as trained
_NOISE_AUGMENTATION = _TIME_IDS[2]
_EMBEDDER_SIZE = 224

Noise = Callable[[tuple[int, ...]], torch.Tensor]


@dataclass(frozen=True)
class Sampling:
    """How a clip is denoised; the defaults are EX-4D's.

    Attributes:
        steps: denoising steps for each window.
        guidance: classifier-free guidance; above 1 costs a second pass for each step.
        window: frames denoised together.
        overlap: how many of them the next window denoises again.
    """

    steps: int = 5
    guidance: float = 1.0
    window: int = 110
    overlap: int = 25

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.overlap < self.window:
            raise ValueError(
                f"cannot denoise in {self.steps} steps with windows of {self.window} and an overlap of {self.overlap}"
            )

    def windows(self, frames: int) -> list[tuple[int, int]]:
        """[start, stop) of every window of a clip."""
        if frames <= self.window:
            return [(0, frames)]
        stride = self.window - self.overlap
        return [(start, min(start + self.window, frames)) for start in range(0, frames - self.overlap, stride)]


@dataclass(frozen=True)
class Conditioning:
    """The footage as the denoiser is conditioned on it: `latents` (T, 4, h, w), `embeddings` (T, C)."""

    latents: torch.Tensor
    embeddings: torch.Tensor


@dataclass(frozen=True)
class DepthCrafterPipeline:
    """The networks together. All of them are on one device and, but for the VAE's encoder, in one precision.

    Attributes:
        unet: as published.
        vae: Stable Video Diffusion's, as the two below.
        image_encoder: as published.
        scheduler: as published.
        image_mean: of the image encoder's preprocessor, three values.
        image_std: likewise.
        step: called with "encode", "denoise" or "decode" and how many more frames that stage has done; often called
            with 0 between. It may raise, which ends the work at once.
    """

    unet: DepthCrafterUNet
    vae: AutoencoderKLTemporalDecoder
    image_encoder: CLIPVisionModelWithProjection
    scheduler: EulerDiscreteScheduler
    image_mean: Sequence[float]
    image_std: Sequence[float]
    step: Step = lambda stage, frames: None

    def reporting(self, step: Step) -> DepthCrafterPipeline:
        """The same networks with another `step`."""
        return replace(self, step=step)

    @torch.inference_mode()
    def encode(self, frames: Iterable[torch.Tensor], noise: Noise) -> Conditioning:
        """Embeds and encodes the footage.

        Args:
            frames: batches of up to `FRAMES_AT_ONCE` frames, (n, 3, H, W) in [0, 1], H and W multiples of 64.
            noise: draws standard normal noise of a shape.
        """
        latents, embeddings = [], []
        # In half precision the encoder overflows; Stable Video Diffusion says so in its configuration.
        precise = torch.float32 if self.vae.config["force_upcast"] else self.unet.dtype
        for part in (self.vae.encoder, self.vae.quant_conv):
            part.to(precise)
        for frame_batch in frames:
            batch = frame_batch.to(self.unet.device, self.unet.dtype) * 2 - 1
            embeddings.append(self._embedded(batch))
            noisy = batch + _NOISE_AUGMENTATION * noise(tuple(batch.shape)).to(batch)
            moments = self.vae.quant_conv(self.vae.encoder(noisy.to(precise)))
            latents.append(moments.chunk(2, dim=1)[0].to(batch))  # the mode: mean without the log variance
            self.step("encode", len(batch))
        for part in (self.vae.encoder, self.vae.quant_conv):
            part.to(self.unet.dtype)
        return Conditioning(torch.cat(latents), torch.cat(embeddings))

    def _embedded(self, batch: torch.Tensor) -> torch.Tensor:
        images = (resized_smoothly(batch.float(), _EMBEDDER_SIZE) + 1) / 2
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.image_mean, self.image_std))
        return self.image_encoder(((images - mean) / std).to(batch)).image_embeds

    @torch.inference_mode()
    def denoise(self, conditioning: Conditioning, initial: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        """Depth latents of the whole clip.

        Args:
            conditioning: of the whole clip.
            initial: (min(T, window), 4, h, w) standard normal. Windows after the first use it rotated by the overlap.
            sampling: steps, guidance and windows.

        Returns:
            (T, 4, h, w).
        """
        noise = initial.to(self.unet.device, self.unet.dtype)
        overlap = sampling.overlap
        done: torch.Tensor | None = None
        for start, stop in sampling.windows(len(conditioning.latents)):
            part = Conditioning(conditioning.latents[start:stop], conditioning.embeddings[start:stop])
            if done is None:
                done = self._denoise_window(part, noise[: stop - start], None, sampling)
                continue
            noise = torch.cat([noise[-overlap:], noise[:-overlap]]) if overlap else noise
            before = done[len(done) - overlap :]
            window = self._denoise_window(part, noise[: stop - start], before, sampling)
            weight = torch.linspace(0, 1, overlap, device=done.device, dtype=done.dtype)[:, None, None, None]
            blended = weight * window[:overlap] + (1 - weight) * before
            done = torch.cat([done[: len(done) - overlap], blended, window[overlap:]])
        assert done is not None, "a clip has at least one window"
        return done

    def _denoise_window(
        self, part: Conditioning, noise: torch.Tensor, before: torch.Tensor | None, sampling: Sampling
    ) -> torch.Tensor:
        overlap = 0 if before is None else len(before)
        calls = sampling.steps * self.unet.blocks * (2 if sampling.guidance > 1 else 1)
        progress = StageProgress(self.step, "denoise", len(noise) - overlap, calls)
        self.unet.between_blocks = progress.tick
        scheduler = self.scheduler
        scheduler.set_timesteps(sampling.steps, device=noise.device)
        latents = noise * scheduler.init_noise_sigma
        if before is not None:
            latents[:overlap] = before + noise[:overlap] * scheduler.sigmas[0].to(noise)
        time_ids = noise.new_tensor([_TIME_IDS])
        unconditional = Conditioning(torch.zeros_like(part.latents), torch.zeros_like(part.embeddings))
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)
            velocity = self._velocity(scaled, part, timestep, time_ids)
            if sampling.guidance > 1:
                baseline = self._velocity(scaled, unconditional, timestep, time_ids)
                velocity = baseline + sampling.guidance * (velocity - baseline)
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        progress.finish()
        return latents

    def _velocity(
        self, latents: torch.Tensor, conditioning: Conditioning, timestep: torch.Tensor, time_ids: torch.Tensor
    ) -> torch.Tensor:
        both = torch.cat([latents, conditioning.latents], dim=1)[None]
        return self.unet(both, timestep, conditioning.embeddings[None], time_ids)[0]

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Batches of decoded frames (n, 3, H, W) in [0, 1], float32; disparity is the mean over the channels."""
        for batch in latents.split(FRAMES_AT_ONCE):
            scaled = (batch / self.vae.config["scaling_factor"]).to(self.vae.dtype)
            decoded = self.vae.decode(scaled, num_frames=len(batch), return_dict=False)[0]
            self.step("decode", len(batch))
            yield (decoded.float() / 2 + 0.5).clamp(0, 1)


def resized_smoothly(images: torch.Tensor, size: int) -> torch.Tensor:
    """Images (n, C, H, W) at size x size, blurred against aliasing, then bicubic with aligned corners.

    As Stable Video Diffusion prepares images for its image encoder: a Gaussian of sigma (factor - 1) / 2 over about
    four sigma, the image's border reflected.
    """
    for axis in (2, 3):
        sigma = max((images.shape[axis] / size - 1) / 2, 0.001)
        taps = int(max(4 * sigma, 3)) | 1
        offsets = torch.arange(taps, device=images.device, dtype=images.dtype) - taps // 2
        kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).view(1, 1, *((taps, 1) if axis == 2 else (1, taps)))
        padding = (0, 0, taps // 2, taps // 2) if axis == 2 else (taps // 2, taps // 2, 0, 0)
        padded = F.pad(images, padding, mode="reflect")
        images = F.conv2d(padded, kernel.expand(images.shape[1], -1, -1, -1), groups=images.shape[1])
    return F.interpolate(images, size=(size, size), mode="bicubic", align_corners=True)
