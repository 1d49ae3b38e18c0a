"""Small clips side by side in one training sample, so that the trainer, which takes one sample a pass, fills a GPU.

The clips of a pack follow each other along the latents' time axis. They share sigma and see nothing of each other:
self-attention stays within a clip, and each clip's positions begin at zero.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.nn import functional

from ex4d.generation.wan.conditioning import LATENT_FRAMES, WindowConditioning
from ex4d.training.adapter import TrainedTransformer
from ex4d.training.manifest import FORMAT, DatasetManifest, ShardRecord
from ex4d.training.samples import MaskKind, SampleOrigin, TrainingSample
from ex4d.training.shards import Dataset, shard_name


class PackedTransformer(TrainedTransformer):
    """A transformer with its adapter that takes packs of ``clips`` clips."""

    def __init__(self, trained: TrainedTransformer, clips: int):
        super().__init__(trained.transformer, trained.adapter)
        self._clips = clips

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: WindowConditioning) -> torch.Tensor:
        """Predict the velocity of all clips, (1, 16, clips F, h, w), at one timestep (1,)."""
        prepared = self.transformer.prepare(conditioning)
        own = len(prepared.angles[0]) // self._clips
        cosines, sines = (part[:own].repeat(self._clips, 1) for part in prepared.angles)
        prepared = replace(prepared, angles=(cosines, sines), attend=partial(_attend_within_clips, self._clips))
        return self.transformer.velocities(latents, timestep, prepared, which=(0,))[0]


def _attend_within_clips(
    clips: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, head_dim: int
) -> torch.Tensor:
    """Attend with (N, C) queries, heads side by side, to the keys and values of the same clip: (N, C)."""
    query, key, value = (
        part.unflatten(0, (clips, -1)).unflatten(2, (-1, head_dim)).transpose(1, 2) for part in (query, key, value)
    )
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2).flatten(0, 1)


@dataclass(frozen=True)
class _KeptDataset(Dataset):
    """A data set whose samples are in memory, on the device that trains."""

    kept: tuple[TrainingSample, ...] = ()

    def samples(self, shard: ShardRecord) -> Iterator[TrainingSample]:
        """Yield the samples of the one shard."""
        return iter(self.kept)


def packed_dataset(
    latents: torch.Tensor, conditioning: WindowConditioning, clips: int, *, side: int, mask: MaskKind, made_of: str
) -> Dataset:
    """Pack clips for `PackedTransformer`; those that fill no pack are left out.

    Args:
        latents: (N, 16, F, h, w) of all clips.
        conditioning: of all clips; the first one's prompt and image stand for all.
        clips: of a pack.
        side: of the images, pixels.
        made_of: all that decides the data, in words: a run that is resumed must find the same.
    """
    packs = [
        TrainingSample(
            SampleOrigin(f"{number:06d}", LATENT_FRAMES * (clips * latents.shape[2] - 1) + 1, side, side, mask),
            *(
                _side_by_side(part[number * clips : (number + 1) * clips])
                for part in (latents, conditioning.control_latents, conditioning.image_latents)
            ),
            conditioning.prompt_embeds[0],
            conditioning.image_embeds[0],
        )
        for number in range(len(latents) // clips)
    ]
    digest = hashlib.sha256(made_of.encode()).hexdigest()
    shard = ShardRecord(shard_name(0), tuple(pack.key for pack in packs), 0, digest)
    manifest = DatasetManifest(FORMAT, (shard,), packs[0].shapes, "float32", {"made of": made_of}, {}, {}, {})
    return _KeptDataset("memory", manifest, tuple(packs))


def _side_by_side(latents: torch.Tensor) -> torch.Tensor:
    """(B, C, F, h, w) to (C, B F, h, w)."""
    return latents.transpose(0, 1).flatten(1, 2).contiguous()


def clip_of(conditioning: WindowConditioning, index: int) -> WindowConditioning:
    """The conditioning of one clip of a batch, whose image embedding all share."""
    parts = {name: part[index : index + 1] for name, part in vars(conditioning).items() if part is not None}
    return replace(conditioning, **{**parts, "image_embeds": conditioning.image_embeds})


def stacked_clips(parts: Sequence[WindowConditioning]) -> WindowConditioning:
    """One batch of several."""
    first = parts[0]
    names = ("prompt_embeds", "control_latents", "image_latents")
    return replace(first, **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})
