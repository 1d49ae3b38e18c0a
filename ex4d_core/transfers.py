"""Blobs over the wire: what the backend lacks goes up, what it made comes down, each named by its SHA-256.

All functions are conversations (see `ex4d_core.client`): they work in pieces, and hold nobody up who polls.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, Protocol

from ex4d_core.client import Conversation, RequestRefused
from ex4d_core.errors import Ex4dError
from ex4d_core.messages import CHUNK_BYTES, MAX_HASHES, BlobStatus, GetBlob, Message, PutBlob
from ex4d_core.scene import RENDER_FILES, Scene

# Chunks under way at a time: enough to fill a link, few enough to stay within a tick of the UI.
WINDOW = 4


class TransferError(Ex4dError, ValueError):
    """A blob that arrived damaged, again and again."""


class StorageError(Ex4dError, OSError):
    """A result that cannot be kept on this machine: a full disk, a folder that is gone or closed to us."""


class UploadProgress(Protocol):
    """Whoever wants to know how an upload goes: bytes sent, and to send."""

    uploaded: int
    upload_size: int


def hash_file(path: Path) -> Conversation[str]:
    """SHA-256 of a file in hexadecimal; after each piece others have their turn."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(CHUNK_BYTES):
            digest.update(data)
            yield []
    return digest.hexdigest()


def upload_blobs(blobs: Mapping[str, Path | bytes], progress: UploadProgress) -> Conversation[None]:
    """Send those of some blobs that the backend lacks, and of those only what it lacks.

    Args:
        blobs: SHA-256 to the file, or to the bytes themselves.
    """
    names, missing = list(blobs), []
    for start in range(0, len(names), MAX_HASHES):
        asked = names[start : start + MAX_HASHES]
        reply = yield BlobStatus(asked)
        missing += [(name, max(had, 0)) for name, had in zip(asked, reply.received, strict=True) if had >= 0]
    progress.upload_size = sum(_size(blobs[name]) - had for name, had in missing)
    for name, had in missing:
        yield from _upload_blob(name, blobs[name], had, progress)


def scene_blobs(scene: Scene) -> dict[str, Path | bytes]:
    """All that a backend needs of a scene: what `RENDER_FILES` names, and the manifest."""
    files = scene.manifest.files
    return {**{files[part].sha256: scene.path(part) for part in RENDER_FILES}, scene.digest: scene.manifest_bytes}


@dataclass
class Sent:
    """An upload that nobody watches; see `UploadProgress`."""

    uploaded: int = 0
    upload_size: int = 0


def ask_about(scene: Scene, question: Message) -> Conversation[Message]:
    """Ask something about a scene, which is sent first if the backend does not have it."""
    try:
        return (yield question)
    except RequestRefused as refused:
        if refused.code != "unknown-scene":
            raise
    yield from upload_blobs(scene_blobs(scene), Sent())
    return (yield question)


def _upload_blob(name: str, source: Path | bytes, offset: int, progress: UploadProgress) -> Conversation[None]:
    size = _size(source)
    before = progress.uploaded - offset
    while offset >= 0:
        pieces = [PutBlob(name, size, offset + start, data) for start, data in _pieces(source, offset, WINDOW)]
        if not pieces:
            raise TransferError(f"{source} became shorter while it was sent; put it back as it was and try again")
        replies = yield pieces
        # The service says what it has; after a lost connection that may be less than we sent.
        offset = replies[-1].received
        progress.uploaded = before + (size if offset < 0 else offset)


