"""`NodeCache`: footage and scenes on a node of a cluster, by content hash; bounded, the least recently used go first.

    blobs/ab/abcdef...      what is kept, for all workers of the machine
    jobs/PROCESS-.../       a `BlobStore` with the inputs of a job, linked from there

A job's inputs are links, so the cache may drop a file that a job still reads.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import psutil
from filelock import FileLock

from ex4d.service.blob_store import BlobStore
from ex4d_core.durable_files import make_folder


class NodeCache:
    """The cache of one worker's machine, which its other workers use, too."""

    def __init__(self, folder: Path, limit_bytes: float):
        """Use a folder, and remove what workers that died have left in it."""
        self._kept, self._limit, self._jobs = BlobStore(folder), limit_bytes, folder / "jobs"
        self._lock = FileLock(folder / "lock")
        make_folder(self._jobs)
        for left in self._jobs.iterdir():
            process = left.name.partition("-")[0]
            if process.isdigit() and not psutil.pid_exists(int(process)):
                shutil.rmtree(left, ignore_errors=True)

    def begin_job(self) -> JobInputs:
        """A place for a job's inputs and files; the caller closes it."""
        return JobInputs(self, Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self._jobs)))

    def link_into(self, inputs: BlobStore, sha256: str) -> bool:
        """Give a job a file that is kept; returns whether it is, and is whole."""
        if not self._kept.verify(sha256):
            return False
        self._kept.touch(sha256)
        with contextlib.suppress(FileNotFoundError):  # dropped by another worker just now
            _link_or_copy(self._kept.path(sha256), inputs.partial / sha256)
            inputs.move_in(inputs.partial / sha256, sha256)
            return True
        return False

    def keep(self, inputs: BlobStore, sha256: str) -> None:
        """Keep a file of a job, whose content is verified, and drop others until all are within the limit."""
        size = inputs.size(sha256) or 0
        if size > self._limit:
            return
        with self._lock:
            self._drop_to(self._limit - size)
            target = self._kept.partial / f"{sha256}-{os.getpid()}"
            _link_or_copy(inputs.path(sha256), target)
            self._kept.move_in(target, sha256)

    def _drop_to(self, limit: float) -> None:
        files = self._kept.recent_files()
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= limit:
                return
            path.unlink(missing_ok=True)
            total -= size


class JobInputs:
    """A job's inputs, in a blob store of its own, and a folder for what it makes."""

    def __init__(self, cache: NodeCache, folder: Path):
        """Without any input."""
        self._cache, self._folder = cache, folder
        self.blobs, self.work = BlobStore(folder), folder / "work"
        self.work.mkdir()

    def lacking(self, inputs: tuple[tuple[str, int], ...]) -> list[str]:
        """Hashes of those inputs that must be sent; all others are here when this returns."""
        return [
            sha256
            for sha256, _ in dict(inputs).items()
            if self.blobs.size(sha256) is None and not self._cache.link_into(self.blobs, sha256)
        ]

    def add(self, sha256: str, offset: int, data: bytes) -> None:
        """Write a piece of an input, which come in order."""
        with open(self.blobs.partial / sha256, "ab" if offset else "wb") as file:
            file.write(data)

    def complete(self, sha256: str) -> None:
        """All pieces of an input are here: check and keep it.

        Raises:
            OSError: it is not what was sent.
        """
        path = self.blobs.partial / sha256
        stored, _ = self.blobs.add_file(path)
        if stored != sha256:
            raise OSError(f"{sha256} arrived with the SHA-256 {stored}; check the node's memory and network")
        self._cache.keep(self.blobs, sha256)

    def close(self) -> None:
        """Remove the job's files here."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
