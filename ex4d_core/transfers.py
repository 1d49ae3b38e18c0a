"""Uploads and downloads blobs, named by their SHA-256; sends no blob twice, and resumes interrupted transfers.

All functions are conversations (see `ex4d_core.client`): they work in pieces, and never hold up a UI that polls.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from ex4d_core.conversations import Conversation, RequestRefused, UnexpectedReply
from ex4d_core.durable_files import rename_all, sync_folder
from ex4d_core.errors import Ex4dError
from ex4d_core.folder_messages import DescribeFolders, TakeFile, parts_below
from ex4d_core.messages import CHUNK_BYTES, MAX_HASHES, BlobChunk, BlobStatus, GetBlob, Message, PutBlob
from ex4d_core.safe_files import LinkError, is_ordinary_file, open_file
from ex4d_core.scene import Scene
from ex4d_core.sizes import size_text

# Chunks in flight at a time: enough to fill a link, few enough to stay within a tick of the UI.
WINDOW = 4
# A UI's tick is longer, and a command that waits for the disk need not turn in circles.
_PAUSE_SECONDS = 0.001


# So often a window may bring an upload no further: a backend that was restarted has less than it had.
_USELESS = 32
# Less than this is sent sooner than the backend is asked about its folders.
_WORTH_ASKING = 1_000_000


class TransferError(Ex4dError):
    """A blob that arrived corrupt twice, or a transfer that gets no further."""


class StorageError(Ex4dError, OSError):
    """A result that cannot be written on this machine: a full disk, a folder that is missing or read-only."""


class UploadProgress(Protocol):
    """Receives the progress of an upload: bytes sent, and to send."""

    uploaded: int
    upload_size: int


def hash_file(path: Path) -> Conversation[str]:
    """SHA-256 of a file in hexadecimal; pauses after each piece."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(CHUNK_BYTES):
            digest.update(data)
            yield []
    return digest.hexdigest()


def upload_blobs(blobs: Mapping[str, Path | bytes], progress: UploadProgress) -> Conversation[None]:
    """Upload blobs, or parts of them, that the backend does not have.

    Args:
        blobs: SHA-256 to the file, or to the bytes themselves.
        progress: is updated.
    """
    names, missing = list(blobs), []
    for start in range(0, len(names), MAX_HASHES):
        asked = names[start : start + MAX_HASHES]
        reply = yield BlobStatus(asked)
        if len(reply.received) != len(asked):
            raise TransferError(f"the backend told of {len(reply.received)} blobs, not {len(asked)}; update it")
        for name, had in zip(asked, reply.received, strict=True):
            _require_part(name, had, _size(blobs[name]))
        missing += [(name, max(had, 0)) for name, had in zip(asked, reply.received, strict=True) if had >= 0]
    progress.upload_size = sum(_size(blobs[name]) - had for name, had in missing)
    shared = (yield from _shared_folders()) if progress.upload_size >= _WORTH_ASKING else []
    for name, had in missing:
        source = blobs[name]
        if not (_is_below(source, shared) and (yield from _take_file(name, source, had, progress))):
            yield from _upload_blob(name, source, had, progress)


def _is_below(source: Path | bytes, folders: list[str]) -> TypeGuard[Path]:
    return isinstance(source, Path) and any(parts_below(folder, str(source.absolute())) for folder in folders)


def _shared_folders() -> Conversation[list[str]]:
    """The folders that the backend reaches, too, by our names; none of a backend that is too old to tell."""
    try:
        return list((yield DescribeFolders()).names)
    except RequestRefused as refused:
        if refused.code != "bad-message":
            raise
        return []


def _take_file(name: str, source: Path, had: int, progress: UploadProgress) -> Conversation[bool]:
    """Have the backend copy a file that it reaches; returns False if it does not, so that the file must be sent."""
    before, size, copied, useless = progress.uploaded, _size(source), 0, 0
    try:
        while (received := (yield TakeFile(name, size, str(source.absolute()))).received) >= 0:
            _require_part(name, received, size + 1)
            useless = 0 if received > copied else useless + 1
            if useless >= _USELESS:
                return False
            copied = max(copied, received)
            progress.uploaded = before + max(received - had, 0)
    except RequestRefused as refused:
        if refused.code not in ("unknown-blob", "bad-blob"):
            raise
        progress.uploaded = before
        return False
    progress.uploaded = before + size - had
    return True