def chunks_of(sizes: Iterable[int]) -> int:
    """How many chunks blobs of these sizes take."""
    return sum(-(-size // CHUNK_BYTES) for size in sizes)


def fetch_blobs(blobs: list[tuple[str, int, Path]]) -> Conversation[None]:
    """Download several blobs, each given by hash, size and file; see `fetch_blob`.

    Those that fit into one window of chunks together come in one round trip: a user interface has one or two of
    those in each of its ticks.

    Raises:
        TransferError: the bytes of one do not have the promised hash, twice in a row.
        StorageError: there is no room for one.
    """
    lacking = []
    for blob in blobs:
        if not (yield from _is_there(*blob)):
            lacking.append(blob)
    if len(lacking) > 1 and chunks_of(size for _, size, _ in lacking) <= WINDOW:
        asked = [(blob, start) for blob in lacking for start in range(0, blob[1], CHUNK_BYTES)]
        data = {path: bytearray() for _, _, path in lacking}
        for (blob, _), chunk in zip(asked, (yield [GetBlob(blob[0], start) for blob, start in asked]), strict=True):
            data[blob[2]] += chunk.payload
        lacking = [blob for blob in lacking if hashlib.sha256(data[blob[2]]).hexdigest() != blob[0]]
        for path in data.keys() - {path for _, _, path in lacking}:
            with _keeping(path):
                partial = path.with_name(path.name + ".partial")
                partial.write_bytes(data[path])
                os.replace(partial, path)
    # What is large, or arrived damaged.
    for sha256, size, path in lacking:
        yield from fetch_blob(sha256, size, path)


def _is_there(sha256: str, size: int, path: Path) -> Conversation[bool]:
    """Whether a file is that blob already."""
    if not path.exists() or path.stat().st_size != size:
        return False
    return (yield from hash_file(path)) == sha256


def fetch_blob(sha256: str, size: int, path: Path) -> Conversation[None]:
    """Download a blob into ``path``, which appears when it is complete and right.

    A ``.partial`` file from an earlier try is continued.

    Raises:
        TransferError: the bytes do not have the promised hash, twice in a row.
        StorageError: there is no room for it.
    """
    if (yield from _is_there(sha256, size, path)):
        return
    partial = path.with_name(path.name + ".partial")
    for _ in range(2):
        # Hashed while it arrives: hashing a long movie at the end would hold up the user interface.
        digest, offset = hashlib.sha256(), 0
        with _keeping(path):
            # Unbuffered: what did not fit would be tried once more when the file is closed.
            file = open(partial, "a+b", buffering=0)  # noqa: SIM115 - closed below, whatever happens in between
        with file:
            file.seek(0)
            while data := file.read(CHUNK_BYTES):
                digest.update(data)
                offset += len(data)
                yield []
            while offset < size:
                asked = range(offset, min(size, offset + WINDOW * CHUNK_BYTES), CHUNK_BYTES)
                before = offset
                for chunk in (yield [GetBlob(sha256, start) for start in asked]):
                    if chunk.offset == offset:
                        with _keeping(path):
                            _write_all(file, chunk.payload)
                        digest.update(chunk.payload)
                        offset += len(chunk.payload)
                if offset == before:
                    raise TransferError(f"the backend sends no more of {path.name} after {offset} of {size} bytes")
        if digest.hexdigest() == sha256:
            os.replace(partial, path)
            return
        partial.unlink()
    raise TransferError(f"{path.name} arrived damaged twice; check the network and the backend's disk, then try again")


@contextmanager
def _keeping(path: Path) -> Iterator[None]:
    """Name the folder, and the remedy, when a result cannot be written."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path.name} into {path.parent}: {error.strerror or error}; make room there, or let it be "
            "written to, and go on"
        ) from error


def _write_all(file: RawIOBase, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _size(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _pieces(source: Path | bytes, offset: int, count: int) -> Iterator[tuple[int, Any]]:
    """Up to ``count`` chunks from ``offset`` on, each with its distance from ``offset``."""
    if isinstance(source, bytes):
        data = source[offset : offset + count * CHUNK_BYTES]
    else:
        with open(source, "rb") as file:
            file.seek(offset)
            data = file.read(count * CHUNK_BYTES)
    for start in range(0, len(data), CHUNK_BYTES):
        yield start, data[start : start + CHUNK_BYTES]
