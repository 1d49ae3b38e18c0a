"""Downloads published weights from the hub: resumes interrupted downloads, and keeps the hub's hashes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ex4d.installation import install_command
from ex4d.machine import MODELS_VARIABLE
from ex4d.weights.catalogue import Part, PublishedFile
from ex4d.weights.errors import CheckpointError, WeightsMissingError
from ex4d.weights.inventory import HASHES_FILE, read_hashes
from ex4d.weights.places import path_of, unfound_files
from ex4d_core.durable_files import put_in_place


def fetch_part(models: Path, part: Part, further: Sequence[Path] = ()) -> Iterator[Path]:
    """Download what is missing of a part, in whatever layout it may be here.

    Args:
        models: folder of weights.
        part: of the catalogue.
        further: as in `find_part`.

    Yields:
        Every published file of the part, once it is here; none that a file of another layout replaces.

    Raises:
        WeightsMissingError: packages are missing, the hub cannot be reached, or the disk is too small.
        CheckpointError: the hub has another file than the one this version was written for.
    """
    require_downloader(part)
    needed = unfound_files(models, part, further)
    _require_room(models, part, needed)
    for file in part.files:
        path = path_of(models, file)
        if not path.is_file() and file not in needed:
            continue
        if not path.is_file():
            try:
                _download(file, path)
            except _network_errors() as error:
                raise WeightsMissingError(
                    f"{file.repository}/{file.path} could not be downloaded: {str(error).splitlines()[0]}. Check the "
                    f"network and run the command again (it resumes the download), or put the file at {path}"
                ) from error
            _keep_hash(models, file, path)
        yield path


def arriving_path(path: Path) -> Path:
    """Where a file lies until all of it is here."""
    return path.with_name(f"{path.name}.arriving")


def _download(file: PublishedFile, path: Path) -> None:
    """Download a file; an interrupted download continues at its last byte, also in another process.

    `hf_hub_download` does not: since version 1 each of its calls starts with a file of its own.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    # The hub's keys are the hub's alone.
    url, headers = (file.url, {}) if file.url else (hf_hub_url(file.repository, file.path), build_hf_headers())
    try:
        size = None if file.url else get_hf_file_metadata(url).size
    except _network_errors():  # the download says so better, or succeeds
        size = None
    arriving = arriving_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(arriving, "ab") as stream:
        here = stream.tell()
        if size is not None and here > size:  # of another version
            stream.truncate(0)
            here = 0
        if size is None or here < size:
            http_get(url, stream, resume_size=here, headers=headers, expected_size=size)
    put_in_place(arriving, path)


def require_downloader(part: Part) -> None:
    """Check that the package that downloads a part can be imported.

    Raises:
        WeightsMissingError: it cannot; the extra that the message names also has what runs the part.
    """
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise WeightsMissingError(
            f"downloading {part.name} needs huggingface_hub, which this Python lacks ({error}). Run "
            f"{install_command(part.extra)}, then this command again"
        ) from error


def _keep_hash(models: Path, file: PublishedFile, path: Path) -> None:
    """Ask the hub for a fetched file's hash, and compare or keep it; a file from elsewhere has none there."""
    if file.url:
        return
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        named = get_hf_file_metadata(hf_hub_url(file.repository, file.path)).etag or ""
    except _network_errors():
        return
    # Small files have a git hash there, of 40 digits.
    if len(named) != 64:
        return
    if file.sha256 and named != file.sha256:
        raise CheckpointError(
            f"the hub now has another {file.path} (SHA-256 {named}) than the one this version was written for"
        )
    hashes = {**read_hashes(models), path.relative_to(models).as_posix(): named}
    (models / HASHES_FILE).write_text(json.dumps(hashes, indent=1), encoding="utf-8")


def _network_errors() -> tuple[type[Exception], ...]:
    """What fetching raises: the hub's own errors, and those of the HTTP library that this release of it rests on."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    return (HfHubHTTPError, *HfHubHTTPError.__bases__, LocalEntryNotFoundError, OSError)


def _require_room(models: Path, part: Part, needed: tuple[PublishedFile, ...]) -> None:
    models.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(models).free
    # Where a part is here already, the rest of it may be, too, as an interrupted download.
    if needed == part.files and free < part.bytes:
        raise WeightsMissingError(
            f"{part.name} needs {part.bytes / 1e9:.1f} GB, and {models} has {free / 1e9:.1f} GB free; set "
            f"{MODELS_VARIABLE} to a folder on a larger disk"
        )
