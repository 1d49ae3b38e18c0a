"""True new views of scenes that nothing is trained on: what a model is given of them, and how its result is scored."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.random_weights import small_dit_sizes
from bench.toy_clips import filmed, new_cameras, true_views
from bench.toy_scenes import random_cameras, random_scenes
from bench.trained_toy import LinearCodec
from ex4d.generation.wan.camera_encoder import LATENT_CHANNELS
from ex4d.generation.wan.conditioning import WindowConditioning, image_to_video_input, known_mask

# Of scenes, cameras and new cameras; no training uses them.
_SEED = 9001
# Share of clips whose own camera moves, and angles of the new views' last frames, to either side.
_MOVING, _DEGREES = 0.5, (20.0, 60.0)
# Holes and seen pixels count in clips that have at least this share of them.
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Score:
    """Of generated clips: mean PSNR over the clips, in dB, of frames after the first.

    Attributes:
        seen: over pixels that the clip saw and the mask shows.
        holes: over pixels that it did not see and the mask hides.
    """

    seen: float
    holes: float


@dataclass(frozen=True)
class NewViewTask:
    """True new views of scenes that nothing is trained on, and what a model is given of them.

    Attributes:
        truth: (B, T, H, W, 3) uint8.
        given, given_mask: what the clips' DW-Meshes show, (B, T, H, W, 3) uint8 and (B, T, H, W) bool.
        seen, holes: (B, T, H, W) bool; pixels where mask and truth disagree are in neither.
        conditioning: of all clips.
        noise: (B, 16, F, h, w), equal for all models.
    """

    truth: torch.Tensor
    given: torch.Tensor
    given_mask: torch.Tensor
    seen: torch.Tensor
    holes: torch.Tensor
    conditioning: WindowConditioning
    noise: torch.Tensor

    def score(self, video: torch.Tensor) -> Score:
        """Compare (B, 3, T, H, W) in [-1, 1] with the truth."""
        frames = ((video.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 4, 1)
        error = (frames - self.truth.to(frames) / 255).square().mean(dim=-1)[:, 1:]
        return Score(*(_mean_psnr(error, part[:, 1:]) for part in (self.seen, self.holes)))


def _mean_psnr(error: torch.Tensor, counted: torch.Tensor) -> float:
    """Mean over clips of the PSNR of squared errors (B, T, H, W) where they count; NaN where no clip has enough."""
    counts = counted.flatten(1).sum(dim=1)
    enough = counts >= _LEAST_SHARE * counted[0].numel()
    means = (error * counted).flatten(1).sum(dim=1)[enough] / counts[enough]
    return (-10 * torch.log10(means.clamp_min(1e-10))).mean().item()


def new_view_task(count: int, frames: int, side: int, codec: LinearCodec, device: torch.device) -> NewViewTask:
    """Film scenes of their own seed, and cast new views of them."""
    scenes = random_scenes(count, _SEED)
    cameras = random_cameras(count, frames, side, _SEED + 1, moving=_MOVING)
    clips = filmed(scenes, cameras, device)
    moved = new_cameras(clips, _SEED + 2, _DEGREES)
    (color, mask), views = clips.rendered(moved), true_views(scenes, clips, moved)
    conditioning = conditioning_of(codec, to_video(color), mask)
    shape = conditioning.image_latents[:, :LATENT_CHANNELS].shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(_SEED)).to(device)
    return NewViewTask(views.color, color, mask, mask & views.visible, ~mask & ~views.visible, conditioning, noise)


def to_video(color: torch.Tensor) -> torch.Tensor:
    """(B, T, H, W, 3) uint8 to (B, 3, T, H, W) float32 in [-1, 1]."""
    return color.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def conditioning_of(codec: LinearCodec, video: torch.Tensor, mask: torch.Tensor) -> WindowConditioning:
    """What `WindowEncoder` makes of a window, for a batch of clips, with the codec in the VAE's place.

    Prompt and image embeddings are constant: the toy knows no prompts, and the first frame from its latents.

    Args:
        video: (B, 3, T, H, W) in [-1, 1].
        mask: (B, T, H, W) bool, true where seen.
    """
    known = mask[:, None].to(video)
    color = (video + 1) * known - 1
    first = image_to_video_input(color[:, :, :1], color.shape[2])
    flags = known_mask(1, color.shape[2], 1, 1).to(video)
    control = torch.cat([codec.encode(color), codec.encode((4 * known - 3).expand_as(color))], dim=1)
    image = codec.encode(first)
    return WindowConditioning(
        video.new_zeros(len(video), 1, small_dit_sizes()["text_dim"]),
        None,
        control,
        torch.cat([flags.expand(len(video), -1, -1, *image.shape[-2:]), image], dim=1),
        video.new_zeros(1, 257, 1280),
    )
