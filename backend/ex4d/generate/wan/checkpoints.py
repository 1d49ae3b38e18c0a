"""Reading weights, and loading them strictly: every key and every shape, or an error that names what is wrong.

Tensors are mapped from the file, not read, until they are used: a transformer of 65 GB passes through a machine with
less memory than that.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path

import torch
from torch import nn

from ex4d.generate.wan.errors import CheckpointError

# What torch raises over damaged bytes, by where they are damaged.
_UNREADABLE = (RuntimeError, OSError, EOFError, ValueError, LookupError, pickle.UnpicklingError, struct.error)

OnTensor = Callable[[int, int], None]

# How many keys an error lists before it only counts them.
_LISTED = 5

# Names under which some programs keep the tensors of a .pth file one level down.
_WRAPPERS = ("state_dict", "module", "model_state")


def read_checkpoint(paths: Path | Sequence[Path]) -> dict[str, torch.Tensor]:
    """The tensors of one file, or of all shards of one model, on the CPU and mapped from the disk.

    Raises:
        CheckpointError: a file is damaged or cut off, holds other things than tensors, or two shards hold one key.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path in [paths] if isinstance(paths, Path) else paths:
        part = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
        twice = tensors.keys() & part.keys()
        if twice:
            raise CheckpointError(f"{path} holds keys that an earlier shard holds too: {_some(twice)}")
        tensors.update(part)
    return tensors


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _read_pickled(path: Path) -> dict[str, torch.Tensor]:
    """A file of torch.save. Only tensors are unpickled: such a file cannot run code here."""
    try:
        # Files of the oldest format cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    if isinstance(values, Mapping) and len(values) == 1 and (name := next(iter(values))) in _WRAPPERS:
        values = values[name]
    is_flat = isinstance(values, Mapping) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in values.items()
    )
    if not is_flat:
        raise CheckpointError(f"{path} is no flat dictionary of tensors, so it holds no weights that this engine knows")
    return dict(values)


def _damaged(path: Path, error: Exception) -> CheckpointError:
    if not path.exists():
        return CheckpointError(f"{path} is not there; ex4d models check says what is missing")
    size = path.stat().st_size
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return CheckpointError(
        f"{path} ({size} bytes) cannot be read as weights, it may be cut off: {reason}. "
        "Compare it with ex4d models check, and fetch it again with ex4d models fetch"
    )


def load_strictly(
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    source: Path | Sequence[Path],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    on_tensor: OnTensor | None = None,
) -> nn.Module:
    """Give a model built without memory (on the meta device) its weights, and make it ready for inference.

    Args:
        model: its parameters decide which keys and shapes are right.
        tensors: by the model's own names.
        source: for errors.
        on_tensor: called with how many tensors are loaded, and of how many; what it raises ends the work.

    Raises:
        CheckpointError: naming missing and unexpected keys, and keys of another shape.
    """
    require_layout(model, tensors, source)
    done = count(1)

    def tell(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if on_tensor is not None:
            on_tensor(next(done), len(tensors))
        return tensor

    return fill(model, tensors, device=device, dtype=dtype, change=tell)


def fill(
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    change: Callable[[str, torch.Tensor], torch.Tensor],
) -> nn.Module:
    """Give a model, or a part of one, weights that are known to fit.

    Args:
        change: called with each key and tensor (as in the file, on ``device``) before it is turned into ``dtype``.
    """
    state = {}
    for key, tensor in tensors.items():
        moved = change(key, tensor.to(device))
        # A copy in any case: a tensor that stays mapped would change with its file.
        state[key] = moved.to(dtype, copy=moved.data_ptr() == tensor.data_ptr())
    model.load_state_dict(state, assign=True)
    for module in model.modules():
        # A few thousand numbers, and on a CPU torch refuses to mix half precision weights with exact inputs here.
        if isinstance(module, nn.LayerNorm):
            module.float()
    return model.eval().requires_grad_(False)


def require_layout(model: nn.Module, tensors: Mapping[str, torch.Tensor], source: Path | Sequence[Path]) -> None:
    """Compare keys and shapes with a model's, and see that all are numbers of some precision.

    Raises:
        CheckpointError: as in `load_strictly`.
    """
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    problems = []
    if missing := expected.keys() - tensors.keys():
        problems.append(f"{len(missing)} keys are missing ({_some(missing)})")
    if unexpected := tensors.keys() - expected.keys():
        problems.append(f"{len(unexpected)} keys are unexpected ({_some(unexpected)})")
    wrong = [key for key in expected.keys() & tensors.keys() if tuple(tensors[key].shape) != expected[key]]
    if wrong:
        examples = (f"{key} is {tuple(tensors[key].shape)}, not {expected[key]}" for key in sorted(wrong)[:_LISTED])
        problems.append(f"{len(wrong)} tensors have another shape ({'; '.join(examples)})")
    if odd := [key for key in expected.keys() & tensors.keys() if not tensors[key].is_floating_point()]:
        problems.append(f"{len(odd)} tensors hold no real numbers ({_some(odd)})")
    if problems:
        raise CheckpointError(
            f"{name_of(source)} is not the {type(model).__name__} it should be: {'; '.join(problems)}. "
            "ex4d models list says which files belong here"
        )


def name_of(source: Path | Sequence[Path]) -> str:
    """One file's path, or the first of several and how many there are."""
    if isinstance(source, Path):
        return str(source)
    return str(source[0]) if len(source) == 1 else f"{source[0]} and {len(source) - 1} more shards"


def _some(keys) -> str:
    listed = sorted(keys)[:_LISTED]
    return ", ".join(listed) + (", ..." if len(keys) > _LISTED else "")
