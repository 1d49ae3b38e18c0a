"""A toy of the Wan model, trained in minutes on procedural moving scenes, to measure errors on structured data.

Random weights show what a change costs, but not what it does to a video: their velocities are noise at every step,
while those of a trained model change smoothly. So the bench trains a transformer of DiffSynth's own class, with a
camera encoder, to repaint scenes of moving discs whose frames have holes, under a prompt that names the colours. The
codec in the VAE's place is linear: blocks of 4x8x8 pixels become 16 numbers, by the scenes' principal components.

`learning` trains another one with the same loop and codec, which knows no prompts and no cameras.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from bench.random_weights import random_weights, small_dit_sizes
from ex4d.generation.wan.camera_encoder import LATENT_CHANNELS, CameraEncoder
from ex4d.generation.wan.conditioning import LATENT_FRAMES, WindowConditioning
from ex4d.generation.wan.networks import with_exact_norms
from ex4d_core.durable_files import put_in_place

if TYPE_CHECKING:
    from diffsynth.models.wan_video_dit import WanModel

FRAMES, SIDE = 17, 64
TRAINING_STEPS, BATCH = 700, 8
_CLIPS, _LAYERS, _HIDDEN, _LEARNING_RATE = 256, 3, 384, 1.5e-3
_KINDS, _WORDS, _TEXT_WIDTH = 6, 8, 32
# A share of the samples is trained without their prompt, so that guidance has something to guide from.
_UNPROMPTED = 0.15
_SHIFT = 3.0
# Holes are far from what the codec was made for: their latents are this much larger.
_CONTROL_SCALE = 4.0
# Between two states of a training that keeps them.
_STEPS_KEPT = 500


@dataclass(frozen=True)
class Scenes:
    """A batch of clips.

    Attributes:
        video: (B, 3, T, H, W) in [-1, 1].
        mask: (B, 1, T, H, W), 1 where seen; a strip at a side grows, and a disc with its surroundings is unseen.
        kinds: (B,) of the palette that the prompt names.
    """

    video: torch.Tensor
    mask: torch.Tensor
    kinds: torch.Tensor


def moving_scenes(count: int, generator: torch.Generator) -> Scenes:
    """Draw clips of textured discs that move before a moving background."""
    drawn = partial(torch.rand, generator=generator)
    time = torch.linspace(0, 1, FRAMES).view(1, FRAMES, 1, 1)
    axis = torch.linspace(-1, 1, SIDE)
    down, across = axis.view(1, 1, SIDE, 1), axis.view(1, 1, 1, SIDE)
    kinds = torch.randint(0, _KINDS, (count,), generator=generator)
    palettes = torch.rand(_KINDS, 4, 3, generator=torch.Generator().manual_seed(7)) * 1.6 - 0.8

    def values(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * drawn(count).view(-1, 1, 1, 1)

    def wave() -> torch.Tensor:
        phase = values(0, 6.3) + time * values(-2, 2)
        return torch.sin(down * values(-6, 6) + across * values(-6, 6) + phase)

    def coloured(index: int, brightness: torch.Tensor) -> torch.Tensor:
        return palettes[kinds, index].view(count, 3, 1, 1, 1) + 0.2 * brightness[:, None]

    video = coloured(0, wave() + wave())
    near = torch.zeros(count, FRAMES, SIDE, SIDE)
    for disc in range(1, 4):
        x, y = values(-0.8, 0.8) + time * values(-0.8, 0.8), values(-0.8, 0.8) + time * values(-0.8, 0.8)
        distance = ((across - x) ** 2 + (down - y) ** 2).sqrt()
        radius = values(0.15, 0.4)
        inside = ((radius - distance) * SIDE / 2 + 0.5).clamp(0, 1)
        video = torch.lerp(video, coloured(disc, wave()), inside[:, None])
        near = torch.maximum(near, ((distance < radius + 0.12 * time) & (disc == 1)).float())
    strip = (across * (1 - 2 * torch.randint(0, 2, (count, 1, 1, 1), generator=generator)) + 1) / 2 < 0.35 * time
    mask = ((near == 0) & ~strip).float()[:, None]
    return Scenes(video.clamp(-1, 1), mask, kinds)


class LinearCodec:
    """Blocks of 4 frames of 8x8 pixels to 16 numbers of mean 0 and variance 1, and back; frame 0 counts four times."""

    def __init__(self, video: torch.Tensor, side: int = 8, whitening: float = 1.0):
        """Take the principal components of a (B, 3, T, H, W) sample.

        Args:
            side: of the blocks, pixels.
            whitening: with 1 all numbers have variance 1, so that what is hardly visible counts as much as what is;
                with 0 errors count as in pixels. The mean of the variances is 1 with any.
        """
        self._side = side
        blocks = self._blocks(video).movedim(1, -1).flatten(0, -2)
        self._mean = blocks.mean(dim=0)
        variances, directions = torch.linalg.eigh(torch.cov((blocks - self._mean).T))
        self._directions = directions[:, -LATENT_CHANNELS:]
        deviations = variances[-LATENT_CHANNELS:].sqrt()
        scaled = deviations ** (1 - whitening)
        self._deviations = deviations / scaled * scaled.square().mean().sqrt()

    def to(self, device: torch.device | str) -> LinearCodec:
        """Compute on a device from now on; returns the codec."""
        parts = (self._mean, self._directions, self._deviations)
        self._mean, self._directions, self._deviations = (part.to(device) for part in parts)
        return self

    def _blocks(self, video: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) to (B, 12 side^2, F, h, w)."""
        side = self._side
        padded = torch.cat([video[:, :, :1]] * (LATENT_FRAMES - 1) + [video], dim=2)
        batch, _, frames, height, width = padded.shape
        split = padded.view(batch, 3, frames // LATENT_FRAMES, LATENT_FRAMES, height // side, side, width // side, side)
        return split.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) in [-1, 1] to (B, 16, F, h, w)."""
        centred = self._blocks(video).movedim(1, -1) - self._mean
        return (centred @ self._directions / self._deviations).movedim(-1, 1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, 16, F, h, w) to (B, 3, T, H, W) in [-1, 1]."""
        side = self._side
        blocks = (latents.movedim(1, -1) * self._deviations) @ self._directions.T + self._mean
        batch, frames, height, width = blocks.shape[:4]
        split = blocks.view(batch, frames, height, width, 3, LATENT_FRAMES, side, side).permute(0, 4, 1, 5, 2, 6, 3, 7)
        video = split.reshape(batch, 3, frames * LATENT_FRAMES, height * side, width * side)
        return video[:, :, LATENT_FRAMES - 1 :].clamp(-1, 1)