def scene_blobs(scene: Scene, *, deep: bool = False) -> dict[str, Path | bytes]:
    """All that a backend needs of a scene: its `SceneManifest.files_for`, and the manifest."""
    manifest = scene.manifest
    parts = {manifest.files[part].sha256: scene.path(part) for part in manifest.files_for(deep=deep)}
    return {**parts, scene.digest: scene.manifest_bytes}


@dataclass
class Sent:
    """The progress of an upload that nobody shows; see `UploadProgress`."""

    uploaded: int = 0
    upload_size: int = 0


def ask_about(scene: Scene, question: Message) -> Conversation[Message]:
    """Send a request about a scene, after an upload of the scene if the backend does not have it."""
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
    furthest, useless = offset, 0
    while offset >= 0:
        pieces = [PutBlob(name, size, offset + start, data) for start, data in _pieces(source, offset, WINDOW)]
        if not pieces:
            raise TransferError(f"{source} became shorter during the upload; restore it and try again")
        replies = yield pieces
        # The service reports what it has; after a lost connection that may be less than we sent.
        last, offset = offset, replies[-1].received
        _require_part(name, offset, size)
        progress.uploaded = before + (size if offset < 0 else offset)
        useless = 0 if offset < 0 or offset > furthest else useless + (offset <= last)
        furthest = max(furthest, offset)
        if useless >= _USELESS:
            raise TransferError(f"the backend keeps only {offset} of {size} bytes of {name}; check its disk, try again")


def _require_part(name: str, had: int, size: int) -> None:
    if had >= size > 0:
        raise TransferError(f"the backend says that it has {had} of {size} bytes of {name}, and not all; restart it")


