"""Finds weights on this machine: one folder of models, with repositories under their published names.

MODELS/OWNER/NAME/   a repository, as `fetch` lays it out; MODELS/NAME/ is found, too
MODELS/EX-4D/ex4d.ckpt, MODELS/loras/NAME.safetensors, MODELS/adapters/NAME.safetensors, MODELS/upscalers/NAME.pth

LoRAs are also found in the folders of LoRAs of ComfyUI and of further folders, and by their file's name in all that is
searched.

Wan2.1 is also found in the layouts of the original EX-4D (all of it in MODELS/Wan-AI/) and of DiffSynth (.safetensors
of text encoder, CLIP and VAE in MODELS/DiffSynth-Studio/Wan-Series-Converted-Safetensors/). What is missing there is
looked for by content in the folder of models, in further folders, in ComfyUI's and in Hugging Face's cache.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ex4d.machine import default_models_folder
from ex4d.weights.catalogue import CONVERTED, PARTS, TINY_DECODER, WAN, Part, PublishedFile, part
from ex4d.weights.errors import CheckpointError, WeightsMissingError

if TYPE_CHECKING:
    from ex4d.weights.search import FoundModel

_TINY_NAMES, _TINY_FOLDER = ("taew2_1.safetensors", "taew2_1.pth"), "vae_approx"
_LORA_ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth")
# Not .pt, which may be a program (TorchScript).
_UPSCALER_ENDINGS = (".safetensors", ".pth")


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


def find_part(models: Path, part: Part, further: Sequence[Path] = ()) -> tuple[Path, ...]:
    """All files of a part, under their published names or others that are known; none where some are not there.

    Args:
        models: folder of weights.
        part: of the catalogue.
        further: folders that parts of the engine wan are also looked for in, by content.

    Raises:
        CheckpointError: some shards of the transformer are there, others are not.
    """
    return WeightSearch(models, further).files(part)


def unfound_files(models: Path, part: Part, further: Sequence[Path] = ()) -> tuple[PublishedFile, ...]:
    """The published files of a part that are not here, in whatever layout; see `find_part`."""
    return WeightSearch(models, further).unfound(part)


def found_models(models: Path, further: Sequence[Path] = ()) -> list[FoundModel]:
    """Networks of the Wan family by content, in the folder of models, further ones, and other programs' folders."""
    return WeightSearch(models, further).found


class WeightSearch:
    """One search of this machine, which walks through the folders once at most, and only where something is missing."""

    def __init__(self, models: Path, further: Sequence[Path]):
        self.models = models
        self._further = further

    @cached_property
    def found(self) -> list[FoundModel]:
        """All networks of the Wan family."""
        from ex4d.weights.search import find_models

        return find_models(self._folders)

    @cached_property
    def _folders(self) -> tuple[Path, ...]:
        from ex4d.weights.search import standard_folders

        folders = (self.models, *self._further, *standard_folders())
        return tuple(dict.fromkeys(folder for folder in folders if folder.is_dir()))

    def files(self, part: Part) -> tuple[Path, ...]:
        """See `find_part`."""
        models = self.models
        if not missing_files(models, part):
            return tuple(path_of(models, file) for file in part.files)
        if part.kind == "lora":
            found = self.lora(Path(part.files[0].path).stem)
            return () if found is None else (found,)
        if part.kind == "tiny":
            tiny = find_tiny_decoder(models, self._further)
            return () if tiny is None else (tiny,)
        if part.kind != "wan":
            return ()
        if part.name == "ex4d" and (models / "ex4d.ckpt").is_file():
            return (models / "ex4d.ckpt",)
        for place in _wan_folders(models) if part.name != "ex4d" else []:
            if part.name == "dit":
                found = transformer_files(models, place)
            else:
                published = place / part.files[0].path
                found = tuple(path for path in (published, published.with_suffix(".safetensors")) if path.is_file())[:1]
            if found:
                return found
        right = [one for one in self.found if one.model.part == part.name and not one.model.refused and not one.missing]
        if part.name == "ex4d":
            right = [one for one in right if _is_of_ex4d(one.paths[0])]
        return right[0].paths if right else ()

    def lora(self, name: str) -> Path | None:
        """The LoRA of a name, in folders of LoRAs before all others."""
        from ex4d.weights.search import files_below, lora_folders

        def found(paths: Iterable[Path]) -> Path | None:
            return next((path for path in paths if path.stem == name and path.suffix in _LORA_ENDINGS), None)

        own = [self.models / "loras", *lora_folders(self._further)]
        direct = found(path for folder in own if folder.is_dir() for path in sorted(folder.iterdir()))
        return direct or found(files_below([*lora_folders(self._further), *self._folders]))

    def unfound(self, part: Part) -> tuple[PublishedFile, ...]:
        """See `unfound_files`."""
        missing = missing_files(self.models, part)
        try:
            found = bool(missing and self.files(part))
        except CheckpointError:
            found = False
        if found and part.name == "text_encoder":
            here = bool(self.tokenizers())
            return tuple(file for file in missing if "/" in file.path and not here)
        return () if found else missing

    def adapters(self) -> dict[str, Path]:
        """Files of EX-4D's kind by their names without the ending, EX-4D's own included."""
        found: dict[str, Path] = {}
        for one in self.found:  # the most exact of a name comes first
            if one.model.part == "ex4d":
                found.setdefault(one.paths[0].stem, one.paths[0])
        return found

    def tokenizers(self, beside: Sequence[Path] = ()) -> list[Path]:
        """Folders of the text encoder's tokenizer, and those ``beside`` a text encoder before all others."""
        from ex4d.weights.search import tokenizers

        named = [place / "google" / "umt5-xxl" for place in [*beside, *_wan_folders(self.models)]]
        named += [place / "tokenizer" for place in beside]
        found = [place for place in named if (place / "tokenizer.json").is_file()]
        return found or list(tokenizers(self._folders))[:1]


