"""Finds what this package leaves on a machine and could do without: caches, interrupted downloads, temporary folders.

Only files whose names and owner say that this package, or Warp for it, made them. What a service keeps in its data
folder is in `ex4d.service.pruning`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

# A process may still use what was changed more recently.
STALE_SECONDS = 86_400.0

# Of `ex4d.weights.converted`, beside the weights. Hidden, so that searches for weights pass it over.
CONVERTED_FOLDER = ".converted"

# As `tempfile` completes the prefixes that this package and Warp give it. Other names that begin so may be the user's.
_TEMPORARY = re.compile(r"(wp_pch_|ex4d-(?:bench|demo|ranks)-)[a-z0-9_]{8}")
_PARTIAL_DOWNLOADS = ("*/*/.cache/huggingface/download", "*/.cache/huggingface/download")


@dataclass(frozen=True)
class Leftover:
    """Files that can be removed together.

    Attributes:
        kind: "kernels", "download", "converted" or "temporary".
        path: a file or a folder.
        bytes: on disk.
    """

    kind: str
    path: Path
    bytes: int

    def remove(self) -> None:
        """Delete it; what is gone already is fine.

        Raises:
            OSError: it cannot be deleted.
        """
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def kernel_cache_folders() -> list[Path]:
    """Where Warp keeps compiled kernels of all programs, a folder for each of its versions."""
    chosen = os.environ.get("WARP_CACHE_PATH")
    base = Path(chosen or platformdirs.user_cache_dir("warp", "NVIDIA"))
    found = sorted(path for path in base.iterdir() if path.is_dir()) if base.is_dir() else []
    # Before its version 1.19 Warp kept modules in the folder that was chosen itself.
    return [base, *(path for path in found if not path.name.startswith("wp_"))] if chosen else found


def compiled_kernels() -> Iterator[Leftover]:
    """Our own kernels in Warp's cache, which the next run compiles again."""
    for folder in kernel_cache_folders():
        for path in sorted(folder.glob("wp_ex4d.*")):
            yield Leftover("kernels", path, size_of(path))


def interrupted_downloads(models: Path) -> Iterator[Leftover]:
    """Partial files of weights that nothing has written to for a day; a new fetch would resume them."""
    for pattern in _PARTIAL_DOWNLOADS:
        for folder in sorted(models.glob(pattern)):
            for path in sorted(folder.rglob("*.incomplete")):
                if _is_stale(path):
                    yield Leftover("download", path, size_of(path))


def converted_weights(models: Path) -> Iterator[Leftover]:
    """Weights as the engine wan uses them, which the next load makes again from those in ``models``."""
    for path in sorted((models / CONVERTED_FOLDER).glob("*.safetensors*")):
        if path.suffix == ".safetensors" or _is_stale(path):  # a partial file may be written now
            yield Leftover("converted", path, size_of(path))


def temporary_folders() -> Iterator[Leftover]:
    """Our temporary folders that nothing has changed for a day: their processes were killed."""
    for path in sorted(Path(tempfile.gettempdir()).iterdir()):
        if _TEMPORARY.fullmatch(path.name) and path.is_dir() and not path.is_symlink() and _is_own(path):
            newest = max(map(_changed, [path, *path.rglob("*")]))
            if time.time() - newest > STALE_SECONDS:
                yield Leftover("temporary", path, size_of(path))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 where there is nothing."""
    total = 0
    for one in [path, *(path.rglob("*") if path.is_dir() else ())]:
        with suppress(OSError):
            total += one.lstat().st_size if not one.is_dir() else 0
    return total


def _is_stale(path: Path) -> bool:
    return time.time() - _changed(path) > STALE_SECONDS


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _is_own(path: Path) -> bool:
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()
