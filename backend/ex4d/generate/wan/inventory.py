"""What is in the folder of models, whether it is whole, and how it gets there: behind `ex4d models`."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ex4d.generate.wan.errors import CheckpointError, ModelsMissingError, WanUnavailableError
from ex4d.generate.wan.files import find_part
from ex4d.generate.wan.published import FINGERPRINTS, PublishedFile, PublishedPart
from ex4d.machine import fetch_command

# Hashes that the hub named when files were fetched, by path below the folder of models.
HASHES_FILE = "hashes.json"

_CHUNK = 8 * 2**20


@dataclass(frozen=True)
class Finding:
    """What a check found out about one file or one part."""

    right: bool
    text: str
    missing: bool = False


def files_here(folder: Path, part: PublishedPart) -> tuple[list[Path], bool]:
    """The part's files that are in the folder, and whether that is all of them, under these names or others."""
    published = [folder / file.path for file in part.files]
    here = [path for path in published if path.is_file()]
    if len(here) == len(published):
        return here, True
    try:
        found = find_part(folder, part.name) if part.name in (*FINGERPRINTS, "ex4d") else ()
    except CheckpointError:
        return here, False
    return (list(found), True) if found else (here, False)


def check_part(
    folder: Path,
    part: PublishedPart,
    *,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
    check_layout: Callable[[str, list[Path]], Finding] | None = None,
) -> Iterator[Finding]:
    """Compare a part with what was published: bytes with hashes, keys and shapes with layouts.

    Args:
        quick: leave out the bytes.
        progress: told how many bytes of how many were read.
        check_layout: compares keys and shapes of a part, by name, in place of this engine's own comparison.
    """
    here, complete = files_here(folder, part)
    if not here:
        yield Finding(False, f"is not in {folder}: {fetch_command(folder, part.name)}", missing=True)
        return
    if not complete:
        missing = [file.name for file in part.files if not (folder / file.path).is_file()]
        yield Finding(False, f"lacks {', '.join(missing)}: {fetch_command(folder, part.name)}")
    if not quick:
        yield from _check_bytes(folder, part, here, progress)
    if complete:
        yield (check_layout or _check_layout)(part.name, here)


def _check_bytes(
    folder: Path, part: PublishedPart, here: list[Path], progress: Callable[[int, int], None] | None
) -> Iterator[Finding]:
    published = {folder / file.path: file for file in part.files}
    fetched = _read_hashes(folder)
    total = sum(path.stat().st_size for path in here)
    done = 0
    for path in here:
        file = published.get(path)
        expected = (file.sha256 if file else "") or fetched.get(path.relative_to(folder).as_posix(), "")
        digest = hashlib.sha256()
        with open(path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
        if not expected:
            yield Finding(True, f"{path.name}: no hash is known for it; its SHA-256 is {digest.hexdigest()}")
        elif digest.hexdigest() == expected:
            yield Finding(True, f"{path.name}: the bytes that were published")
        else:
            size = f" ({path.stat().st_size} bytes, published {file.size})" if file and file.size else ""
            yield Finding(
                False, f"{path} is damaged or another file{size}: delete it, then {fetch_command(folder, part.name)}"
            )


def _check_layout(name: str, paths: list[Path]) -> Finding:
    """Keys and shapes, by DiffSynth's fingerprints or by the adapter's layout; of a LoRA, that it can be read."""
    tensors_in = tuple(path for path in paths if path.suffix in (".safetensors", ".pth", ".ckpt"))
    try:
        from ex4d.generate.wan.layouts import fingerprint_of, published_layout
        from ex4d.generate.wan.networks import require_diffsynth

        require_diffsynth()
        if name in FINGERPRINTS:
            right = fingerprint_of(tensors_in) == FINGERPRINTS[name]
        elif name == "ex4d":
            from ex4d.generate.wan.checkpoints import read_checkpoint

            layout = {key: tuple(value.shape) for key, value in published_layout("ex4d").items()}
            right = {key: tuple(value.shape) for key, value in read_checkpoint(tensors_in).items()} == layout
        else:
            from ex4d.generate.wan.checkpoints import read_checkpoint

            count = len(read_checkpoint(tensors_in))
            return Finding(count > 0, f"{count} tensors can be read")
    except CheckpointError as error:
        return Finding(False, str(error))
    except WanUnavailableError as error:
        return Finding(True, f"keys and shapes were not compared: {error}")
    if right:
        return Finding(True, "keys and shapes are those of the published model")
    return Finding(False, f"keys and shapes are not those of the published model ({paths[0]})")


def fetch_part(folder: Path, part: PublishedPart) -> Iterator[Path]:
    """Download what is missing of a part; a download that was stopped goes on where it was.

    Yields:
        Every file of the part, once it is here.

    Raises:
        WanUnavailableError: huggingface_hub is not installed.
        ModelsMissingError: the hub cannot be reached, or the disk is too small.
        CheckpointError: a file arrived with another hash than it should have.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise WanUnavailableError(f"fetching needs huggingface_hub ({error}): pip install huggingface_hub") from error
    _require_room(folder, part)
    for file in part.files:
        path = folder / file.path
        if not path.is_file():
            try:
                hf_hub_download(file.repository, file.name, local_dir=folder / file.folder)
            except _network_errors() as error:
                raise ModelsMissingError(
                    f"{file.repository}/{file.name} could not be fetched: {str(error).splitlines()[0]}. Check the "
                    f"network and run the command again (it goes on where it was), or put the file at {path}"
                ) from error
            _keep_hash(folder, file)
        yield path


def _keep_hash(folder: Path, file: PublishedFile) -> None:
    """Ask the hub for a fetched file's hash, and compare or keep it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        told = get_hf_file_metadata(hf_hub_url(file.repository, file.name)).etag or ""
    except _network_errors():
        return
    # Small files have a git hash there, of 40 digits.
    if len(told) != 64:
        return
    if file.sha256 and told != file.sha256:
        raise CheckpointError(
            f"the hub now has another {file.name} (SHA-256 {told}) than the one this version was made for"
        )
    hashes = {**_read_hashes(folder), Path(file.path).as_posix(): told}
    (folder / HASHES_FILE).write_text(json.dumps(hashes, indent=1), encoding="utf-8")


def _network_errors() -> tuple[type[Exception], ...]:
    """What fetching raises: the hub's own errors, and those of the HTTP library that this release of it rests on."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    return (HfHubHTTPError, *HfHubHTTPError.__bases__, LocalEntryNotFoundError, OSError)


def _read_hashes(folder: Path) -> dict[str, str]:
    try:
        values = json.loads((folder / HASHES_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else {}


def _require_room(folder: Path, part: PublishedPart) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    here = sum((folder / file.path).stat().st_size for file in part.files if (folder / file.path).is_file())
    needed = part.gigabytes * 1e9 - here
    free = shutil.disk_usage(folder).free
    if here == 0 and free < needed:
        raise ModelsMissingError(
            f"{part.name} needs {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free; set EX4D_MODELS to a "
            "folder on a larger disk"
        )
