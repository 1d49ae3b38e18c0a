"""Checks weights on disk against the published ones: which files are here, and whether they are complete and intact."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ex4d.weights.catalogue import Part
from ex4d.weights.errors import CheckpointError
from ex4d.weights.places import fetch_command, find_part, path_of, unfound_files

# Hashes that the hub named when files were fetched, by path below the folder of models.
HASHES_FILE = "hashes.json"

_CHUNK = 8 * 2**20


@dataclass(frozen=True)
class Finding:
    """What a check found out about one file or one part."""

    right: bool
    text: str
    missing: bool = False


# Compares keys and shapes of a part's files (at these paths, below this folder of models) with its network.
CheckLayout = Callable[[Part, tuple[Path, ...], Path], Finding]


def files_here(models: Path, part: Part, further: Sequence[Path] = ()) -> tuple[tuple[Path, ...], bool]:
    """The part's files that are here, in whatever layout, and whether that is all of them.

    Args:
        models: folder of weights.
        part: of the catalogue.
        further: as in `find_part`.
    """
    try:
        found = find_part(models, part, further)
    except CheckpointError:
        found = ()
    if found:
        return found, not unfound_files(models, part, further)
    return tuple(path for file in part.files if (path := path_of(models, file)).is_file()), False


def check_part(
    models: Path,
    part: Part,
    *,
    quick: bool = False,
    further: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
    check_layout: CheckLayout | None = None,
) -> Iterator[Finding]:
    """Compare a part with what was published: bytes with hashes, keys and shapes with layouts.

    Args:
        quick: leave out the bytes.
        further: as in `find_part`.
        progress: called with how many bytes of how many were read.
        check_layout: of the room that has the part's network; without one it is only checked that tensors can be read.
    """
    here, complete = files_here(models, part, further)
    if not here:
        yield Finding(False, f"is not in {models}: {fetch_command(models, part.name)}", missing=True)
        return
    if not complete:
        missing = ", ".join(file.path for file in unfound_files(models, part, further))
        yield Finding(False, f"lacks {missing}: {fetch_command(models, part.name)}")
    if not quick:
        yield from _check_bytes(models, part, here, progress)
    if complete:
        yield (check_layout or check_readable)(part, here, models)


def check_readable(part: Part, paths: tuple[Path, ...], models: Path) -> Finding:
    """A `CheckLayout` for parts without a network of their own, such as LoRAs."""
    from ex4d.weights.checkpoints import read_checkpoint

    try:
        count = len(read_checkpoint(paths))
    except CheckpointError as error:
        return Finding(False, str(error))
    return Finding(count > 0, f"{count} tensors can be read")


def _check_bytes(
    models: Path, part: Part, here: tuple[Path, ...], progress: Callable[[int, int], None] | None
) -> Iterator[Finding]:
    published = {path_of(models, file): file for file in part.files}
    fetched = read_hashes(models)
    total = sum(path.stat().st_size for path in here)
    done = 0
    for path in here:
        file = published.get(path)
        expected = (file.sha256 if file else "") or fetched.get(_key(models, path), "")
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
            yield Finding(True, f"{path.name}: identical to the published file")
        else:
            exact = file.size if file and file.sha256 else 0
            size = f" ({path.stat().st_size} bytes, published {exact})" if exact else ""
            yield Finding(
                False,
                f"{path} is damaged or not as published{size}: delete it, then {fetch_command(models, part.name)}",
            )


def _key(models: Path, path: Path) -> str:
    """A file's key in `HASHES_FILE`."""
    return path.relative_to(models).as_posix() if path.is_relative_to(models) else str(path)


def read_hashes(models: Path) -> dict[str, str]:
    """The hub's hashes of fetched files, by path below the folder of models."""
    try:
        values = json.loads((models / HASHES_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else {}
