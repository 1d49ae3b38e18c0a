"""Folders prepared by a stranger: links, pipes and names are planted, and results are fetched into them.

Whatever lies in the folder, nothing outside it is created or changed, and a download either arrives or is refused.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaigns.outcome import Outcome
from campaigns.service import workplace
from ex4d_core.errors import is_expected
from ex4d_core.job_status import JobEvent, JobStatus
from ex4d_core.messages import CHUNK_BYTES, BlobChunk, EventsReply, GetBlob, GetEvents
from ex4d_core.remote_job import RemoteJob
from ex4d_core.take_files import TAKE_FILES, frame_file_name

_NAMES = (*(frame_file_name(index) for index in range(3)), *TAKE_FILES, "../take.mp4", "/tmp/take.mp4", "a/b.mp4")


def run(seed: int, count: int) -> Outcome:
    """Prepare ``count`` folders, each in another way."""
    choices, outcome, ends = random.Random(seed), Outcome(), Counter[str]()
    for trial in range(count):
        with workplace() as folder:
            outside = folder / "outside"
            (outside / "deeper").mkdir(parents=True)
            (outside / "film.mp4").write_bytes(b"hers")
            take = folder / "takes" / "arc_1"
            take.parent.mkdir()
            planted = _plant(take, outside, choices)
            before = _contents(outside)
            try:
                _fetch(RemoteJob(take, job="j1"), choices)
                ends["arrived"] += 1
            except Exception as error:
                outcome.require(is_expected(error), f"trial {trial}, {planted}: {error!r}")
                ends["refused"] += 1
            outcome.require(_contents(outside) == before, f"trial {trial}: written through {planted}")
            strange = {path.name for path in folder.iterdir()} - {"outside", "takes", "tokens"}
            outcome.require(not strange and os.listdir(take.parent) == ["arc_1"], f"trial {trial}: made {strange}")
    outcome.figures = {"trials": count, **{name: ends[name] for name in ("arrived", "refused")}}
    return outcome


def _plant(take: Path, outside: Path, choices: random.Random) -> str:
    """Put a few things into a take's folder, or in its place; returns what."""
    if choices.random() < 0.15:
        take.symlink_to(outside, target_is_directory=True)
        return "the folder as a link"
    take.mkdir()
    planted = []
    for _ in range(choices.randrange(3)):
        path = take / (choices.choice(_NAMES[:-3]) + choices.choice(("", ".partial")))
        name = choices.choice(list(_PLANTS))
        if not os.path.lexists(path):
            _PLANTS[name](path, outside)
            planted.append(f"{path.name}: {name}")
    return ", ".join(planted) or "nothing"


_PLANTS: dict[str, Callable[[Path, Path], Any]] = {
    "a link": lambda path, outside: path.symlink_to(outside / "film.mp4"),
    "a hard link": lambda path, outside: path.hardlink_to(outside / "film.mp4"),
    "a link to nothing": lambda path, outside: path.symlink_to(outside / "new.mp4"),
    "a link to a folder": lambda path, outside: path.symlink_to(outside / "deeper"),
    "a link to itself": lambda path, outside: path.symlink_to(path.name),
    "a relative link": lambda path, outside: path.symlink_to("../../outside/film.mp4"),
    "a pipe": lambda path, outside: os.mkfifo(path),
    "a folder": lambda path, outside: path.mkdir(),
    "a file": lambda path, outside: path.write_bytes(b"old"),
}


def _contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def _fetch(job: RemoteJob, choices: random.Random) -> None:
    """Fetch results as a backend announces them."""
    blobs, events = {}, []
    for number, name in enumerate(choices.sample(_NAMES, 4), 1):
        data = choices.randbytes(choices.choice((3, 1000, CHUNK_BYTES + 1)))
        sha256 = hashlib.sha256(data).hexdigest()
        blobs[sha256] = data
        frame = name.startswith("frame_")
        index = int(name[6:11]) if frame else -1
        kind = "frame" if frame else "file"
        events.append(JobEvent(number, kind, "" if frame else name, index, sha256, len(data)))
    status = JobStatus("j1", "arc", "preview", "done", events=len(events))

    def answer(message: Any) -> Any:
        if isinstance(message, GetEvents):
            return EventsReply(status, [event for event in events if event.number > message.after])
        assert isinstance(message, GetBlob)
        data = blobs[message.sha256]
        return BlobChunk(message.sha256, len(data), message.offset, data[message.offset :][:CHUNK_BYTES])

    conversation, reply = job.conversation(), None
    try:
        while True:
            asked = conversation.send(reply)
            reply = [answer(one) for one in asked] if isinstance(asked, list) else answer(asked)
    except StopIteration:
        return
