"""Where the weights lie on this machine: one folder, laid out as the original EX-4D and DiffSynth lay theirs out.

MODELS/Wan-AI/Wan2.1-I2V-14B-480P/   seven shards, two .pth, the VAE, google/umt5-xxl/   (or all that in Wan-AI/)
MODELS/DiffSynth-Studio/Wan-Series-Converted-Safetensors/   DiffSynth's .safetensors of text encoder, CLIP and VAE
MODELS/EX-4D/ex4d.ckpt
MODELS/loras/NAME.safetensors
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from ex4d.generate.wan.errors import CheckpointError, ModelsMissingError
from ex4d.generate.wan.published import CONVERTED, WAN, part
from ex4d.machine import MODELS_VARIABLE, fetch_command

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
_LORA_ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth")


def cache_folder() -> Path:
    """Where things are kept that can be made again."""
    return Path(platformdirs.user_cache_dir("ex4d", appauthor=False))


@dataclass(frozen=True)
class WanFiles:
    """The files of one set of weights.

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

    def size(self, name: str) -> int:
        """Bytes of a part's files."""
        paths = getattr(self, name)
        return sum(path.stat().st_size for path in ([paths] if isinstance(paths, Path) else paths))


def find_files(folder: Path) -> WanFiles:
    """All that the engine needs, in ``folder``.

    Raises:
        ModelsMissingError: which parts are missing, and the command that fetches them.
        CheckpointError: some shards of the transformer are there, others are not.
    """
    found = {name: find_part(folder, name) for name in ("dit", "text_encoder", "image_encoder", "vae", "ex4d")}
    found["tokenizer"] = _tokenizer(folder)
    missing = [name for name, paths in found.items() if not paths]
    if missing:
        fetch = dict.fromkeys("text_encoder" if name == "tokenizer" else name for name in missing)
        size = sum(part(name).gigabytes for name in fetch)
        raise ModelsMissingError(
            f"weights are missing in {folder}: {', '.join(missing)}. Set {MODELS_VARIABLE} to the folder that has "
            f"them, or fetch them ({size:.1f} GB) with: {fetch_command(folder, *fetch)}"
        )
    single = {name: paths[0] for name, paths in found.items() if name != "dit"}
    return WanFiles(dit=found["dit"], **single)


def find_part(folder: Path, name: str) -> tuple[Path, ...]:
    """The files of "dit", "text_encoder", "image_encoder", "vae" or "ex4d" in ``folder``; none if they are not there.

    Raises:
        CheckpointError: as in `find_files`.
    """
    if name == "ex4d":
        candidates = [folder / "EX-4D" / "ex4d.ckpt", folder / "ex4d.ckpt"]
        return tuple(path for path in candidates if path.is_file())[:1]
    for place in _wan_folders(folder):
        if name == "dit":
            if found := _transformer(folder, place):
                return found
            continue
        published = next(file.name for file in part(name).files)
        for path in (place / published, (place / published).with_suffix(".safetensors")):
            if path.is_file():
                return (path,)
    return ()


def find_lora(folder: Path, name: str) -> Path:
    """The file of a LoRA in ``folder/loras``.

    Raises:
        ModelsMissingError: there is none of that name; lists those that are there.
    """
    available = {path.stem: path for path in list_loras(folder)}
    if name not in available:
        known = any(file.name.endswith(f"/{name}.safetensors") for file in part("fast").files)
        how = f"fetch it with: {fetch_command(folder, 'fast')}" if known else f"put {name}.safetensors there"
        there = ", ".join(sorted(available)) or "none"
        raise ModelsMissingError(f"there is no LoRA {name!r} in {folder / 'loras'} (there: {there}); {how}")
    return available[name]


def list_loras(folder: Path) -> list[Path]:
    """All LoRAs that a request can name."""
    place = folder / "loras"
    return sorted(path for path in place.iterdir() if path.suffix in _LORA_ENDINGS) if place.is_dir() else []


def _wan_folders(folder: Path) -> list[Path]:
    places = [folder / WAN, folder / "Wan-AI", folder / CONVERTED, folder / CONVERTED / "Wan2.1-I2V-14B-480P", folder]
    return [place for place in places if place.is_dir()]


def _transformer(folder: Path, place: Path) -> tuple[Path, ...]:
    """A transformer in one file, or all of its shards, in one ``place`` of the folder of models."""
    whole = place / "diffusion_pytorch_model.safetensors"
    if whole.is_file():
        return (whole,)
    shards = {int(match["number"]): path for path in place.iterdir() if (match := _SHARD.fullmatch(path.name))}
    if not shards:
        return ()
    count = int(_SHARD.fullmatch(next(iter(shards.values())).name)["count"])
    missing = [number for number in range(1, count + 1) if number not in shards]
    if missing:
        raise CheckpointError(
            f"{place} has {len(shards)} of the transformer's {count} shards; missing: "
            f"{', '.join(f'{number:05d}' for number in missing)}. Fetch them with: {fetch_command(folder, 'dit')}"
        )
    return tuple(shards[number] for number in range(1, count + 1))


def _tokenizer(folder: Path) -> tuple[Path, ...]:
    places = [place / "google" / "umt5-xxl" for place in _wan_folders(folder)]
    return tuple(place for place in places if (place / "tokenizer.json").is_file())[:1]
