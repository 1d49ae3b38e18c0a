"""Whether an adapter that is trained on single clips learns geometry: `ex4d bench train --part learning`.

A small Wan is first trained as an image-to-video model on procedural clips, then frozen. Adapters (LoRA and camera encoder)
are trained on the same clips, each clip under masks that its own DW-Mesh gives, or under rectangles. All are measured on true
new views of other scenes, which no training has seen. A folder keeps what is done, so that the next call continues.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from bench.measuring import Row, wait_for_gpu
from bench.packed_clips import PackedTransformer, clip_of, packed_dataset, stacked_clips
from bench.random_weights import small_dit_sizes
from bench.toy_clips import (
    Clips,
    filmed,
    new_cameras,
    random_clips,
    rectangular_masks,
    simulated_masks,
    true_views,
)
from bench.toy_scenes import random_cameras, random_scenes
from bench.trained_toy import LinearCodec, train_by_flow_matching
from ex4d.generation.wan.camera_encoder import LATENT_CHANNELS
from ex4d.generation.wan.conditioning import WindowConditioning, image_to_video_input, known_mask
from ex4d.generation.wan.denoising import denoise
from ex4d.generation.wan.kernels.attention import fastest_attention
from ex4d.generation.wan.networks import open_dit
from ex4d.generation.wan.transformer import Recomputation, Transformer
from ex4d.training.adapter import Building, build_trained
from ex4d.training.ranks import accelerator_of
from ex4d.training.run_folder import RunConfig, RunFolder
from ex4d.training.settings import AdapterShape, TrainingSettings
from ex4d.training.trainer import OnStep, Trainer, training_precision
from ex4d_core.durable_files import put_in_place
from ex4d_core.wan_settings import wan_preset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffsynth.models.wan_video_dit import WanModel

Masks = Literal["simulated", "rectangles"]
MASKS: tuple[Masks, ...] = ("simulated", "rectangles")

# What the issue asks for: of the adapter with simulated masks, in dB over the frozen base in seen pixels, and over the one
# with rectangles in holes; and its share of the base's parameters.
SEEN_TARGET, HOLE_TARGET, SHARE_TARGET = 6.0, 2.0, 0.02

# Blocks of 4 frames of 2x2 pixels become 16 numbers.
_BLOCK_SIDE = 2
_WHITENING = 0.3
# Holes are far from what the codec was made for; this keeps their latents at the size of the others.
_CONTROL_SCALE = 4.0
_SHIFT = 3.0
_SAMPLER = replace(wan_preset("ex4d-reference"), steps=16, guidance=1.0, shift=_SHIFT)
# Seeds of clips: none of those below is used twice.
_TRAINING_CLIPS, _EVALUATED_CLIPS = 1, 9001
# Of the evaluated views' last frame, to either side.
_EVALUATED_DEGREES = (20.0, 60.0)
# Holes and seen pixels count in clips that have at least this share of them.
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Experiment:
    """How large the experiment is.

    Attributes:
        side, frames: of the clips; frames are 4n + 1.
        heads, layers, ffn: of the base, whose width is 128 a head.
        shape: of the adapter.
        clips: that base and adapters are trained on.
        masks: of each clip, for the adapters.
        base_steps, base_batch, base_rate: of the base's training.
        settings: of the adapters' training; a sample is a pack of clips.
        pack: clips of a pack.
        evaluated: clips of other scenes.
    """

    side: int
    frames: int
    heads: int
    layers: int
    ffn: int
    shape: AdapterShape
    clips: int
    masks: int
    base_steps: int
    base_batch: int
    base_rate: float
    settings: TrainingSettings
    pack: int
    evaluated: int


def _settings(steps: int, batch: int, rate: float, precision: Literal["bf16", "float32"]) -> TrainingSettings:
    return TrainingSettings(
        steps=steps,
        batch=batch,
        learning_rate=rate,
        warmup=min(50, steps),
        shift=_SHIFT,
        loss_weight="uniform",
        unprompted=0.0,
        precision=precision,
        checkpointing=False,
        keep_every=200,
    )


EXPERIMENTS = {
    "tiny": Experiment(
        side=32,
        frames=9,
        heads=1,
        layers=4,
        ffn=512,
        shape=AdapterShape(rank=4, alpha=4.0, hidden=8),
        clips=512,
        masks=2,
        base_steps=600,
        base_batch=8,
        base_rate=3e-3,
        settings=_settings(300, 1, 3e-3, "float32"),
        pack=8,
        evaluated=24,
    ),
    "full": Experiment(
        side=48,
        frames=13,
        heads=2,
        layers=6,
        ffn=1024,
        shape=AdapterShape(rank=4, alpha=4.0, hidden=16),
        clips=4096,
        masks=2,
        base_steps=4000,
        base_batch=32,
        base_rate=1e-3,
        settings=_settings(1200, 2, 3e-3, "bf16"),
        pack=16,
        evaluated=48,
    ),
}


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
        seen, holes: (B, T, H, W) bool; pixels where mask and truth disagree are in neither.
        conditioning: of all clips.
        noise: (B, 16, F, h, w), equal for all models.
    """

    truth: torch.Tensor
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