def chunks_of(sizes: Iterable[int]) -> int:
    """The number of chunks in blobs of these sizes."""
    return sum(-(-size // CHUNK_BYTES) for size in sizes)


def fetch_blobs(blobs: list[tuple[str, int, Path]]) -> Conversation[None]:
    """Download several blobs, each given by hash, size and file; see `fetch_blob`.

    Those that fit into one window of chunks together take one round trip: a UI has time for one or two in each tick.

    Raises:
        TransferError: the bytes of one did not have the right hash, twice.
        StorageError: one cannot be written.
        LinkError: one would be written through a link.
    """
    missing = []
    for blob in blobs:
        if not (yield from _is_there(*blob)):
            missing.append(blob)
    if len(missing) > 1 and chunks_of(size for _, size, _ in missing) <= WINDOW:
        asked = [(blob, start) for blob in missing for start in range(0, blob[1], CHUNK_BYTES)]
        data = {path: bytearray() for _, _, path in missing}
        for (blob, start), chunk in zip(asked, (yield [GetBlob(blob[0], start) for blob, start in asked]), strict=True):
            _require_chunk(chunk, blob[0], blob[1], start)
            data[blob[2]] += chunk.payload
        missing = [blob for blob in missing if hashlib.sha256(data[blob[2]]).hexdigest() != blob[0]]
        arrived = []
        for path in data.keys() - {path for _, _, path in missing}:
            with _storing(path):
                partial = path.with_name(path.name + ".partial")
                with open_file(partial) as file:
                    _write_all(file, data[path])
                arrived.append((partial, path))
        yield from _rename(arrived)
    # Large blobs, and corrupt ones.
    for sha256, size, path in missing:
        yield from fetch_blob(sha256, size, path)


def _is_there(sha256: str, size: int, path: Path) -> Conversation[bool]:
    """Whether a file has the content of a blob; a link to one is replaced by a file."""
    if not is_ordinary_file(path) or path.stat().st_size != size:
        return False
    return (yield from hash_file(path)) == sha256


def fetch_blob(sha256: str, size: int, path: Path) -> Conversation[None]:
    """Download a blob into ``path``, which appears when it is complete, verified and on disk; see `names_on_disk`.

    Resumes a ``.partial`` file of an interrupted download.

    Raises:
        TransferError: the bytes did not have the right hash, twice.
        StorageError: it cannot be written.
        LinkError: it would be written through a link.
    """
    if (yield from _is_there(sha256, size, path)):
        return
    partial = path.with_name(path.name + ".partial")
    for _ in range(2):
        # Hashed while it arrives: hashing a long movie at the end would hold up the user interface.
        digest, offset = hashlib.sha256(), 0
        with _storing(path):
            # Unbuffered: closing the file would write again what did not fit.
            file = open_file(partial, append=True)
        with file:
            file.seek(0)
            while data := file.read(CHUNK_BYTES):
                digest.update(data)
                offset += len(data)
                yield []
            _require_room(path, size - offset)
            while offset < size:
                asked = range(offset, min(size, offset + WINDOW * CHUNK_BYTES), CHUNK_BYTES)
                before = offset
                for start, chunk in zip(asked, (yield [GetBlob(sha256, start) for start in asked]), strict=True):
                    _require_chunk(chunk, sha256, size, start)
                    if chunk.offset == offset:
                        with _storing(path):
                            _write_all(file, chunk.payload)
                        digest.update(chunk.payload)
                        offset += len(chunk.payload)
                if offset == before:
                    raise TransferError(f"the backend sent only {offset} of {size} bytes of {path.name}; try again")
        if digest.hexdigest() == sha256:
            yield from _rename([(partial, path)])
            return
        partial.unlink()
    raise TransferError(f"{path.name} arrived corrupt twice; check the network and the backend's disk, then try again")


def _require_chunk(chunk: BlobChunk, sha256: str, size: int, start: int) -> None:
    """Check that a chunk is of the blob and the place that were asked for.

    Raises:
        UnexpectedReply: it is not.
    """
    found, asked = (chunk.sha256, chunk.size, chunk.offset), (sha256, size, start)
    if found != asked or start + len(chunk.payload) > size:
        raise UnexpectedReply(
            f"asked for byte {start} of {size} of the blob {sha256[:8]}, and got {len(chunk.payload)} bytes from byte "
            f"{chunk.offset} of {chunk.size} of {chunk.sha256[:8]}; is the backend EX-4D, and of this version?"
        )


def _require_room(path: Path, size: int) -> None:
    """Check that the disk has room for the rest of a download: it need not be full before that is known.

    Raises:
        StorageError: it has less.
    """
    free = size
    with suppress(OSError):  # writing will tell
        free = shutil.disk_usage(path.parent).free
    if free < size:
        raise StorageError(
            f"cannot write {path.name} into {path.parent}: it needs {size_text(size)}, and {size_text(free)} are free; "
            "free space there, then resume"
        )


def _rename(renames: list[tuple[Path, Path]]) -> Conversation[None]:
    """Give files that have arrived their names."""
    if renames:
        yield from _in_thread(lambda: rename_all(renames), renames[0][1])


def names_on_disk(folders: Iterable[Path]) -> Conversation[None]:
    """Have the names of files and folders on disk that were put into these folders.

    Raises:
        StorageError: that is not possible.
    """
    folders = list(dict.fromkeys(folders))
    if folders:
        yield from _in_thread(lambda: [sync_folder(one) for one in folders], folders[0])


def _in_thread(work: Callable[[], object], path: Path) -> Conversation[None]:
    """Wait for the disk in a thread: it may take its time, and a UI has none; ``path`` is named in an error."""
    ended = threading.Event()
    errors: list[OSError] = []

    def run() -> None:
        try:
            work()
        except OSError as error:
            errors.append(error)
        finally:
            ended.set()

    threading.Thread(target=run, name="results to disk", daemon=True).start()
    while not ended.wait(_PAUSE_SECONDS):
        yield []
    with _storing(path):
        for error in errors:
            raise error


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    """Name the folder, and the remedy, when a result cannot be written."""
    try:
        yield
    except LinkError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write {path.name} into {path.parent}: {error.strerror or error}; free space there or check its "
            "permissions, then resume"
        ) from error


def _write_all(file: RawIOBase, data: bytes | bytearray) -> None:
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
