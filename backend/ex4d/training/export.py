"""Exports a run's adapter to one flat file with the published names, which the engine wan and the original load."""

from __future__ import annotations

from pathlib import Path

import torch

from ex4d.training.adapter import published_tensors
from ex4d.training.errors import TrainingError
from ex4d.training.run_folder import RunFolder
from ex4d_core.durable_files import make_folder, put_in_place
from ex4d_core.wan_settings import is_weights_name

# torch.save, as the published file; and safetensors.
ENDINGS = (".ckpt", ".safetensors")


def export_adapter_file(run: RunFolder, target: Path, step: int | None = None, *, overwrite: bool = False) -> int:
    """Write the adapter of a state, float32, and return that state's step.

    Args:
        target: a .ckpt or .safetensors file; it appears when it is complete.
        step: of the state; None for the last one.
        overwrite: replace a file.

    Raises:
        TrainingError: there is no such state, or the file exists or has another ending.
    """
    if target.suffix not in ENDINGS:
        raise TrainingError(
            f"invalid name {target.name!r} of an adapter: expected one that ends in .ckpt or .safetensors"
        )
    if target.exists() and not overwrite:
        raise TrainingError(f"{target} exists: choose another name, or --overwrite")
    config, state = run.config(), run.read_state(step)
    if state is None:
        raise TrainingError(f"{run.folder} has no state yet, so there is nothing to export")
    tensors = {name: value.clone() for name, value in published_tensors(state.adapter, config.shape).items()}
    make_folder(target.parent)
    partial = target.with_name(f"{target.name}.partial")
    try:
        if target.suffix == ".ckpt":
            torch.save(tensors, partial)
        else:
            from safetensors.torch import save_file

            save_file(tensors, partial)
        run.note_export(partial)
        put_in_place(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return state.step


def adapter_place(models: Path, name: str) -> Path:
    """Where an exported adapter is found by its name, with --adapter and in Blender.

    Raises:
        TrainingError: nobody could ask for it by that name.
    """
    if not is_weights_name(name):
        raise TrainingError(f"invalid name {name!r:.80} of an adapter: expected a file name without folder and ending")
    return models / "adapters" / f"{name}.safetensors"