def _is_of_ex4d(path: Path) -> bool:
    """Whether an adapter is EX-4D's own, which its name alone says: others on the same base have the same layout."""
    return any("ex4d" in name.lower().replace("-", "") for name in (path.stem, path.parent.name))


def lora_part(name: str) -> Part | None:
    """The part of the catalogue that a LoRA's name means; None for the user's own."""
    return next((entry for entry in PARTS if entry.kind == "lora" and Path(entry.files[0].path).stem == name), None)


def find_lora(models: Path, name: str, further: Sequence[Path] = ()) -> Path:
    """The file of a LoRA, by its name without the ending: in MODELS/loras, or wherever else is searched.

    Args:
        models: folder of weights.
        name: as a request has it.
        further: as in `find_part`.

    Raises:
        WeightsMissingError: no file has that name; lists those that are there.
    """
    if found := WeightSearch(models, further).lora(name):
        return found
    known = lora_part(name)
    how = f"fetch it with: {fetch_command(models, known.name)}" if known else f"put {name}.safetensors there"
    there = ", ".join(sorted(path.stem for path in list_loras(models, further))) or "none"
    raise WeightsMissingError(f"there is no LoRA {name!r} in {models / 'loras'} (there: {there}); {how}")


def further_adapters(models: Path, further: Sequence[Path] = ()) -> dict[str, Path]:
    """Adapters of EX-4D's kind that a request can name, without EX-4D's own, by their names; as in `find_adapter`."""
    search = WeightSearch(models, further)
    own = {path.resolve() for path in search.files(part("ex4d"))}
    found = {path.stem: path for path in search.adapters().values() if path.resolve() not in own}
    return dict(sorted(found.items()))


def found_elsewhere(models: Path, further: Sequence[Path] = ()) -> dict[str, Path]:
    """Parts of the engine wan that are here, but not under their published names: of each the name, and a file."""
    search = WeightSearch(models, further)
    found = {}
    for entry in PARTS:
        if entry.kind in ("wan", "lora", "tiny") and missing_files(models, entry) and not search.unfound(entry):
            found[entry.name] = search.files(entry)[0]
    return found


def find_adapter(models: Path, name: str, further: Sequence[Path] = ()) -> Path:
    """The file of an adapter of EX-4D's kind (a LoRA with a camera encoder), by its name without the ending.

    Args:
        models: folder of weights.
        name: as a request has it.
        further: as in `find_part`.

    Raises:
        WeightsMissingError: no file has that name; lists those that are there.
        CheckpointError: the file of that name holds something else.
    """
    found = WeightSearch(models, further).adapters()
    if name in found:
        return found[name]
    place = models / "adapters"
    if other := next((path for path in (place.iterdir() if place.is_dir() else ()) if path.stem == name), None):
        raise CheckpointError(
            f"{other} is no adapter of EX-4D's kind: it holds no camera encoder (latent_encoder.0.weight), or cannot "
            "be read. A LoRA alone belongs into the folder loras"
        )
    there = ", ".join(sorted(found)) or "none"
    raise WeightsMissingError(f"there is no adapter {name!r} (there: {there}); put {name}.safetensors into {place}")


