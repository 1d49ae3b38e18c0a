"""A job of the backend from this side of the wire: upload, submit, and fetch what it announces, until it is over.

`JobConversation.conversation` tells that story from top to bottom; takes and reconstructions say what is sent and
where results go. It can be cut off anywhere (a closed Blender, a lost network) and started again from the few values
that it keeps: nothing is uploaded, made or delivered twice.
"""

from __future__ import annotations

import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ex4d_core.client import Conversation
from ex4d_core.messages import FINAL_STATES, Cancel, GetEvents, JobEvent, JobStatus, Submit, Withdraw
from ex4d_core.transfers import WINDOW, chunks_of, fetch_blobs, upload_blobs

# Stages of a job in which no step tells how long the next one takes: of loading models, and the first one with them.
LOAD_STAGE, WARM_UP_STAGE = "load weights", "warm up"

_SECONDS_LEFT = re.compile(r", (\d+) s left$")

# How long one request for events is held back by the service; shorter than its limit.
_EVENT_WAIT_SECONDS = 5.0


def stage_with_seconds(stage: str, seconds_left: float | None) -> str:
    """A stage as `JobStatus` has it, with the time it takes still where that is known: "denoise, 90 s left"."""
    return stage if seconds_left is None else f"{stage}, {seconds_left:.0f} s left"


def stage_and_seconds(text: str) -> tuple[str, float | None]:
    """What `stage_with_seconds` was given, to whole seconds."""
    found = _SECONDS_LEFT.search(text)
    return (text[: found.start()], float(found[1])) if found else (text, None)


@dataclass(kw_only=True)
class JobConversation(ABC):
    """What takes and reconstructions have in common.

    Attributes:
        key: our own name of the submission; the same key never makes two jobs.
        job: the backend's name of the job, "" before it is accepted.
        submitted: whether the backend may have the job, although its name never came back.
        last_event: number of the last event that was dealt with completely.
        status: the newest `JobStatus`, or None.
        uploaded, upload_size: bytes sent, and to send.
        files: results that have arrived, by name.
    """

    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    job: str = ""
    submitted: bool = False
    last_event: int = 0
    status: JobStatus | None = None
    uploaded: int = 0
    upload_size: int = 0
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def progress(self) -> float:
        """How far the present step is, 0 to 1: the backend's own, or the fetching of what a finished job made."""
        status = self.status
        if status is None:
            return self.uploaded / self.upload_size if self.upload_size and not self.job else 0.0
        if status.state in FINAL_STATES:
            return self.last_event / status.events if status.events else 1.0
        return status.done / status.total if status.total else 0.0

    def cancel(self) -> Conversation[None]:
        """Ask the backend to stop the job, or whatever became of a submission without an answer.

        Like every conversation it waits for a backend that is away. Nothing is asked where nothing was submitted.
        """
        if self.job:
            self.status = (yield Cancel(self.job)).status
        elif self.submitted:
            yield Withdraw(self.key)

    @abstractmethod
    def place_of(self, event: JobEvent) -> Path | None:
        """Where an announced result is to be put; None for one that is not wanted."""

    def arrived(self, event: JobEvent, path: Path) -> None:
        """A result is complete in its file."""
        self.files[event.name] = path

    def _submit(self, request: Mapping[str, Any], blobs: Mapping[str, Path | bytes]) -> Conversation[None]:
        yield from upload_blobs(blobs, self)
        self.submitted = True
        reply = yield Submit(self.key, dict(request))
        self.job = reply.job

    def _collect(self) -> Conversation[JobStatus]:
        """From the job's acceptance to its last result; returns its final status."""
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
        wanted = {event.number: path for event in events if (path := self.place_of(event)) is not None}
        yield from fetch_blobs([(one.sha256, one.size, wanted[one.number]) for one in events if one.number in wanted])
        for event in events:
            if event.number in wanted:
                self.arrived(event, wanted[event.number])
            self.last_event = event.number


def _small_together(events: list[JobEvent]) -> Iterator[list[JobEvent]]:
    """Events in order, in groups whose blobs fit into one window of chunks; a larger blob is a group of its own."""
    group: list[JobEvent] = []
    for event in events:
        if group and chunks_of(one.size for one in [*group, event]) > WINDOW:
            yield group
            group = []
        group.append(event)
    if group:
        yield group
