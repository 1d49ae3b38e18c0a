"""Blobs on their way in. Chunks are hashed as they come, so that the last one needs no second look at the rest.

What takes long (waiting for the disk; hashing what an earlier service received) is done in a thread, and the answer
to the last chunk is held back until the blob is whole.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ex4d.service.blob_store import BlobStore, free_bytes, full_disk_text
from ex4d.service.inbox import Inbox
from ex4d.service.refusal import Refusal
from ex4d_core.errors import full_disk_error
from ex4d_core.messages import CHUNK_BYTES, MAX_BLOB_BYTES, Message, PutBlob, PutBlobReply

log = logging.getLogger(__name__)

Answer = Callable[[Message], None]

# Uploads whose running hash is kept; those beyond are hashed once more at their end.
_MAX_RUNNING = 256


@dataclass
class _Upload:
    """Attributes:
    received: bytes in the partial file.
    digest: of those bytes; None if an earlier service received some of them.
    finishing: whether a thread has it.
    answers: whom to tell when it has ended, well or badly: called with None or the Refusal.
    """

    received: int
    digest: hashlib._Hash | None
    finishing: bool = False
    answers: list[Callable[[Refusal | None], None]] = field(default_factory=list)


class Uploads:
    """All uploads of a service; to be used on its loop's thread only."""

    def __init__(self, blobs: BlobStore, inbox: Inbox, reserve_bytes: float):
        """Args:
        reserve_bytes: disk space that uploads leave free.
        """
        self._blobs = blobs
        self._inbox = inbox
        self._reserve = reserve_bytes
        self._uploads: OrderedDict[str, _Upload] = OrderedDict()
        self._closing = threading.Event()
        for path in blobs.partial.iterdir():
            _give_up_last_piece(path)

    def close(self) -> None:
        """Stop what is under way in threads; partial files stay."""
        self._closing.set()

    def received(self, sha256: str) -> int:
        """Bytes of a blob that are here; -1 when it is whole."""
        if self._blobs.size(sha256) is not None:
            self._blobs.touch(sha256)
            return -1
        return self._upload(sha256).received

    def when_settled(self, hashes: Sequence[str], call: Callable[[], None]) -> None:
        """Make ``call`` as soon as none of these blobs is in a thread's hands; at once if none is."""
        for sha256 in hashes:
            upload = self._uploads.get(sha256)
            if upload and upload.finishing:
                upload.answers.append(lambda _: self.when_settled(hashes, call))
                return
        call()

    def put(self, chunk: PutBlob, answer: Answer) -> None:
        """Take a chunk; ``answer`` is called with a `PutBlobReply` now or when the blob is whole.

        Raises:
            Refusal: now, as said in its text; or later, through ``answer``.
        """
        sha256, size, end = chunk.sha256, chunk.size, chunk.offset + len(chunk.payload)
        if size > MAX_BLOB_BYTES:
            raise Refusal("too-large", f"a blob of {size} bytes is over the limit of {MAX_BLOB_BYTES}")
        if size < 0 or chunk.offset < 0 or end > size:
            raise Refusal("bad-request", f"bytes {chunk.offset} to {end} are not part of a blob of {size} bytes")
        if self._blobs.size(sha256) is not None:
            answer(PutBlobReply(sha256, -1))
            return
        upload = self._upload(sha256)
        if not upload.finishing:
            if upload.received > size:
                self._forget(sha256)
                raise Refusal(
                    "bad-blob", f"more than {size} bytes of {sha256} had arrived; send it again from the start"
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
        folder, missing = self._blobs.partial, chunk.size - upload.received
        free = free_bytes(folder)
        if free - missing < self._reserve:
            raise Refusal(
                "disk-full",
                f"{folder} has {free / 1e9:.2f} GB free, the upload needs {missing / 1e9:.2f} GB more and "
                f"{self._reserve / 1e9:.2f} GB are kept free; make room there, the upload then goes on where it is",
                {"folder": str(folder), "free": free},
            )
        path = self._partial(sha256)
        try:
            with open(path, "ab", buffering=0) as file:
                if file.tell() != upload.received:
                    raise Refusal(
                        "bad-blob", f"the upload {path} was changed by somebody; send it again from the start"
                    )
                rest = memoryview(chunk.payload)
                while rest:
                    rest = rest[file.write(rest) :]
        except Refusal:
            self._forget(sha256)
            raise
        except OSError as error:
            if path.exists():
                os.truncate(path, upload.received)
            raise _refusal(folder, error) from error
        upload.received += len(chunk.payload)
        if upload.digest:
            upload.digest.update(chunk.payload)

    def _finish(self, sha256: str, upload: _Upload) -> None:
        upload.finishing = True
        path = self._partial(sha256)
        self._inbox.aside(partial(self._verify, path, sha256, upload.digest), partial(self._finished, sha256, upload))

    def _verify(self, path: Path, sha256: str, digest: hashlib._Hash | None) -> str:
        """In a thread: the file's true hash; the file has become the blob if that is its name."""
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
        if error:
            refusal = _refusal(self._blobs.partial, error)
            _give_up_last_piece(self._partial(sha256))
            del self._uploads[sha256]
        elif outcome.result() != sha256:
            log.warning("an upload named %s was something else, and is dropped", sha256)
            refusal = Refusal(
                "bad-blob", f"what arrived as {sha256} has the SHA-256 {outcome.result()}; it is dropped, send it again"
            )
            self._forget(sha256)
        else:
            del self._uploads[sha256]
        for tell in upload.answers:
            tell(refusal)

    def _forget(self, sha256: str) -> None:
        self._partial(sha256).unlink(missing_ok=True)
        self._uploads.pop(sha256, None)


def _give_up_last_piece(path: Path) -> None:
    """Shorten an upload whose end is in doubt: what a killed machine wrote last may not have reached its disk.

    The client also has something left to send then, and gets an answer when the blob is whole.
    """
    if not path.exists():
        return
    size = path.stat().st_size
    os.truncate(path, max(size - 1, 0) // CHUNK_BYTES * CHUNK_BYTES)


def _refusal(folder: Path, error: BaseException) -> Refusal:
    if full_disk := full_disk_error(error):
        details = {"folder": str(folder), "free": free_bytes(folder)}
        return Refusal("disk-full", full_disk_text(folder, full_disk), details)
    log.error("cannot keep an upload", exc_info=error)
    return Refusal("internal", f"the backend cannot keep the upload ({error}); see its log")
