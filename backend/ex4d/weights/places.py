"""Finds weights on this machine: one folder of models, with repositories under their published names.

MODELS/OWNER/NAME/   a repository, as `fetch` lays it out; MODELS/NAME/ is found, too
MODELS/EX-4D/ex4d.ckpt, MODELS/loras/NAME.safetensors

Wan2.1 is also found in the layouts of the original EX-4D (all of it in MODELS/Wan-AI/) and of DiffSynth (.safetensors
of text encoder, CLIP and VAE in MODELS/DiffSynth-Studio/Wan-Series-Converted-Safetensors/).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ex4d.machine import MODELS_VARIABLE, default_models_folder
from ex4d.weights.catalogue import CONVERTED, PARTS, WAN, Part, PublishedFile, part
from ex4d.weights.errors import CheckpointError, WeightsMissingError

_SHARD = re.compile(r".+-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
_LORA_ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth")


def fetch_command(models: Path, *parts: str) -> str:
    """The command that fetches parts into a folder of models, in any shell of this machine.

    The folder is left out only where it is the user's own: the shell that the command is pasted into need not have the
    variable, or the option, that this process was given.
    """
    elsewhere = "" if models == default_models_folder() else f" --models {shlex.quote(str(models))}"
    return f"ex4d models fetch {' '.join(parts)}{elsewhere}"


def repository_folder(models: Path, repository: str, folder: str = "") -> Path:
    """Folder of a repository: MODELS/OWNER/NAME (or ``folder`` instead), or MODELS/NAME where only that exists."""
    full, short = models / (folder or repository), models / repository.partition("/")[2]
    return short if short.is_dir() and not full.is_dir() else full


def path_of(models: Path, file: PublishedFile) -> Path:
    """Path of a published file, whether or not it is there."""
    return repository_folder(models, file.repository, file.folder) / file.path


def missing_files(models: Path, part: Part) -> tuple[PublishedFile, ...]:
    """The files of a part that are not there under their published names."""
    return tuple(file for file in part.files if not path_of(models, file).is_file())


def find_part(models: Path, part: Part) -> tuple[Path, ...]:
    """All files of a part, under their published names or others that are known; none where some are not there.

    Raises:
        CheckpointError: some shards of the transformer are there, others are not.
    """
    if not missing_files(models, part):
        return tuple(path_of(models, file) for file in part.files)
    if part.name == "ex4d":
        return tuple(path for path in [models / "ex4d.ckpt"] if path.is_file())
    if part.kind != "wan":
        return ()
    for place in _wan_folders(models):
        if part.name == "dit":
            found = _transformer(models, place)
        else:
            published = place / part.files[0].path
            found = tuple(path for path in (published, published.with_suffix(".safetensors")) if path.is_file())[:1]
        if found:
            return found
    return ()


@dataclass(frozen=True)
class WanFiles:
    """The files of one set of weights of the engine wan.

    Attributes:
        dit: the transformer, whole or in shards, in order.
        tokenizer: a folder.
    """

    dit: tuple[Path, ...]
    text_encoder: Path
    tokenizer: Path
    image_encoder: Path
    vae: Path
    ex4d: Path


def find_wan_files(models: Path, chosen: Mapping[str, Path] | None = None) -> WanFiles:
    """All that the engine wan needs.

    Args:
        models: folder of weights.
        chosen: paths to use instead of the folder's, by the names of parts: a file, or for "dit" the folder with the
            transformer. The tokenizer is also looked for beside a text encoder that is given so.

    Raises:
        WeightsMissingError: which parts are missing, and the command that fetches them.
        CheckpointError: as in `find_part`.
    """
    chosen = chosen or {}
    found = {name: _chosen_files(models, name, path) for name, path in chosen.items()}
    others = (entry for entry in PARTS if entry.kind == "wan" and entry.name not in chosen)
    found |= {entry.name: find_part(models, entry) for entry in others}
    folders = [chosen["text_encoder"].parent] if "text_encoder" in chosen else []
    tokenizers = [place / "google" / "umt5-xxl" for place in [*folders, *_wan_folders(models)]]
    found["tokenizer"] = tuple(place for place in tokenizers if (place / "tokenizer.json").is_file())
    missing = [name for name, paths in found.items() if not paths]
    if missing:
        fetch = dict.fromkeys("text_encoder" if name == "tokenizer" else name for name in missing)
        size = sum(part(name).bytes for name in fetch) / 1e9
        raise WeightsMissingError(
            f"weights are missing in {models}: {', '.join(missing)}. Set {MODELS_VARIABLE} to the folder that has "
            f"them, or fetch them ({size:.1f} GB) with: {fetch_command(models, *fetch)}"
        )
    single = {name: paths[0] for name, paths in found.items() if name != "dit"}
    return WanFiles(dit=found["dit"], **single)


def _chosen_files(models: Path, name: str, path: Path) -> tuple[Path, ...]:
    """The files of a part at a path that the user names."""
    found: tuple[Path, ...] = (path,) if path.is_file() else ()
    if name == "dit":
        found = _transformer(models, path) if path.is_dir() else ()
    if not found:
        expected = "a folder with diffusion_pytorch_model*.safetensors" if name == "dit" else "a file"
        raise WeightsMissingError(f"{path} does not hold the part {name} of the weights: expected {expected}")
    return found


def lora_part(name: str) -> Part | None:
    """The part of the catalogue that a LoRA's name means; None for the user's own."""
    return next((entry for entry in PARTS if entry.kind == "lora" and Path(entry.files[0].path).stem == name), None)


def find_lora(models: Path, name: str) -> Path:
    """The file of a LoRA in MODELS/loras.

    Raises:
        WeightsMissingError: there is none of that name; lists those that are there.
    """
    available = {path.stem: path for path in list_loras(models)}
    if name not in available:
        known = lora_part(name)
        how = f"fetch it with: {fetch_command(models, known.name)}" if known else f"put {name}.safetensors there"
        there = ", ".join(sorted(available)) or "none"
        raise WeightsMissingError(f"there is no LoRA {name!r} in {models / 'loras'} (there: {there}); {how}")
    return available[name]


def list_loras(models: Path) -> list[Path]:
    """All LoRAs that a request can name."""
    place = models / "loras"
    return sorted(path for path in place.iterdir() if path.suffix in _LORA_ENDINGS) if place.is_dir() else []


def _wan_folders(models: Path) -> list[Path]:
    names = (WAN, WAN.partition("/")[2], "Wan-AI", CONVERTED, f"{CONVERTED}/Wan2.1-I2V-14B-480P", ".")
    return [models / name for name in names if (models / name).is_dir()]


def _transformer(models: Path, place: Path) -> tuple[Path, ...]:
    """A transformer in one file, or all of its shards, in one ``place`` of the folder of models."""
    whole = place / "diffusion_pytorch_model.safetensors"
    if whole.is_file():
        return (whole,)
    shards, count = {}, 0
    for path in place.iterdir():
        if match := _SHARD.fullmatch(path.name):
            shards[int(match["number"])], count = path, int(match["count"])
    missing = [f"{number:05d}" for number in range(1, count + 1) if number not in shards]
    if missing:
        raise CheckpointError(
            f"{place} has {len(shards)} of the transformer's {count} shards; missing: {', '.join(missing)}. "
            f"Fetch them with: {fetch_command(models, 'dit')}"
        )
    return tuple(shards[number] for number in range(1, count + 1))