class Learning:
    """The experiment in a folder: what is done is not done again."""

    def __init__(self, experiment: Experiment, folder: Path, device: torch.device):
        self.experiment, self.folder, self.device = experiment, folder, device
        self._dtype = torch.float32 if experiment.settings.precision == "float32" else torch.bfloat16
        folder.mkdir(parents=True, exist_ok=True)
        self.clips = random_clips(
            experiment.clips, experiment.frames, experiment.side, _TRAINING_CLIPS, device
        )
        self._video = to_video(self.clips.color)
        self.codec = LinearCodec(self._video[:256].cpu(), _BLOCK_SIDE, _WHITENING).to(device)

    @property
    def base(self) -> Path:
        """The frozen base's file."""
        return self.folder / "base.safetensors"

    def train_base(self) -> list[float]:
        """Train and write the base; returns its losses."""
        from diffsynth.models.wan_video_dit import WanModel

        size = self.experiment
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            dit = WanModel(**small_dit_sizes(size.heads, size.layers, size.ffn))
        torch.nn.init.zeros_(dit.head.head.weight)
        seen = torch.ones(self.clips.color.shape[:-1], dtype=torch.bool, device=self.device)
        inputs = conditioning_of(self.codec, self._video, seen)
        losses = train_by_flow_matching(
            dit.to(self.device),
            self.codec.encode(self._video),
            inputs,
            inputs.prompt_embeds[:1],
            steps=size.base_steps,
            generator=torch.Generator().manual_seed(0),
            batch=size.base_batch,
            learning_rate=size.base_rate,
            shift=_SHIFT,
        )
        _write(dit.state_dict(), self.base)
        return losses

    def masked(self, masks: Masks, seed: int) -> tuple[torch.Tensor, WindowConditioning]:
        """Latents and conditioning of all pairs: each clip under some masks of a kind."""
        parts = []
        for number in range(self.experiment.masks):
            drawn = 1000 * (seed + 1) + number
            mask = simulated_masks(self.clips, drawn)
            if masks == "rectangles":
                shares = 1 - mask.float().mean(dim=(1, 2, 3))
                mask = rectangular_masks(shares.cpu(), *mask.shape[1:3], drawn).to(self.device)
            parts.append(conditioning_of(self.codec, self._video, mask))
        latents = self.codec.encode(self._video)
        return torch.cat([latents] * len(parts)), stacked_clips(parts)

    def trainer(self, masks: Masks, seed: int, on_step: OnStep | None = None) -> Trainer:
        """A run of the project's trainer, at the state that its folder has."""
        size, folder = self.experiment, RunFolder(self.folder / f"{masks}-{seed}")
        settings = replace(size.settings, seed=seed)
        latents, conditioning = self.masked(masks, seed)
        dataset = packed_dataset(
            latents,
            conditioning,
            size.pack,
            side=size.side,
            mask="rendered" if masks == "simulated" else "other",
            made_of=f"{masks} {seed} {size}",
        )
        config = RunConfig(settings, size.shape, dataset.location, dataset.manifest.identity, _identity(self.base))
        if folder.exists:
            folder.require_same(config)
        else:
            folder.start(config)
        dit, blocks = open_dit([self.base], None, device=self.device, dtype=self._dtype)
        building = Building(size.shape, seed, recomputation=Recomputation(checkpointing=False))
        model = PackedTransformer(build_trained(dit, blocks, building, device=self.device), size.pack)
        return Trainer(model, dataset, config, folder, accelerator_of(str(self.device), shard=False), on_step)

    def run(self, masks: Masks, seed: int, until: int | None = None, on_step: OnStep | None = None) -> None:
        """Train an adapter, or continue, and write it as a file with the published names once it is done."""
        trainer = self.trainer(masks, seed, on_step)
        trainer.run(until)
        if trainer.step == trainer.settings.steps:
            _write(trainer.adapter.published(), self.adapter(masks, seed))

    def adapter(self, masks: Masks, seed: int) -> Path:
        """A finished adapter's file."""
        return self.folder / f"{masks}-{seed}.safetensors"

    def task(self) -> NewViewTask:
        """The new views that all models are measured on."""
        size = self.experiment
        scenes = random_scenes(size.evaluated, _EVALUATED_CLIPS)
        cameras = random_cameras(size.evaluated, size.frames, size.side, _EVALUATED_CLIPS + 1, moving=0.5)
        clips = filmed(scenes, cameras, self.device)
        moved = new_cameras(clips, _EVALUATED_CLIPS + 2, _EVALUATED_DEGREES)
        (color, mask), views = clips.rendered(moved), true_views(scenes, clips, moved)
        conditioning = conditioning_of(self.codec, to_video(color), mask)
        shape = conditioning.image_latents[:, :LATENT_CHANNELS].shape
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(_EVALUATED_CLIPS)).to(self.device)
        return NewViewTask(views.color, mask & views.visible, ~mask & ~views.visible, conditioning, noise)

    def generated(self, task: NewViewTask, adapter: Path | None) -> torch.Tensor:
        """(B, 3, T, H, W) in [-1, 1], made by the engine's own sampler; without an adapter, by the frozen base."""
        dit, blocks = open_dit([self.base], adapter, device=self.device, dtype=self._dtype)
        transformer = Transformer(dit, blocks, device=self.device)
        with torch.inference_mode():
            latents = [
                denoise(
                    transformer,
                    task.noise[index : index + 1],
                    clip_of(task.conditioning, index),
                    _SAMPLER,
                    precision=partial(training_precision, self.device, self.experiment.settings.precision),
                )
                for index in range(len(task.noise))
            ]
        return self.codec.decode(torch.cat(latents))


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
        control / _CONTROL_SCALE,
        torch.cat([flags.expand(len(video), -1, -1, *image.shape[-2:]), image], dim=1),
        video.new_zeros(1, 257, 1280),
    )


def _identity(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file, completely or not at all."""
    from safetensors.torch import save_file

    partial_path = path.with_suffix(".partial")
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial_path)
    put_in_place(partial_path, path)
