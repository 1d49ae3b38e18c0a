"""Files by the SHA-256 of their content: footage that clients sent, and results that workers made.

    blobs/ab/abcdef...      whole and verified; never changed, only dropped
    partial/abcdef...       uploads under way, or broken off (see `ex4d.service.uploads`)

A file appears under ``blobs`` by a rename, after its content is on disk. No name from the wire becomes a path
unless it is 64 hexadecimal digits.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Set
from pathlib import Path

from ex4d_core.scene import is_sha256, sha256_of

# EFBIG: the limit that the operating system sets this process; for whoever has to act it is a full disk as well.
# A blob in use a moment ago may be about to be asked for, or about to be named by a job.
_RECENT_SECONDS = 3600.0


class BlobStore:
    """Blobs in a data folder; any number of processes may use one at a time."""

    def __init__(self, data: Path):
        self._blobs = data / "blobs"
        self.partial = data / "partial"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self.partial.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where a blob is, or would be.

        Raises:
            ValueError: the name is no SHA-256.
        """
        if not is_sha256(sha256):
            raise ValueError(f"{sha256!r:.80} is no SHA-256 in lower-case hexadecimal")
        return self._blobs / sha256[:2] / sha256

    def size(self, sha256: str) -> int | None:
        """Bytes of a whole blob; None if it is not here."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def touch(self, sha256: str) -> None:
        """Note that a blob is in use, so that it is dropped later than others."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path(sha256))

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset`` on.

        Raises:
            FileNotFoundError: the blob is not here.
        """
        with open(self.path(sha256), "rb", buffering=0) as file:
            file.seek(offset)
            return file.read(length)

    def add_file(self, path: Path, sha256: str = "") -> tuple[str, int]:
        """Take a finished file in; it is gone from ``path``, and on disk here, when this returns.

        Args:
            path: a file that nobody writes any more, in the same file system.
            sha256: of its content, where whoever wrote it knows that already: a long clip's mesh is many gigabytes.

        Returns:
            Its SHA-256 and its size.
        """
        sha256, size = sha256 or sha256_of(path), path.stat().st_size
        if self.size(sha256) == size:
            self.touch(sha256)
            path.unlink()
        else:
            self.move_in(path, sha256)
        return sha256, size

    def move_in(self, path: Path, sha256: str) -> None:
        """Put a file whose content has been verified under its name, on disk before it can be seen."""
        target = self.path(sha256)
        target.parent.mkdir(exist_ok=True)
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        os.utime(path)
        os.replace(path, target)
        _sync_folder(target.parent)

    def drop_unneeded(self, limit_bytes: float, needed: Set[str], unused_seconds: float = 0.0) -> int:
        """Drop the blobs that were not used for longest until the rest takes ``limit_bytes`` at most.

        Broken-off uploads count and go like blobs. What is in ``needed``, or was used within the hour or within
        ``unused_seconds``, stays, even above the limit.

        Returns:
            Bytes freed.
        """
        files = [
            (stat.st_mtime, stat.st_size, Path(entry.path))
            for folder in [self.partial, *(path for path in self._blobs.iterdir() if path.is_dir())]
            for entry in os.scandir(folder)
            if (stat := _stat(entry))
        ]
        excess = sum(size for _, size, _ in files) - limit_bytes
        recent, freed = max(unused_seconds, _RECENT_SECONDS), 0
        for _, size, path in sorted(files):
            if freed >= excess:
                break
            if path.name in needed:
                continue
            # Asked again: it may have been used, or dropped, since the list was made. Windows keeps what is open.
            with contextlib.suppress(FileNotFoundError, PermissionError):
                if time.time() - path.stat().st_mtime > recent:
                    path.unlink()
                    freed += size
        return freed


def free_bytes(folder: Path) -> int:
    """Disk space left where ``folder`` is."""
    return shutil.disk_usage(folder).free


def full_disk_text(folder: Path, error: OSError) -> str:
    """What to tell people about a write that failed for want of room."""
    free = free_bytes(folder) / 1e9
    return (
        f"the backend cannot write to {folder}, {free:.2f} GB are free there: {error.strerror}; make room on its disk "
        "and try again"
    )


def _stat(entry: os.DirEntry) -> os.stat_result | None:
    try:
        return entry.stat()
    except FileNotFoundError:  # Moved or dropped meanwhile.
        return None


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders, and keeps its directory in order by itself.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
