"""`Uploads`: receives blobs chunk by chunk, hashes them as they arrive, and resumes interrupted ones.

Slow work (waiting for the disk; hashing what an earlier service received) runs in a thread, and the reply to the last
chunk is held back until the blob is complete.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Protocol

from ex4d.service.blob_store import BlobStore
from ex4d.service.inbox import Inbox
from ex4d.service.refusals import Later, Refusal, refusal_for
from ex4d_core.job_status import MAX_BLOB_BYTES
from ex4d_core.messages import CHUNK_BYTES, Message, PutBlob, PutBlobReply
from ex4d_core.scene_manifest import is_sha256

log = logging.getLogger(__name__)

Answer = Callable[[Message], None]

# A copy of a file tells how far it is after so many bytes.
_COPY_STEP = 64 << 20
# Uploads whose running hash is kept; any others are hashed again at their end.
_MAX_RUNNING = 256


class Room(Protocol):
    """What the bytes of an upload count against."""

    def require(self, size: int) -> None:
        """Raises a `Refusal` or `Later` where there is no room for so many bytes more."""

    def add(self, size: int) -> None:
        """Count bytes that have been written."""

    def reserve(self, size: int) -> None:
        """Count bytes that are about to be written; a negative number when they are written, or will never be."""


@dataclass
class _Upload:
    """A blob that is not complete.

    Attributes:
        received: bytes in the partial file.
        digest: of those bytes; None if an earlier service received some of them.
        finishing: whether a thread verifies it.
        answers: called at its end, with None or the Refusal.
    """

    received: int
    digest: hashlib._Hash | None
    finishing: bool = False
    answers: list[Callable[[Refusal | None], None]] = field(default_factory=list)


class Uploads:
    """All uploads of a user; to be used on the service's loop only."""

    def __init__(self, blobs: BlobStore, inbox: Inbox, reserve_bytes: float, room: Room | None = None):
        """Take over the uploads that an earlier service left unfinished.

        Args:
            blobs: where complete uploads go.
            inbox: of the service's loop.
            reserve_bytes: disk space that uploads leave free.
            room: of the user; None for no limit.
        """
        self._blobs = blobs
        self._inbox = inbox
        self._reserve = reserve_bytes
        self._room = room
        self._uploads: OrderedDict[str, _Upload] = OrderedDict()
        self._closing = threading.Event()
        for path in blobs.partial.iterdir():
            # After a power cut a file system without a journal may have both names of one file: of the blob.
            if is_sha256(path.name) and blobs.size(path.name) is not None:
                path.unlink()
            else:
                _drop_last_chunk(path)

    def close(self) -> None:
        """Stop work in threads; partial files stay."""
        self._closing.set()

    def received(self, sha256: str) -> int:
        """Bytes of a blob that are here; -1 when it is complete."""
        size = self._blobs.size(sha256)
        # What a power cut leaves of a file is often its name alone.
        if size == 0 and not self._blobs.verify(sha256):
            size = None
        if size is not None:
            self._blobs.touch(sha256)
            return -1
        upload = self._uploads.get(sha256)
        if upload and not upload.finishing and upload.received and not self._partial(sha256).exists():
            del self._uploads[sha256]  # Given up and deleted meanwhile.
        return self._upload(sha256).received

    def when_settled(self, hashes: Sequence[str], call: Callable[[], None]) -> None:
        """Make ``call`` as soon as no thread verifies any of these blobs; at once if none does."""
        for sha256 in hashes:
            upload = self._uploads.get(sha256)
            if upload and upload.finishing:
                upload.answers.append(lambda _: self.when_settled(hashes, call))
                return
        call()

    def require_verified(self, sha256: str) -> None:
        """Before a client is told that its request is wrong: the blob may be what is damaged.

        Raises:
            Later: a thread reads all of the blob first.
        """
        if not self._blobs.is_verified(sha256):
            raise Later(partial(self._verify_later, sha256))

    def _verify_later(self, sha256: str, call: Callable[[BaseException | None], None]) -> None:
        self._inbox.run_in_thread(partial(self._blobs.verify, sha256), lambda outcome: call(outcome.exception()))

    def put(self, chunk: PutBlob, answer: Answer) -> None:
        """Take a chunk; ``answer`` is called with a `PutBlobReply` now or when the blob is complete.

        Raises:
            Refusal: the chunk is invalid or cannot be written; later refusals come through ``answer``.
            Later: of `Room.require`.
        """
        sha256, size, end = chunk.sha256, chunk.size, chunk.offset + len(chunk.payload)
        if size > MAX_BLOB_BYTES:
            raise Refusal("too-large", f"a blob of {size} bytes is over the limit of {MAX_BLOB_BYTES}")
        if size < 0 or chunk.offset < 0 or end > size:
            raise Refusal("bad-request", f"invalid range {chunk.offset} to {end} in a blob of {size} bytes")
        if self._blobs.size(sha256) is not None:
            answer(PutBlobReply(sha256, -1))
            return
        upload = self._upload(sha256)
        if not upload.finishing:
            if upload.received > size:
                self._forget(sha256)
                raise Refusal(
                    "bad-blob", f"received more than {size} bytes of {sha256}; upload it again from the start"
                )
            if chunk.offset == upload.received:
                self._append(sha256, upload, chunk)
            if upload.received < size:
                answer(PutBlobReply(sha256, upload.received))
                return
            self._finish(sha256, upload)
        upload.answers.append(
            lambda refusal: answer(refusal.message() if refusal else PutBlobReply(sha256, self.received(sha256)))
        )

    def take(self, sha256: str, size: int, opened: Callable[[], FileIO], answer: Answer) -> bool:
        """Copy a blob from a file that is here; ``answer`` gets a `PutBlobReply` now and then, and at its end.

        Args:
            sha256, size: of the blob.
            opened: opens the file, in a thread; its Refusal becomes the answer.
            answer: called once, while the copy is under way with what has been copied.

        Returns:
            Whether the copy begins with this.

        Raises:
            Refusal, Later: there is no room.
        """
        if self._blobs.size(sha256) is not None:
            answer(PutBlobReply(sha256, -1))
            return False
        upload = self._upload(sha256)
        begins = not upload.finishing
        if begins:
            self._require_room(size)
            self._reserve_room(size)
            upload.finishing, upload.received, upload.digest = True, 0, None
            copy = partial(self._copy, sha256, size, opened, upload)

            def copied(outcome: Future[str]) -> None:
                self._reserve_room(-size)
                self._finished(sha256, upload, outcome)

            # Threads of their own: a network's folder that hangs must not keep anybody's uploads waiting.
            self._inbox.run_in_thread(copy, copied, "copies")
        upload.answers.append(
            lambda refusal: answer(refusal.message() if refusal else PutBlobReply(sha256, self.received(sha256)))
        )
        return begins

    def _copy(self, sha256: str, size: int, opened: Callable[[], FileIO], upload: _Upload) -> str:
        """In a thread: copy and verify a file, and report the progress.

        The refusal of another content tells neither its size nor its hash: with them it could be fetched.
        """
        differs = Refusal("bad-blob", "the file has another content here; send it")
        path, digest, copied = self._partial(sha256), hashlib.sha256(), 0
        with opened() as source, open(path, "wb") as target:
            if os.fstat(source.fileno()).st_size != size:
                raise differs
            while not self._closing.is_set() and copied < size and (data := source.read(1 << 20)):
                digest.update(data)
                target.write(data)
                copied += len(data)
                if copied % _COPY_STEP < len(data):
                    self._inbox.post(partial(self._copied, upload, copied))
        if digest.hexdigest() != sha256:
            raise differs
        self._blobs.move_in(path, sha256)
        self._inbox.post(partial(self._count, copied))
        return sha256

    def _copied(self, upload: _Upload, count: int) -> None:
        if not upload.finishing:
            return
        upload.received = count
        waiting, upload.answers = upload.answers, []
        for answer in waiting:
            answer(None)

    def _reserve_room(self, size: int) -> None:
        if self._room:
            self._room.reserve(size)

    def _count(self, size: int) -> None:
        if self._room:
            self._room.add(size)

    def _upload(self, sha256: str) -> _Upload:
        upload = self._uploads.get(sha256)
        if upload is None:
            path = self._partial(sha256)
            received = path.stat().st_size if path.exists() else 0
            upload = self._uploads[sha256] = _Upload(received, None if received else hashlib.sha256())
            if len(self._uploads) > _MAX_RUNNING:
                oldest = next(name for name, one in self._uploads.items() if name == sha256 or not one.finishing)
                if oldest != sha256:
                    del self._uploads[oldest]
        self._uploads.move_to_end(sha256)
        return upload

    def _partial(self, sha256: str) -> Path:
        # `path` has checked that the name is a hash.
        return self._blobs.partial / self._blobs.path(sha256).name

    def _append(self, sha256: str, upload: _Upload, chunk: PutBlob) -> None:
        folder = self._blobs.partial
        self._require_room(chunk.size - upload.received)
        path = self._partial(sha256)
        try:
            with open(path, "ab", buffering=0) as file:
                if file.tell() != upload.received:
                    raise Refusal("bad-blob", f"another program changed the upload {path}; upload it again")
                rest = memoryview(chunk.payload)
                while rest:
                    rest = rest[file.write(rest) :]
        except Refusal:
            self._forget(sha256)
            raise
        except OSError as error:
            if path.exists():
                os.truncate(path, upload.received)
            raise refusal_for(error, folder) from error
        upload.received += len(chunk.payload)
        if self._room:
            self._room.add(len(chunk.payload))
        if upload.digest:
            upload.digest.update(chunk.payload)

    def _require_room(self, missing: int) -> None:
        folder = self._blobs.partial
        if self._room:
            self._room.require(missing)
        free = shutil.disk_usage(folder).free
        if free - missing < self._reserve:
            raise Refusal(
                "disk-full",
                f"{folder} has {free / 1e9:.2f} GB free, the upload needs {missing / 1e9:.2f} GB more and "
                f"{self._reserve / 1e9:.2f} GB stay free; free some space there, and the upload resumes",
                {"folder": str(folder), "free": free},
            )

    def _finish(self, sha256: str, upload: _Upload) -> None:
        upload.finishing = True
        verify = partial(self._verify, self._partial(sha256), sha256, upload.digest)
        self._inbox.run_in_thread(verify, partial(self._finished, sha256, upload))

    def _verify(self, path: Path, sha256: str, digest: hashlib._Hash | None) -> str:
        """In a thread: the file's real hash; if that is its name, the file has become the blob."""
        if digest is None:
            digest = hashlib.sha256()
            with open(path, "rb", buffering=0) as file:
                while not self._closing.is_set() and (data := file.read(1 << 20)):
                    digest.update(data)
        if digest.hexdigest() == sha256:
            self._blobs.move_in(path, sha256)
        return digest.hexdigest()

    def _finished(self, sha256: str, upload: _Upload, outcome: Future[str]) -> None:
        refusal = None
        error = outcome.exception()
        if isinstance(error, Refusal):  # of a file that is not what its client says
            refusal = error
            self._forget(sha256)
        elif error:
            log.error("cannot keep the upload %s", sha256, exc_info=error)
            refusal = refusal_for(error, self._blobs.partial)
            _drop_last_chunk(self._partial(sha256))
            del self._uploads[sha256]
        elif outcome.result() != sha256:
            log.warning("dropped an upload: %s has the SHA-256 %s", sha256, outcome.result())
            refusal = Refusal("bad-blob", f"the upload {sha256} has the SHA-256 {outcome.result()}; upload it again")
            self._forget(sha256)
        else:
            del self._uploads[sha256]
        for answer in upload.answers:
            answer(refusal)

    def _forget(self, sha256: str) -> None:
        self._partial(sha256).unlink(missing_ok=True)
        self._uploads.pop(sha256, None)


def _drop_last_chunk(path: Path) -> None:
    """Shorten an upload whose end is in doubt: the last write before a crash may not have reached the disk.

    The client then also has something left to send, and gets a reply when the blob is complete.
    """
    if not path.exists():
        return
    stat = path.stat()
    os.truncate(path, max(stat.st_size - 1, 0) // CHUNK_BYTES * CHUNK_BYTES)
    # This is no use of it: a service that is started every day must give it up some time, too.
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
