"""Searches folders for networks of the Wan family by what files hold: ComfyUI's folders, Hugging Face's cache, others.

Only the headers of files are read, and each file's once while it does not change.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch

from ex4d.installation import install_command
from ex4d.weights.checkpoints import PICKLED, SAFETENSORS, first_line, read_checkpoint
from ex4d.weights.errors import CheckpointError
from ex4d.weights.gguf_files import ENDING as GGUF
from ex4d.weights.gguf_files import read_titled_gguf
from ex4d.weights.lora import is_for_wan
from ex4d.weights.packed import StoredTensor, with_scales
from ex4d.weights.wan_models import RecognisedModel, recognise
from ex4d.weights.wan_names import own_tensors

SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")

# Folders of ComfyUI that hold parts of Wan.
_COMFYUI_FOLDERS = (
    *("diffusion_models", "unet", "text_encoders", "clip", "clip_vision", "vae", "checkpoints"),
    "unet_gguf",
)
_LORAS = "loras"
# The packing of GGUF files that cannot be looked into, since the package is missing.
UNREAD_GGUF = "GGUF"
COMFYUI_VARIABLE = "COMFYUI_PATH"
# How far below a folder files are looked for, and what is passed over.
_DEPTH = 6
_PASSED_OVER = {"blobs", "refs", "node_modules", "site-packages", "__pycache__", "custom_nodes"}
# Types of Wan's weights, by safetensors' names.
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
# Values of a tensor of another type that is read, since it may describe how a layer is packed. Larger ones are the
# weights of other programs' models, which may be tens of gigabytes.
_LARGEST_DESCRIPTION = 4096
# Of files that were looked into.
_REMEMBERED = 4096

# What is stored most exactly comes first.
_PACKINGS = ("float32", "bf16", "fp16", "F32", "BF16", "F16", "Q8", "fp8 with scales", "fp8", "Q6", "Q5", "Q4")


@dataclass(frozen=True)
class FoundModel:
    """A network that was found.

    Attributes:
        paths: its file, or all of its shards in order.
        model: what it is.
        missing: numbers of shards that are not there, five digits each.
    """

    paths: tuple[Path, ...]
    model: RecognisedModel
    missing: tuple[str, ...] = ()

    def text(self) -> str:
        """What it is, for people."""
        names = "" if self.model.style in ("Wan", "EX-4D") else f", names of {self.model.style}"
        return f"{self.model.name} ({self.model.packing}{names})"


def standard_folders() -> tuple[Path, ...]:
    """Where ComfyUI and Hugging Face keep weights on this machine, as far as these folders exist."""
    folders = [place / "models" / name for place in _comfyui() for name in _COMFYUI_FOLDERS]
    try:
        from huggingface_hub.constants import HF_HUB_CACHE

        folders.append(Path(HF_HUB_CACHE))
    except ImportError:  # of the extras
        pass
    return tuple(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def lora_folders(further: Sequence[Path]) -> tuple[Path, ...]:
    """Folders of LoRAs besides MODELS/loras: below some ``further`` folders, these themselves, and ComfyUI's."""
    below = [one if one.name == _LORAS else one / _LORAS for one in further]
    folders = [*below, *(place / "models" / _LORAS for place in _comfyui())]
    return tuple(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def _comfyui() -> list[Path]:
    if named := os.environ.get(COMFYUI_VARIABLE):
        return [Path(named)]
    home = Path.home()
    return [home / "ComfyUI", home / "Documents" / "ComfyUI", home / "comfy" / "ComfyUI"]


def files_below(folders: Sequence[Path]) -> Iterator[Path]:
    """All files below some folders, as far as they are searched."""
    for folder in folders:
        for place, _, names in _walk(folder):
            yield from (place / name for name in names)


def is_lora_for_wan(path: Path) -> bool:
    """Whether a file holds a LoRA for Wan, by its keys; for a file of another kind that cannot be looked into, not."""
    try:
        return _holds_wan_lora(path, *_state(path))
    except (CheckpointError, OSError):
        return False


@lru_cache(_REMEMBERED)
def _holds_wan_lora(path: Path, size: int, changed: int) -> bool:
    return path.suffix != GGUF and is_for_wan(_header(path)[1])


def find_models(folders: Sequence[Path]) -> list[FoundModel]:
    """All networks of the Wan family below some folders: the most exact files first, then in the folders' order."""
    found: dict[tuple[Path, ...], FoundModel] = {}
    for folder in folders:
        for paths, missing in _candidates(folder):
            key = tuple(path.resolve() for path in paths)
            if key not in found and (model := _model_of(paths)) is not None:
                found[key] = FoundModel(paths, model, missing)
    return sorted(found.values(), key=lambda one: (_exactness(one.model.packing), bool(one.missing)))


def model_at(path: Path) -> list[FoundModel]:
    """The networks in one file, or in one folder and not below it."""
    candidates = [((path,), ())] if path.is_file() else grouped_files(path)
    return [
        FoundModel(paths, model, missing) for paths, missing in candidates if (model := _model_of(paths)) is not None
    ]


def grouped_files(folder: Path) -> list[tuple[tuple[Path, ...], tuple[str, ...]]]:
    """A folder's files of weights, the shards of each model together, and the numbers of those that are missing."""
    return list(_grouped(folder, [one.name for one in folder.iterdir()]))


def tokenizers(folders: Sequence[Path]) -> Iterator[Path]:
    """Folders with a tokenizer of the name google/umt5-xxl, or beside a text encoder, as diffusers lays them out."""
    for folder in folders:
        for place, _, files in _walk(folder):
            beside = place.name == "tokenizer" and (place.parent / "text_encoder").is_dir()
            named = "umt5-xxl" in (place.name, *(part.rpartition("--")[2] for part in place.parts[-3:]))
            if "tokenizer.json" in files and (beside or named):
                yield place


def _exactness(packing: str) -> int:
    return next((rank for rank, name in enumerate(_PACKINGS) if packing.startswith(name)), len(_PACKINGS))


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As os.walk, following links, but at most `_DEPTH` levels and into no folder twice."""
    seen: set[str] = set()
    for place, below, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        levels = len(Path(place).parts) - len(folder.parts)
        if real in seen or levels > _DEPTH:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if name not in _PASSED_OVER and not name.startswith("."))
        yield Path(place), below, sorted(files)


def _candidates(folder: Path) -> Iterator[tuple[tuple[Path, ...], tuple[str, ...]]]:
    for place, _, files in _walk(folder):
        yield from _grouped(place, files)


def _grouped(place: Path, names: Sequence[str]) -> Iterator[tuple[tuple[Path, ...], tuple[str, ...]]]:
    """A folder's files of weights, shards together: several sharded models in one folder are told apart by name."""
    shards: dict[tuple[str, int], dict[int, Path]] = {}
    for name in sorted(names):
        if match := SHARD.fullmatch(name):
            shards.setdefault((match["name"], int(match["count"])), {})[int(match["number"])] = place / name
        elif name.endswith((*SAFETENSORS, GGUF, *PICKLED)):
            yield (place / name,), ()
    for (_, count), there in shards.items():
        missing = tuple(f"{number:05d}" for number in range(1, count + 1) if number not in there)
        yield tuple(there[number] for number in sorted(there)), missing


def _model_of(paths: tuple[Path, ...]) -> RecognisedModel | None:
    try:
        states = tuple((path, *_state(path)) for path in paths)
    except OSError:  # a link to nothing, or a file that was just removed
        return None
    return _recognised(states)


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


@lru_cache(_REMEMBERED)
def _recognised(states: tuple[tuple[Path, int, int], ...]) -> RecognisedModel | None:
    paths = [path for path, *_ in states]
    tensors: dict[str, StoredTensor] = {}
    title = ""
    try:
        for path in paths:
            title, header = _header(path)
            tensors.update(header)
    except CheckpointError:
        if paths[0].suffix == GGUF and find_spec("gguf") is None:
            needed = f"it needs the package gguf: {install_command('wan')}"
            return RecognisedModel("", "a GGUF file", "", UNREAD_GGUF, needed, other=True)
        return None  # damaged, or of another program: nothing that was looked for
    return recognise(own_tensors(tensors), paths, title)


def _header(path: Path) -> tuple[str, Mapping[str, StoredTensor]]:
    """What a file calls itself, and its keys, shapes and types."""
    if path.suffix == GGUF:
        return read_titled_gguf(path)
    if path.suffix in PICKLED:
        # Files of the oldest format cannot be mapped, so that looking into them would read all of them.
        return "", with_scales(read_checkpoint(path), path) if is_zipfile(path) else {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return "", with_scales({key: _outline(file, key) for key in file.keys()}, path)  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error


def _outline(file: Any, key: str) -> torch.Tensor:
    """A tensor of a .safetensors file, without its values where these are many."""
    values = file.get_slice(key)
    kind, shape = _TYPES.get(values.get_dtype()), values.get_shape()
    if kind is None and math.prod(shape) <= _LARGEST_DESCRIPTION:
        return file.get_tensor(key)
    return torch.empty(shape, dtype=kind or torch.uint8, device="meta")
