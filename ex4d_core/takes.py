"""A take from this side of the wire: upload what the backend lacks, submit the shot, collect frames and movies.

`Take.conversation` tells that story from top to bottom. It can be cut off anywhere (a closed Blender, a lost network)
and started again from the few values that `Take` keeps: nothing is uploaded, made or delivered twice.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ex4d_core.client import Conversation
from ex4d_core.messages import (
    CHUNK_BYTES,
    FINAL_STATES,
    BlobStatus,
    Cancel,
    GetBlob,
    GetEvents,
    JobEvent,
    JobStatus,
    PutBlob,
    Submit,
)
from ex4d_core.scene import RENDER_FILES, Scene, sha256_of
from ex4d_core.shot import ShotRequest

# Files that a finished take brings along; a name from the wire is only ever compared with these.
TAKE_FILES = ("take.mp4", "color.mp4", "mask.mp4", "camera.npz", "request.json")

# The newest estimate of a take that is still being denoised.
ESTIMATE_FILE = "estimate.png"

# Chunks under way at a time: enough to fill a link, few enough to stay within a tick of the UI.
_WINDOW = 4
# How long one request for events is held back by the service; shorter than its limit.
_EVENT_WAIT_SECONDS = 5.0


class TransferError(ValueError):
    """A blob that arrived damaged, again and again."""


@dataclass
class Take:
    """One take: a shot request and everything that has arrived for it so far.

    Attributes:
        request: what was asked for.
        folder: where frames (``frame_00000.png``) and movies are put.
        key: our own name of the submission; the same key never makes two jobs.
        job: the backend's name of the job, "" before it is accepted.
        last_event: number of the last event that was dealt with completely.
        status: the newest `JobStatus`, or None.
        uploaded, upload_size: bytes of the scene sent, and to send.
        frames: files of the frames that have arrived, by index.
        files: movies and data that have arrived, by name.
        estimate: file of the newest small picture of what is coming, None before the first.
        on_frame: called once for each frame when its file is complete.
    """

    request: ShotRequest
    folder: Path
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    job: str = ""
    last_event: int = 0
    status: JobStatus | None = None
    uploaded: int = 0
    upload_size: int = 0
    frames: dict[int, Path] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    estimate: Path | None = None
    on_frame: Callable[[int, Path], None] | None = None

    def conversation(self, scene: Scene | None) -> Conversation[JobStatus]:
        """From upload to the last frame; returns the job's final status.

        Args:
            scene: the opened scene package; None when the job was submitted earlier.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.job:
            yield from self._upload(scene)
            reply = yield Submit(self.key, self.request.to_wire())
            self.job = reply.job
        return (yield from self._collect())

    def cancel(self) -> Conversation[JobStatus]:
        """Ask the backend to stop the job."""
        reply = yield Cancel(self.job)
        self.status = reply.status
        return reply.status

    def _upload(self, scene: Scene) -> Conversation[None]:
        manifest = scene.manifest
        blobs: dict[str, Path | bytes] = {manifest.files[part].sha256: scene.path(part) for part in RENDER_FILES}
        blobs[scene.digest] = scene.manifest_bytes
        reply = yield BlobStatus(list(blobs))
        missing = [(name, max(had, 0)) for name, had in zip(blobs, reply.received, strict=True) if had >= 0]
        self.upload_size = sum(_size(blobs[name]) - had for name, had in missing)
        for name, had in missing:
            yield from self._upload_blob(name, blobs[name], had)

    def _upload_blob(self, name: str, source: Path | bytes, offset: int) -> Conversation[None]:
        size = _size(source)
        before = self.uploaded - offset
        while offset >= 0:
            pieces = [PutBlob(name, size, offset + start, data) for start, data in _pieces(source, offset, _WINDOW)]
            if not pieces:
                raise TransferError(f"{source} became shorter while it was sent; reconstruct the scene and try again")
            replies = yield pieces
            # The service says what it has; after a lost connection that may be less than we sent.
            offset = replies[-1].received
            self.uploaded = before + (size if offset < 0 else offset)

    def _collect(self) -> Conversation[JobStatus]:
        while True:
            reply = yield GetEvents(self.job, self.last_event, wait=_EVENT_WAIT_SECONDS)
            self.status = reply.status
            # An estimate is of interest until the next one; whoever comes late need not fetch them all.
            newest = max((event.number for event in reply.events if event.kind == "estimate"), default=0)
            wanted = [event for event in reply.events if event.kind != "estimate" or event.number == newest]
            for events in _small_together(wanted):
                yield from self._fetch(events)
            if reply.events:
                self.last_event = reply.events[-1].number
            if not reply.events and reply.status.state in FINAL_STATES and reply.status.events <= self.last_event:
                return reply.status

    def _fetch(self, events: list[JobEvent]) -> Conversation[None]:
        """Fetch the blobs of some events, and note them as dealt with."""
        wanted = {}
        for event in events:
            if event.kind == "frame" and 0 <= event.index < len(self.request.camera):
                wanted[event.number] = self.folder / frame_file_name(event.index)
            elif event.kind == "estimate":
                wanted[event.number] = self.folder / ESTIMATE_FILE
            elif event.kind == "file" and event.name in TAKE_FILES:
                wanted[event.number] = self.folder / event.name
        yield from fetch_blobs([(one.sha256, one.size, wanted[one.number]) for one in events if one.number in wanted])
        for event in events:
            path = wanted.get(event.number)
            if path and event.kind == "file":
                self.files[event.name] = path
            elif path and event.kind == "estimate":
                self.estimate = path
            elif path:
                is_new = event.index not in self.frames
                self.frames[event.index] = path
                if self.on_frame and is_new:
                    self.on_frame(event.index, path)
            self.last_event = event.number