class TrainedToy:
    """The transformer, its codec, and clips that it was not trained on.

    Attributes:
        dit: trained, in float32.
        losses: of all training steps.
    """

    def __init__(self, device: torch.device | str = "cpu", steps: int = TRAINING_STEPS):
        """Train for ``steps`` steps of `BATCH` clips each."""
        from diffsynth.models.wan_video_dit import WanModel

        self.device = torch.device(device)
        self._generator = torch.Generator().manual_seed(0)
        scenes = moving_scenes(_CLIPS, self._generator)
        self.codec = LinearCodec(scenes.video)
        self._texts = torch.randn(_KINDS + 1, _WORDS, _TEXT_WIDTH, generator=self._generator)
        dit = WanModel(**{**small_dit_sizes(layers=_LAYERS), "ffn_dim": _HIDDEN, "text_dim": _TEXT_WIDTH})
        dit.control_adapter = CameraEncoder(32, 128)  # pyright: ignore[reportAttributeAccessIssue] (as in networks)
        dit.load_state_dict(random_weights(dit.state_dict(), 0))
        self.losses = self._train(dit.to(self.device), scenes, steps)
        self.dit = dit.eval().requires_grad_(False)

    def _train(self, dit: WanModel, scenes: Scenes, steps: int) -> list[float]:
        samples, inputs = self.codec.encode(scenes.video).to(self.device), self.conditioning(scenes)
        # DiffSynth's own takes the first clip of a batch alone, where there is a camera encoder.
        dit.patchify = lambda x, control: dit.patch_embedding(x) + dit.control_adapter(control)
        losses = train_by_flow_matching(
            dit, samples, inputs, self._texts[_KINDS].to(self.device), steps=steps, generator=self._generator
        )
        del dit.patchify
        return losses

    def fresh_dit(self) -> WanModel:
        """A copy in bfloat16 for a `Transformer` to take over, its norms in float32 as those that are loaded."""
        dit = copy.deepcopy(self.dit).bfloat16()
        with_exact_norms(dit)
        return dit

    def conditioning(self, scenes: Scenes) -> WindowConditioning:
        """What the transformer knows of a batch: a prompt, the seen pixels, where they are, and the first frame."""
        count = len(scenes.kinds)
        color = torch.where(scenes.mask > 0, scenes.video, -1.0)
        known = torch.cat([color[:, :, :1], color.new_zeros(color[:, :, 1:].shape)], dim=2)
        grid = self.codec.encode(color).shape[2:]
        flags = torch.zeros(count, LATENT_FRAMES, *grid)
        flags[:, :, 0] = 1
        mask = self.codec.encode(scenes.mask.expand_as(color) * 2 - 1)
        return WindowConditioning(
            self._texts[scenes.kinds],
            self._texts[_KINDS].expand(count, -1, -1),
            torch.cat([self.codec.encode(color), mask], dim=1) / _CONTROL_SCALE,
            torch.cat([flags, self.codec.encode(known)], dim=1),
            torch.zeros(1, 257, 1280),
        ).to(self.device)


