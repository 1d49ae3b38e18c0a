"""`BlobStore`: files named by the SHA-256 of their content, sent by clients or written by workers.

    blobs/ab/abcdef...      complete and verified; never changed, only deleted
    partial/abcdef...       uploads in progress or interrupted (see `ex4d.service.uploads`)

A file appears under ``blobs`` by a rename, after its content is on disk. Disks may still lose content, so a
job verifies a blob before it computes with it. No name from the wire becomes a path unless it is 64 hexadecimal digits.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from io import RawIOBase
from pathlib import Path
from types import MappingProxyType

from ex4d_core.durable_files import make_folder, put_in_place
from ex4d_core.scene import sha256_of
from ex4d_core.scene_manifest import is_sha256

log = logging.getLogger(__name__)

# Its inode, bytes and time of change: while these stay, a verified blob is not read again.
_Mark = tuple[int, int, int]
# `BlobStore.touch` leaves a younger time of use as it is: it is part of the mark.
_TOUCHED_SECONDS = 600.0
_STEP_BYTES = 64 << 20
# Verified blobs that are remembered, 3 MB; the one longest known is read again at its next use.
_MAX_VERIFIED = 10_000
# A recently used blob may soon be requested, or named by a job.
_RECENT_SECONDS = 3600.0
# An upload that nobody has continued for so long is given up.
_ABANDONED_SECONDS = 7 * 86_400.0


class BlobStore:
    """Blobs in a data folder; any number of processes may use one at a time."""

    def __init__(self, data: Path):
        """Use the folders below ``data``, and create them if need be."""
        self.folder, self._blobs = data, data / "blobs"
        self.partial = data / "partial"
        self._verified: dict[str, _Mark] = {}
        self._damaged: set[str] = set()
        make_folder(self._blobs)
        make_folder(self.partial)

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
        path = self.path(sha256)
        with contextlib.suppress(FileNotFoundError):
            if not 0 <= time.time() - path.stat().st_mtime < _TOUCHED_SECONDS:
                os.utime(path)

    def is_verified(self, sha256: str) -> bool:
        """Whether `verify` found the blob whole, and nothing has changed it since; reads no content."""
        with contextlib.suppress(FileNotFoundError):
            return self._verified.get(sha256) == _mark(self.path(sha256))
        return False

    def distrust(self, sha256: str) -> None:
        """Have the next `verify` read the blob again, since the disk failed to."""
        self._verified.pop(sha256, None)

    def was_damaged(self, sha256: str) -> bool:
        """Whether `verify` has deleted the blob, and it has not come again."""
        return sha256 in self._damaged

    def verify(self, sha256: str, step: Callable[[int], None] = lambda read: None) -> bool:
        """Whether the blob is here with the content of its name; a damaged one is deleted, so that it can come again.

        Reads all of it, once while it stays unchanged; for any thread.

        Args:
            sha256: its name.
            step: called with the bytes read so far, now and then; what it raises ends the work.

        Raises:
            OSError: it cannot be read, for another reason than a damaged disk.
        """
        path = self.path(sha256)
        try:
            mark = _mark(path)
            if self._verified.get(sha256) == mark:
                return True
            found = _sha256_on_disk(path, step)
            if found == sha256:
                self._remember(sha256, mark)
                return True
            log.error("deleted the damaged blob %s: its %d bytes have the SHA-256 %s", sha256, mark[1], found)
            self._damaged.add(sha256)
            if _mark(path) == mark:  # and not a new one that has come meanwhile
                path.unlink()
        except FileNotFoundError:
            pass
        self._verified.pop(sha256, None)
        return False

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
        if self.size(sha256) == size and self.verify(sha256):
            self.touch(sha256)
            path.unlink()
        else:
            self.move_in(path, sha256)
        return sha256, size

    def move_in(self, path: Path, sha256: str) -> None:
        """Move a file with verified content to its name, on disk before it appears there."""
        target = self.path(sha256)
        make_folder(target.parent)
        os.utime(path)
        put_in_place(path, target)
        self._damaged.discard(sha256)
        self._remember(sha256, _mark(target))

    def _remember(self, sha256: str, mark: _Mark) -> None:
        self._verified[sha256] = mark
        while len(self._verified) > _MAX_VERIFIED:
            self._verified.pop(next(iter(self._verified)), None)

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
        return sum(stat.st_size for _, stat in self._entries())

    def recent_files(self) -> list[tuple[float, int, Path]]:
        """When each file was last used, its bytes, and its path; the least recently used first."""
        return sorted(self._files())

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each file was last used, its bytes, and its path."""
        return [(stat.st_mtime, stat.st_size, Path(path)) for path, stat in self._entries()]

    def _entries(self) -> Iterator[tuple[str, os.stat_result]]:
        """Every file, one at a time: there may be a million."""
        for folder in (self.partial, *(path for path in self._blobs.iterdir() if path.is_dir())):
            with os.scandir(folder) as entries:
                for entry in entries:
                    if stat := _stat(entry):
                        yield entry.path, stat

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


def _mark(path: Path) -> _Mark:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _sha256_on_disk(path: Path, step: Callable[[int], None]) -> str:
    """The hash of a file's content; "unreadable" where the disk cannot give it back."""
    digest, read, told = hashlib.sha256(), 0, 0
    with open(path, "rb", buffering=0) as file:
        while data := _piece(file):
            digest.update(data)
            read += len(data)
            if read - told >= _STEP_BYTES:
                told = read
                step(read)
    return "unreadable" if data is None else digest.hexdigest()


def _piece(file: RawIOBase) -> bytes | None:
    """The next megabyte; None where the disk cannot read it."""
    try:
        return file.read(1 << 20)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None
