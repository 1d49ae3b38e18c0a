"""Samples of random numbers, of the shapes that a small data set has."""

from __future__ import annotations

import torch

from ex4d.training.manifest import FORMAT, DatasetManifest
from ex4d.training.samples import SampleOrigin, TrainingSample
from ex4d.training.shards import shard_name, write_shard


def random_sample(number: int = 0, **changes) -> TrainingSample:
    generator = torch.Generator().manual_seed(number)

    def noise(*shape):
        return torch.randn(shape, generator=generator).to(torch.bfloat16)

    prompt = noise(12, 8)
    prompt[5:] = 0
    tensors = {
        "target_latents": noise(16, 2, 4, 6),
        "control_latents": noise(32, 2, 4, 6),
        "image_latents": noise(20, 2, 4, 6),
        "prompt_embeds": prompt,
        "image_embeds": noise(5, 7),
    }
    return TrainingSample(SampleOrigin(f"{number:08d}", 5, 48, 32), **{**tensors, **changes})


def random_dataset(folder, *counts: int) -> DatasetManifest:
    """A data set with a shard of each number of samples."""
    records, number = [], 0
    for index, count in enumerate(counts):
        samples = [random_sample(number + step) for step in range(count)]
        records.append(write_shard(folder / shard_name(index), samples))
        number += count
    manifest = DatasetManifest(FORMAT, tuple(records), random_sample().shapes, "bfloat16", {}, {}, {}, {})
    manifest.save(folder)
    return manifest