def train_by_flow_matching(
    dit: WanModel,
    samples: torch.Tensor,
    inputs: WindowConditioning,
    unprompted_embeds: torch.Tensor,
    *,
    steps: int,
    generator: torch.Generator,
    batch: int = BATCH,
    learning_rate: float = _LEARNING_RATE,
    shift: float = _SHIFT,
    state: Path | None = None,
    deadline: float = math.inf,
) -> list[float]:
    """Train all of a transformer: predict noise minus sample, at sigmas that lie about as densely as the sampler's.

    Args:
        samples: (N, 16, F, h, w) latents of all clips, on the transformer's device.
        inputs: of all clips; they share one image embedding.
        unprompted_embeds: (L, C) in the place of a share of the prompts.
        generator: on the CPU, of everything that chance decides.
        state: file that keeps what is done; a call that finds it continues there, and gives the same weights.
        deadline: of `time.monotonic`, after which training stops.

    Returns:
        The losses of all steps that are done; fewer than ``steps`` where the deadline came first.
    """
    from diffsynth.pipelines.wan_video import model_fn_wan_video

    device = samples.device
    # All clips share one image embedding; computing it for each would take most of the time.
    embedding, dit.img_emb = dit.img_emb.requires_grad_(False), _Constant(dit.img_emb(inputs.image_embeds).detach())
    trained = [parameter for parameter in dit.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=max(steps, 2))
    losses: list[torch.Tensor] = []
    if state is not None and state.exists():
        kept = torch.load(state, map_location=device)
        for part, name in ((dit, "dit"), (optimizer, "optimizer"), (schedule, "schedule")):
            part.load_state_dict(kept[name])
        generator.set_state(kept["generator"].cpu())
        losses = list(kept["losses"])

    def keep() -> None:
        if state is None or not losses:
            return
        parts = {"dit": dit, "optimizer": optimizer, "schedule": schedule}
        kept = {name: part.state_dict() for name, part in parts.items()}
        partial_path = state.with_suffix(".partial")
        torch.save({**kept, "generator": generator.get_state(), "losses": torch.stack(losses)}, partial_path)
        put_in_place(partial_path, state)

    while len(losses) < steps:
        if time.monotonic() >= deadline:
            keep()
            break
        chosen = torch.randint(0, len(samples), (batch,), generator=generator).to(device)
        unprompted = torch.rand(batch, 1, 1, generator=generator).to(device) < _UNPROMPTED
        uniform = torch.rand(batch, 1, 1, 1, 1, generator=generator).to(device)
        sigma = shift * uniform / (1 + (shift - 1) * uniform)
        sample = samples[chosen]
        noise = torch.randn(sample.shape, generator=generator).to(device)
        control = inputs.control_latents[chosen] if dit.control_adapter is not None else None
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            velocity = model_fn_wan_video(
                dit=dit,
                latents=torch.lerp(sample, noise, sigma),
                timestep=1000 * sigma.flatten(),
                context=torch.where(unprompted, unprompted_embeds, inputs.prompt_embeds[chosen]),
                clip_feature=inputs.image_embeds.expand(batch, -1, -1),
                y=inputs.image_latents[chosen],
                control_camera_latents_input=control,
            )
            loss = functional.mse_loss(velocity.float(), noise - sample)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if len(losses) % _STEPS_KEPT == 0:
            keep()
    dit.img_emb = embedding
    return torch.stack(losses).tolist() if losses else []


class _Constant(nn.Module):
    """In the place of the image's embedding: one result for every clip."""

    def __init__(self, value: torch.Tensor):
        super().__init__()
        self._value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._value.expand(len(x), -1, -1)
