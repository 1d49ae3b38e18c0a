"""A toy of the transformer with random weights, a data set that fits it, and runs that a CPU trains in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.random_weights import random_weights, small_dit_sizes
from ex4d.generation.wan.networks import with_exact_norms
from ex4d.training.adapter import Building, TrainedTransformer, build_trained
from ex4d.training.manifest import FORMAT, DatasetManifest
from ex4d.training.ranks import accelerator_of
from ex4d.training.run_folder import RunConfig, RunFolder
from ex4d.training.samples import TrainingSample
from ex4d.training.settings import AdapterShape, TrainingSettings
from ex4d.training.shards import Dataset, shard_name, write_shard
from ex4d.training.trainer import OnStep, Trainer
from tests.training.random_samples import random_sample

for package in ("accelerate", "peft", "tensorboard", "webdataset", "diffsynth"):
    pytest.importorskip(package, reason="training needs the extras train and wan")

SHAPE = AdapterShape(rank=4, alpha=4.0, hidden=8)
SETTINGS = TrainingSettings(
    steps=6,
    batch=2,
    learning_rate=1e-2,
    warmup=2,
    precision="float32",
    frozen_in_8_bits=False,
    offload=False,
    keep_every=2,
    sample_every=0,
)


def toy_sample(number: int = 0, **changes: torch.Tensor) -> TrainingSample:
    """A sample whose colour latents are its target's: what there is to learn."""
    generator = torch.Generator().manual_seed(number)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    target = noise(16, 2, 4, 6)
    prompt = noise(12, 32)
    prompt[5:] = 0
    tensors = {
        "target_latents": target,
        "control_latents": torch.cat([target, noise(16, 2, 4, 6)]),
        "image_latents": noise(20, 2, 4, 6),
        "prompt_embeds": prompt,
        "image_embeds": 0.1 * noise(257, 1280),
    }
    return random_sample(number, **{**tensors, **changes})


def toy_dataset(folder: Path, *counts: int) -> Dataset:
    """A data set with a shard of each number of samples."""
    folder.mkdir(parents=True)
    numbers = iter(range(sum(counts)))
    records = [
        write_shard(folder / shard_name(shard), [toy_sample(next(numbers)) for _ in range(count)])
        for shard, count in enumerate(counts)
    ]
    DatasetManifest(FORMAT, tuple(records), toy_sample().shapes, "float32", {}, {}, {}, {}).save(folder)
    return Dataset.open(folder)


def toy_dit(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, list[nn.Module]]:
    """DiffSynth's transformer without its blocks, and these, as `networks.open_dit` returns them."""
    from diffsynth.models.wan_video_dit import WanModel

    dit = WanModel(**small_dit_sizes())
    dit.load_state_dict(random_weights(dit.state_dict(), 0))
    with_exact_norms(dit.to(dtype)).eval().requires_grad_(False)
    blocks, dit.blocks = list(dit.blocks), nn.ModuleList()
    return dit, blocks


def toy_model(dtype: torch.dtype = torch.float32, device: str = "cpu", **building: object) -> TrainedTransformer:
    """The toy with an adapter that changes nothing."""
    dit, blocks = toy_dit(dtype)
    blocks = [block.to(device) for block in blocks]
    return build_trained(dit.to(device), blocks, replace(Building(SHAPE), **building), device=device)


def stir(model: TrainedTransformer, seed: int = 1) -> None:
    """Give all trained parameters random values, so that each of them matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.adapter.parameters().values():
            drawn = torch.randn(parameter.shape, generator=generator).to(parameter.device)
            parameter.copy_(drawn / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1 * drawn)


def toy_config(dataset: Dataset, **settings: object) -> RunConfig:
    """A run's configuration."""
    return RunConfig(replace(SETTINGS, **settings), SHAPE, dataset.location, dataset.manifest.identity, "toy")


def toy_trainer(
    folder: Path, dataset: Dataset, config: RunConfig, on_step: OnStep | None = None, device: str = "cpu"
) -> Trainer:
    """Begin or continue a run with the toy, as a new process would."""
    run, accelerator = RunFolder(folder), accelerator_of(device)
    if accelerator.is_main_process and not run.exists:
        run.start(config)
    accelerator.wait_for_everyone()
    dtype = torch.float32 if config.settings.precision == "float32" else torch.bfloat16
    model = toy_model(dtype, device, seed=config.settings.seed)
    return Trainer(model, dataset, config, run, accelerator, on_step)
