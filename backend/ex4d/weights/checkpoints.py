"""Reads weights from .safetensors, .gguf and .pth files, and loads them strictly: every key and shape, or an error.

Tensors are mapped from the file, not read, until they are used: a transformer of 65 GB passes through a machine with
less memory than that.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ex4d.weights.errors import CheckpointError
from ex4d.weights.gguf_files import ENDING as GGUF
from ex4d.weights.gguf_files import read_gguf
from ex4d.weights.packed import StoredTensor, with_scales

# Endings of files of weights, of the formats that are read here.
SAFETENSORS = (".safetensors", ".sft")
PICKLED = (".pth", ".pt", ".ckpt", ".bin")

# What torch raises over damaged bytes, by where they are damaged.
_UNREADABLE = (RuntimeError, OSError, EOFError, ValueError, LookupError, pickle.UnpicklingError, struct.error)

OnTensor = Callable[[int, int], None]
_Network = TypeVar("_Network", bound=nn.Module)

# How many keys an error lists before it only counts them.
_LISTED = 5

# Names under which some programs (Lightning, DeepSpeed) keep the tensors of a .pth file one level down.
_WRAPPERS = ("state_dict", "module", "model_state", "model_state_dict", "model")


def read_checkpoint(paths: Path | Sequence[Path]) -> dict[str, torch.Tensor]:
    """The tensors of one file, or of all shards of one model, on the CPU and mapped from the disk.

    Raises:
        CheckpointError: a file is damaged or cut off, holds something other than tensors, or two shards hold one key.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path in [paths] if isinstance(paths, Path) else paths:
        _add_shard(tensors, _read_safetensors(path) if path.suffix in SAFETENSORS else _read_pickled(path), path)
    return tensors