def find_tiny_decoder(models: Path, further: Sequence[Path] = ()) -> Path | None:
    """The file of the tiny decoder, under its published name or where ComfyUI keeps such decoders; None without one.

    Args:
        models: folder of weights.
        further: folders that are also looked into.
    """
    from ex4d.weights.search import standard_folders

    # ComfyUI's own folder of such files lies beside those of its other weights.
    beside = (folder.parent / _TINY_FOLDER for folder in standard_folders())
    places = [models, models / _TINY_FOLDER, *further, *(folder / _TINY_FOLDER for folder in further), *beside]
    named = [path_of(models, part(TINY_DECODER).files[0]), *(place / name for place in places for name in _TINY_NAMES)]
    return next((path for path in named if path.is_file()), None)


def list_loras(models: Path, further: Sequence[Path] = ()) -> list[Path]:
    """LoRAs that a request can name: all of MODELS/loras, and those for Wan in other folders of LoRAs.

    Args:
        models: folder of weights.
        further: as in `find_part`.
    """
    from ex4d.weights.search import files_below, is_lora_for_wan, lora_folders

    own = _files_in(models / "loras", _LORA_ENDINGS)
    by_name = {path.stem: path for path in own}
    others: dict[str, Path] = {}
    for path in files_below(lora_folders(further)):
        if path.stem not in by_name and path.suffix in _LORA_ENDINGS and is_lora_for_wan(path):
            others.setdefault(path.stem, path)
    return [*own, *(path for _, path in sorted(others.items()))]


def find_upscaler(models: Path, name: str) -> Path:
    """The file of an upscaler in MODELS/upscalers.

    Raises:
        WeightsMissingError: no file has that name; lists those that are there.
    """
    available = {path.stem: path for path in list_upscalers(models)}
    if name not in available:
        place, there = models / "upscalers", ", ".join(sorted(available)) or "none"
        raise WeightsMissingError(f"there is no upscaler {name!r} in {place} (there: {there}); put {name}.pth there")
    return available[name]


def list_upscalers(models: Path) -> list[Path]:
    """All upscalers that a request can name, in the order of their names."""
    return _files_in(models / "upscalers", _UPSCALER_ENDINGS)


def _files_in(place: Path, endings: Sequence[str]) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.suffix in endings) if place.is_dir() else []


def _wan_folders(models: Path) -> list[Path]:
    names = (WAN, WAN.partition("/")[2], "Wan-AI", CONVERTED, f"{CONVERTED}/Wan2.1-I2V-14B-480P", ".")
    return [models / name for name in names if (models / name).is_dir()]


def transformer_files(models: Path, place: Path) -> tuple[Path, ...]:
    """A transformer in one file, or all of its shards, in one ``place`` of the folder of models.

    What cannot be recognised counts by its name, so that loading it says what is wrong with it.
    """
    from ex4d.weights.search import grouped_files, model_at

    there = model_at(place)
    if right := next((one for one in there if one.model.part == "dit" and not one.model.refused), None):
        require_shards(models, place, right.paths, right.missing)
        return right.paths
    known = {path for one in there for path in one.paths}
    for paths, missing in grouped_files(place):
        if paths[0].name.startswith("diffusion_pytorch_model") and not known & set(paths):
            require_shards(models, place, paths, missing)
            return paths
    return ()


def require_shards(models: Path, place: Path, paths: Sequence[Path], missing: Sequence[str]) -> None:
    """Check that a transformer is whole.

    Raises:
        CheckpointError: some of its shards are ``missing``.
    """
    if missing:
        raise CheckpointError(
            f"{place} has {len(paths)} of the transformer's {len(paths) + len(missing)} shards; missing: "
            f"{', '.join(missing)}. "
            f"Fetch them with: {fetch_command(models, 'dit')}"
        )
