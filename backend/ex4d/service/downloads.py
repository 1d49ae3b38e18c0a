"""`Downloads`: hands a user's blobs out chunk by chunk, and notices those that the disk has damaged."""

from __future__ import annotations

import errno

from ex4d.service.blob_store import BlobStore
from ex4d.service.refusals import Refusal
from ex4d.service.uploads import Uploads
from ex4d_core.messages import CHUNK_BYTES, BlobChunk, GetBlob

# Blobs of which is remembered that a client has begun to fetch them.
_MAX_BEGUN = 10_000
_DAMAGED = (
    "this result was damaged on the backend's disk, and is removed there; submit the job again. If it happens again, "
    "check the disk of the backend"
)


class Downloads:
    """All downloads of one user; to be used on the service's loop only."""

    def __init__(self, blobs: BlobStore, uploads: Uploads):
        """Of a user's blobs; ``uploads`` verifies them."""
        self._blobs, self._uploads = blobs, uploads
        # The oldest first.
        self._begun: dict[str, None] = {}

    def chunk(self, asked: GetBlob) -> BlobChunk:
        """The answer to a request for a chunk.

        Raises:
            Refusal: the blob is not here or was damaged, or the range is not in it.
            Later: a thread verifies the blob first.
        """
        size = self._blobs.size(asked.sha256)
        if size is None and self._blobs.was_damaged(asked.sha256):
            raise Refusal("unknown-blob", _DAMAGED)
        if size is None:
            raise Refusal("unknown-blob", f"unknown blob {asked.sha256}; results are kept for a limited time")
        self._require_whole(asked, size)
        if not 0 <= asked.offset <= size or asked.length < 1:
            raise Refusal(
                "bad-request", f"invalid range of {asked.length} bytes at {asked.offset} in a blob of {size} bytes"
            )
        if asked.offset == 0:
            self._blobs.touch(asked.sha256)
        try:
            data = self._blobs.read(asked.sha256, asked.offset, min(asked.length, CHUNK_BYTES))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self._blobs.distrust(asked.sha256)
            self._uploads.require_verified(asked.sha256)
            raise
        return BlobChunk(asked.sha256, size, asked.offset, data)

    def _require_whole(self, asked: GetBlob, size: int) -> None:
        """Verify a blob that is shorter than a client was told, or of which a client begins again: it had no use of it.

        Not each at its first use: reading all of it again would keep every client waiting.
        """
        if asked.offset == 0 and size and asked.sha256 not in self._begun:
            self._begun[asked.sha256] = None
            if len(self._begun) > _MAX_BEGUN:
                del self._begun[next(iter(self._begun))]
        elif asked.offset in range(1, size) and asked.length > 0:
            return
        else:
            self._uploads.require_verified(asked.sha256)
