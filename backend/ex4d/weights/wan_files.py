"""Finds all files that the engine wan needs, or its encoders alone, and says what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ex4d.machine import MODELS_VARIABLE
from ex4d.weights.catalogue import PARTS, part
from ex4d.weights.errors import CheckpointError, WeightsMissingError
from ex4d.weights.notes import note_once
from ex4d.weights.places import WeightSearch, fetch_command, require_shards, transformer_files
from ex4d_core.sizes import size_text

# Parts that encode, and whose results do not change while an adapter is trained.
ENCODERS = ("text_encoder", "image_encoder", "vae")


@dataclass(frozen=True)
class WanFiles:
    """The files of one set of weights of the engine wan.

    Attributes:
        dit, text_encoder: whole or in shards, in order.
        tokenizer: a folder.
    """

    dit: tuple[Path, ...]
    text_encoder: tuple[Path, ...]
    tokenizer: Path
    image_encoder: Path
    vae: Path
    ex4d: Path


def find_wan_files(models: Path, chosen: Mapping[str, Path] | None = None, further: Sequence[Path] = ()) -> WanFiles:
    """All that the engine wan needs.

    Args:
        models: folder of weights.
        chosen: paths to use instead of the folder's, by the names of parts: a file, or a folder with its shards. The
            tokenizer is also looked for beside a text encoder that is given so.
        further: as in `find_part`.

    Raises:
        WeightsMissingError: which parts are missing, and the command that fetches them.
        CheckpointError: as in `find_part`, or a path that holds another model.
    """
    chosen, search = chosen or {}, WeightSearch(models, further)
    found = {name: _chosen_files(models, name, path) for name, path in chosen.items()}
    others = [entry for entry in PARTS if entry.kind == "wan" and entry.name not in chosen]
    found |= {entry.name: search.files(entry) for entry in others}
    return _as_wan_files(search, found, chosen, tuple(found))


def find_encoder_files(models: Path, further: Sequence[Path] = ()) -> WanFiles:
    """What encoding needs alone: text encoder, image encoder and VAE; errors and arguments as `find_wan_files`.

    The transformer has no files, and the adapter's is the VAE's, which nobody reads as an adapter.
    """
    search = WeightSearch(models, further)
    found = {name: search.files(part(name)) for name in ENCODERS}
    return _as_wan_files(search, {"dit": (), **found, "ex4d": found["vae"]}, {}, ENCODERS)


def _as_wan_files(
    search: WeightSearch,
    found: dict[str, tuple[Path, ...]],
    chosen: Mapping[str, Path],
    needed: Sequence[str],
) -> WanFiles:
    beside = [chosen["text_encoder"].parent] if "text_encoder" in chosen else []
    found["tokenizer"] = tuple(search.tokenizers(beside))
    if missing := [name for name in (*needed, "tokenizer") if not found[name]]:
        raise _missing(search, missing)
    single = {name: paths[0] for name, paths in found.items() if name not in ("dit", "text_encoder")}
    return WanFiles(dit=found["dit"], text_encoder=found["text_encoder"], **single)


def _missing(search: WeightSearch, missing: Sequence[str]) -> WeightsMissingError:
    fetch = dict.fromkeys("text_encoder" if name == "tokenizer" else name for name in missing)
    size = sum(file.size for name in fetch for file in search.unfound(part(name)))
    refused = "".join(
        f" {one.paths[0]} is {one.model.name}: {one.model.refused}."
        for one in search.found
        if one.model.refused and one.model.part in (*missing, "")
    )
    return WeightsMissingError(
        f"weights are missing in {search.models}: {', '.join(missing)}.{refused} Set {MODELS_VARIABLE} to the folder "
        f"that has them, or fetch them ({size_text(size)}) with: {fetch_command(search.models, *fetch)}"
    )


def _chosen_files(models: Path, name: str, path: Path) -> tuple[Path, ...]:
    """The files of a part at a path that the user names.

    Raises:
        WeightsMissingError: nothing of the kind is there.
        CheckpointError: another model is there, or some of its shards are missing.
    """
    from ex4d.weights.search import model_at

    there = [one for one in model_at(path) if one.model.part == name] if path.exists() else []
    if right := next((one for one in there if not one.model.other), None):
        require_shards(models, path, right.paths, right.missing)
        if right.model.refused:
            note_once(
                f"{right.paths[0]} is {right.model.name}, and is used since it was named: EX-4D was trained on 480P"
            )
        return right.paths
    if there:
        raise CheckpointError(f"{there[0].paths[0]} is {there[0].model.name}: {there[0].model.refused}")
    found: tuple[Path, ...] = (path,) if path.is_file() else ()
    if name == "dit" and path.is_dir():
        found = transformer_files(models, path)
    if not found:
        expected = "a folder with diffusion_pytorch_model*.safetensors, or a file" if name == "dit" else "a file"
        raise WeightsMissingError(f"{path} does not hold the part {name} of the weights: expected {expected}")
    return found