def _small_together(events: list[JobEvent]) -> Iterator[list[JobEvent]]:
    """Events in order, in groups whose blobs fit into one window of chunks; a larger blob is a group of its own."""
    group: list[JobEvent] = []
    for event in events:
        if group and _chunks(one.size for one in [*group, event]) > _WINDOW:
            yield group
            group = []
        group.append(event)
    if group:
        yield group


def _chunks(sizes: Iterable[int]) -> int:
    return sum(-(-size // CHUNK_BYTES) for size in sizes)


def frame_file_name(index: int) -> str:
    """File name of a take's frame, counted from 0."""
    return f"frame_{index:05d}.png"


def fetch_blobs(blobs: list[tuple[str, int, Path]]) -> Conversation[None]:
    """Download several blobs, each given by hash, size and file; see `fetch_blob`.

    Those that fit into one window of chunks together come in one round trip: a user interface has one or two of
    those in each of its ticks.

    Raises:
        TransferError: the bytes of one do not have the promised hash, twice in a row.
    """
    lacking = [blob for blob in blobs if not _is_there(*blob)]
    if len(lacking) > 1 and _chunks(size for _, size, _ in lacking) <= _WINDOW:
        asked = [(blob, start) for blob in lacking for start in range(0, blob[1], CHUNK_BYTES)]
        data = {path: bytearray() for _, _, path in lacking}
        for (blob, _), chunk in zip(asked, (yield [GetBlob(blob[0], start) for blob, start in asked]), strict=True):
            data[blob[2]] += chunk.payload
        lacking = [blob for blob in lacking if hashlib.sha256(data[blob[2]]).hexdigest() != blob[0]]
        for path in data.keys() - {path for _, _, path in lacking}:
            partial = path.with_name(path.name + ".partial")
            partial.write_bytes(data[path])
            os.replace(partial, path)
    # What is large, or arrived damaged.
    for sha256, size, path in lacking:
        yield from fetch_blob(sha256, size, path)


def _is_there(sha256: str, size: int, path: Path) -> bool:
    return path.exists() and path.stat().st_size == size and sha256_of(path) == sha256


def fetch_blob(sha256: str, size: int, path: Path) -> Conversation[None]:
    """Download a blob into ``path``, which appears when it is complete and right.

    A ``.partial`` file from an earlier try is continued.

    Raises:
        TransferError: the bytes do not have the promised hash, twice in a row.
    """
    if _is_there(sha256, size, path):
        return
    partial = path.with_name(path.name + ".partial")
    for _ in range(2):
        # Hashed while it arrives: hashing a long movie at the end would hold up the user interface.
        digest, offset = hashlib.sha256(), 0
        with open(partial, "a+b") as file:
            file.seek(0)
            while data := file.read(CHUNK_BYTES):
                digest.update(data)
                offset += len(data)
            while offset < size:
                asked = range(offset, min(size, offset + _WINDOW * CHUNK_BYTES), CHUNK_BYTES)
                before = offset
                for chunk in (yield [GetBlob(sha256, start) for start in asked]):
                    if chunk.offset == offset:
                        file.write(chunk.payload)
                        digest.update(chunk.payload)
                        offset += len(chunk.payload)
                if offset == before:
                    raise TransferError(f"the backend sends no more of {path.name} after {offset} of {size} bytes")
        if digest.hexdigest() == sha256:
            os.replace(partial, path)
            return
        partial.unlink()
    raise TransferError(f"{path.name} arrived damaged twice; check the network and the backend's disk, then try again")


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
