"""Reads arrays from .npz files of any origin: cameras, clips, golden data, the parts of a scene.

Callers turn an `ArchiveError` into an error of their own.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ex4d_core.errors import Ex4dError


class ArchiveError(Ex4dError, ValueError):
    """A file that is not an .npz, is damaged, holds other things than arrays of numbers, or is too large."""


def read_npz(path: str | Path, *, most_bytes: int | None = None) -> dict[str, np.ndarray]:
    """All arrays of a .npz file, by name.

    Args:
        most_bytes: that it may unpack to; a few bytes may unpack to gigabytes.

    Raises:
        ArchiveError: see there.
        OSError: the file cannot be opened.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if most_bytes is None or size <= most_bytes:
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
    # RuntimeError: an encrypted archive. MemoryError: an array that says to be larger than it is.
    except (EOFError, MemoryError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ArchiveError(f"not an .npz file, or damaged ({error})") from error
    raise ArchiveError(f"it unpacks to {size} bytes; at most {most_bytes} are expected")
