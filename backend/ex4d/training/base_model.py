"""The frozen transformer of a run: found as the engine wan finds it, identified by its values, opened for training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from ex4d.generation.wan.networks import network_tensors, open_dit, require_diffsynth
from ex4d.generation.wan.transformer import Recomputation
from ex4d.training.adapter import Building, TrainedTransformer, build_trained
from ex4d.training.errors import TrainingError
from ex4d.training.run_folder import RunConfig
from ex4d.weights.catalogue import part
from ex4d.weights.checkpoints import OnTensor
from ex4d.weights.places import fetch_command, find_part
from ex4d_core.errors import RequestError

# Tensors that are small, and that every further training of a base changes.
_IDENTIFYING = (".modulation",)


def find_base(models: Path, further: Sequence[Path] = ()) -> tuple[Path, ...]:
    """The files of the transformer that an adapter is trained on.

    Raises:
        TrainingError: they are not on this machine.
        CheckpointError: some shards are missing.
    """
    files = find_part(models, part("dit"), further)
    if not files:
        raise TrainingError(f"the transformer that is trained on is not in {models}: {fetch_command(models, 'dit')}")
    return files


def find_start(name: str, models: Path, further: Sequence[Path] = ()) -> Path | None:
    """The adapter that a run continues from: None for "zero", EX-4D's own for "published", or a file.

    Raises:
        TrainingError: it is not there.
    """
    if name == "zero":
        return None
    if name == "published":
        found = find_part(models, part("ex4d"), further)
        if not found:
            raise TrainingError(
                f"EX-4D's own adapter is not in {models}: {fetch_command(models, 'ex4d')}, or begin with --from zero"
            )
        return found[0]
    if not Path(name).is_file():
        raise TrainingError(f"invalid --from {name!r:.200}: expected published, zero, or the file of an adapter")
    return Path(name).absolute()


def base_identity(files: Sequence[Path]) -> str:
    """A hash of a transformer's layout and of some values: equal for the same weights in other files."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network_tensors(files).items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        if name.endswith(_IDENTIFYING):
            digest.update(tensor.to("cpu").float().numpy().tobytes())
    return digest.hexdigest()


def open_for_training(
    files: Sequence[Path],
    config: RunConfig,
    device: torch.device | str,
    on_tensor: OnTensor | None = None,
    *,
    begins: bool = True,
) -> TrainedTransformer:
    """Load the frozen transformer, with the adapter that a run begins with.

    Args:
        begins: whether the run has no state yet; one that has needs no file that it once continued from.

    Raises:
        CheckpointError: the files do not fit, or the file that the run continues from is of another adapter.
        RequestError: the data of the configuration are incomplete.
    """
    require_diffsynth()
    settings = config.settings
    if settings.frozen_in_8_bits is None or settings.offload is None:
        raise RequestError("frozen_in_8_bits and offload must be chosen: use TrainingSettings.for_card")
    building = Building(
        config.shape,
        settings.seed,
        settings.frozen_in_8_bits,
        Recomputation(settings.checkpointing, settings.offload),
    )
    dtype = torch.float32 if settings.precision == "float32" else torch.bfloat16
    dit, blocks = open_dit(files, None, device=device, dtype=dtype, on_tensor=on_tensor)
    model = build_trained(dit, blocks, building, device=device)
    if config.started_from and begins:
        model.adapter.continue_from(Path(config.started_from))
    return model