def read_stored(paths: Path | Sequence[Path]) -> dict[str, StoredTensor]:
    """As `read_checkpoint`, but also GGUF files, and 8-bit weights joined with their scales.

    Raises:
        CheckpointError: as in `read_checkpoint`, `read_gguf` and `with_scales`.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in [paths] if isinstance(paths, Path) else paths:
        _add_shard(tensors, read_gguf(path) if path.suffix == GGUF else with_scales(read_checkpoint(path), path), path)
    return tensors


def _add_shard(tensors: dict[str, Any], shard: Mapping[str, Any], path: Path) -> None:
    twice = tensors.keys() & shard.keys()
    if twice:
        raise CheckpointError(f"{path} holds keys that an earlier shard holds too: {some_keys(twice)}")
    tensors.update(shard)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def read_configured(path: Path, config: str, tensors: str) -> tuple[Mapping[str, Any], dict[str, torch.Tensor]]:
    """A file of torch.save that holds a network's configuration beside its tensors, each under a name.

    Raises:
        CheckpointError: the file is damaged or cut off, or lacks one of the two.
    """
    values = _unpickled(path)
    if not isinstance(values, Mapping) or not isinstance(values.get(config), Mapping) or tensors not in values:
        raise CheckpointError(
            f"{path} does not hold {config!r} and {tensors!r}, so it holds no known weights. "
            "ex4d models list says which files belong here"
        )
    return values[config], _tensors_of(path, values[tensors])


def _read_pickled(path: Path) -> dict[str, torch.Tensor]:
    values = _unpickled(path)
    if isinstance(values, Mapping):
        inner = [values[name] for name in _WRAPPERS if isinstance(values.get(name), Mapping)]
        # What stands beside a wrapper are counters and an optimiser's state.
        if inner and not any(isinstance(value, torch.Tensor) for value in values.values()):
            values = inner[0]
    return _tensors_of(path, values)


def _unpickled(path: Path) -> object:
    """What torch.save wrote. Only tensors and plain values are unpickled: such a file cannot run code here."""
    try:
        # Files of the oldest format cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if "weights only" not in str(error).lower():
            raise _damaged(path, error) from error
        raise CheckpointError(
            f"{path} holds Python objects beside tensors, which are not loaded, since they could run code. Save its "
            "tensors alone, as .safetensors"
        ) from error
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def _tensors_of(path: Path, values: object) -> dict[str, torch.Tensor]:
    found = values if isinstance(values, Mapping) else {}
    tensors = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if not isinstance(values, Mapping) or len(tensors) < len(values):
        raise CheckpointError(f"{path} is not a flat dictionary of tensors, so it holds no known weights")
    return tensors


def _damaged(path: Path, error: Exception) -> CheckpointError:
    if not path.exists():
        return CheckpointError(f"{path} is missing; ex4d models check lists what is missing")
    return CheckpointError(
        f"{path} ({path.stat().st_size} bytes) cannot be read as weights, it may be cut off: {first_line(error)}. "
        "Compare it with ex4d models check, and fetch it again with ex4d models fetch"
    )


def first_line(error: Exception) -> str:
    """The first line of a library's error, shortened, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def load_strictly(
    model: _Network,
    tensors: Mapping[str, StoredTensor],
    source: Path | Sequence[Path],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    on_tensor: OnTensor | None = None,
) -> _Network:
    """Give a network built without memory (on the meta device) its weights, and make it ready for inference.

    Args:
        model: its parameters decide which keys and shapes are right.
        tensors: by the network's own names.
        source: for errors.
        on_tensor: called with how many tensors are loaded, and of how many; what it raises ends the work.

    Raises:
        CheckpointError: naming missing and unexpected keys, and keys of another shape.
    """
    require_layout(tensors, shapes_of(model.state_dict()), source, type(model).__name__)
    done = count(1)

    def report(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if on_tensor is not None:
            on_tensor(next(done), len(tensors))
        return tensor

    return fill(model, tensors, device=device, dtype=dtype, change=report)


def fill(
    model: _Network,
    tensors: Mapping[str, StoredTensor],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    change: Callable[[str, torch.Tensor], torch.Tensor],
) -> _Network:
    """Give a network, or a part of one, weights that are known to fit.

    Args:
        change: called with each key and tensor (as in the file, on ``device``) before it is turned into ``dtype``.
    """
    state = {}
    for key, tensor in tensors.items():
        moved = change(key, tensor.to(device))
        # A copy in any case: a tensor that stays mapped would change with its file.
        mapped = not isinstance(tensor, torch.Tensor) or moved.data_ptr() == tensor.data_ptr()
        state[key] = moved.to(dtype, copy=mapped)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def shapes_of(tensors: Mapping[str, StoredTensor]) -> dict[str, tuple[int, ...]]:
    """Keys and shapes."""
    return {key: tuple(value.shape) for key, value in tensors.items()}


def require_layout(
    tensors: Mapping[str, StoredTensor], expected: Mapping[str, Sequence[int]], source: Path | Sequence[Path], what: str
) -> None:
    """Compare keys and shapes with what they should be, and check that all tensors hold real numbers.

    Args:
        what: the network's name, for the error.

    Raises:
        CheckpointError: as in `load_strictly`.
    """
    common = expected.keys() & tensors.keys()
    shapes = {key: (tuple(tensors[key].shape), tuple(expected[key])) for key in common}
    refuse_differences(
        source,
        what,
        {
            "keys are missing": expected.keys() - tensors.keys(),
            "keys are unexpected": tensors.keys() - expected.keys(),
            "tensors have another shape": [f"{key} is {a}, not {b}" for key, (a, b) in shapes.items() if a != b],
            "tensors hold no real numbers": [key for key in common if not tensors[key].is_floating_point()],
        },
    )


def refuse_differences(source: Path | Sequence[Path], what: str, keys: Mapping[str, Collection[str]]) -> None:
    """Raises CheckpointError where there are keys of any problem; see `require_layout`."""
    problems = [f"{len(found)} {problem} ({some_keys(found)})" for problem, found in keys.items() if found]
    if problems:
        raise CheckpointError(
            f"{name_of(source)} is not the {what} it should be: {'; '.join(problems)}. "
            "ex4d models list says which files belong here"
        )


def name_of(source: Path | Sequence[Path]) -> str:
    """One file's path, or the first of several and how many there are."""
    if isinstance(source, Path):
        return str(source)
    return str(source[0]) if len(source) == 1 else f"{source[0]} and {len(source) - 1} more shards"


def some_keys(keys: Collection[str]) -> str:
    """The first few of some keys, for a message."""
    listed = sorted(keys)[:_LISTED]
    return ", ".join(listed) + (", ..." if len(keys) > _LISTED else "")
