"""`BlobStore`: files named by the SHA-256 of their content, sent by clients or written by workers.

    blobs/ab/abcdef...      complete and verified; never changed, only deleted
    partial/abcdef...       uploads in progress or interrupted (see `ex4d.service.uploads`)

A file appears under ``blobs`` by a rename, after its content is on disk. No name from the wire becomes a path
unless it is 64 hexadecimal digits.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from types import MappingProxyType

from ex4d_core.scene import sha256_of
from ex4d_core.scene_manifest import is_sha256

# A recently used blob may soon be requested, or named by a job.
_RECENT_SECONDS = 3600.0
# An upload that nobody has continued for so long is given up.
_ABANDONED_SECONDS = 7 * 86_400.0


class BlobStore:
    """Blobs in a data folder; any number of processes may use one at a time."""

    def __init__(self, data: Path):
        """Use the folders below ``data``, and create them if need be."""
        self._blobs = data / "blobs"
        self.partial = data / "partial"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self.partial.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where a blob is, or would be.

        Raises:
            ValueError: the name is not a SHA-256; callers check names from the wire before.
        """
        if not is_sha256(sha256):
            raise ValueError(f"invalid blob name {sha256!r:.80}: expected a SHA-256 in lower-case hexadecimal")
        return self._blobs / sha256[:2] / sha256

    def size(self, sha256: str) -> int | None:
        """Bytes of a complete blob; None if it is not here."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def touch(self, sha256: str) -> None:
        """Note that a blob is in use, so that it is deleted later than others."""
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
        """Move a finished file in; it is on disk when this returns.

        Args:
            path: a file that nobody writes any more, in the same file system.
            sha256: of its content if the caller knows it: the mesh of a long clip has many gigabytes.

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
        """Move a file with verified content to its name, on disk before it appears there."""
        target = self.path(sha256)
        target.parent.mkdir(exist_ok=True)
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        os.utime(path)
        os.replace(path, target)
        _sync_folder(target.parent)

    def unneeded(
        self,
        needed: Set[str],
        unused_seconds: float = 0.0,
        groups: Mapping[str, int] = MappingProxyType({}),
        clocks: Sequence[float] = (),
    ) -> list[tuple[int, Path]]:
        """Bytes and paths of the blobs and interrupted uploads that `drop_unneeded` may delete, least recent first."""
        files, used_last = self._files(), dict[int, float]()
        for used, _, path in files:
            if (group := groups.get(path.name)) is not None:
                used_last[group] = max(used_last.get(group, used), used)
        recent, now = max(unused_seconds, _RECENT_SECONDS), clocks or (time.time(),)
        dated = [(used_last.get(groups.get(path.name, -1), used), size, path) for used, size, path in files]
        return [
            (size, path)
            for used, size, path in sorted(dated)
            if path.name not in needed and not _is_recent(used, recent, now)
        ]

    def total_bytes(self) -> int:
        """Bytes of all blobs and interrupted uploads."""
        return sum(size for _, size, _ in self._files())

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each file was last used, its bytes, and its path."""
        folders = [self.partial, *(path for path in self._blobs.iterdir() if path.is_dir())]
        entries = [entry for folder in folders for entry in os.scandir(folder)]
        return [(stat.st_mtime, stat.st_size, Path(entry.path)) for entry in entries if (stat := _stat(entry))]

    def drop_unneeded(
        self,
        limit_bytes: float,
        needed: Set[str],
        unused_seconds: float = 0.0,
        groups: Mapping[str, int] = MappingProxyType({}),
        clocks: Sequence[float] = (),
    ) -> int:
        """Delete the least recently used blobs until the rest takes ``limit_bytes`` at most.

        Interrupted uploads count as blobs. What is in ``needed``, or was used within the hour or within
        ``unused_seconds``, stays, even above the limit.

        Args:
            limit_bytes: of all blobs.
            needed: hashes.
            unused_seconds: see above.
            groups: numbers of groups by hash; a group is as recent as its most recent blob, so that it goes together.
            clocks: what may be the time now, in seconds since 1970: what is recent by any of them stays. The present
                time by default.

        Returns:
            Bytes freed.
        """
        excess, freed = self.total_bytes() - limit_bytes, 0
        recent, now = max(unused_seconds, _RECENT_SECONDS), clocks or (time.time(),)
        for size, path in self.unneeded(needed, unused_seconds, groups, now):
            if freed >= excess:
                break
            # Checked again: it may have been used, or deleted, since the list was read. Windows keeps open files.
            with contextlib.suppress(FileNotFoundError, PermissionError):
                if not _is_recent(path.stat().st_mtime, recent, (*now, time.time())):
                    path.unlink()
                    freed += size
        return freed

    def drop_abandoned(self, clocks: Sequence[float]) -> int:
        """Delete the uploads that nobody has continued for a week by each of the clocks; returns the bytes freed."""
        freed = 0
        for entry in os.scandir(self.partial):
            stat = _stat(entry)
            if stat and min(clocks) - stat.st_mtime > _ABANDONED_SECONDS:
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    os.unlink(entry.path)
                    freed += stat.st_size
        return freed


def _is_recent(used: float, seconds: float, clocks: Sequence[float]) -> bool:
    """Whether a time is recent by one of the clocks; one in the future is an error of a clock, and is not for ever."""
    return any(-_RECENT_SECONDS <= now - used <= seconds for now in clocks)


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except FileNotFoundError:  # Moved or deleted meanwhile.
        return None


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders, and needs no sync of them.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
