"""A job of the backend from the client's side: uploads, submits, fetches results, cancels, and resumes.

`RemoteJob.conversation` shows the order of these steps. `remote_take` and `remote_scene` are the two kinds of job:
they define what is sent and where results go. A job can be interrupted anywhere (a closed Blender, a lost network) and
resumed from its ``key``, ``job`` and ``last_event``: nothing is uploaded, computed or delivered twice.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

from ex4d_core.client import Client
from ex4d_core.conversations import ClientError, Conversation, Pause, RequestRefused, Result, Task, UnexpectedReply
from ex4d_core.errors import RequestError, user_message
from ex4d_core.job_status import MAX_BLOB_BYTES, JobEvent, JobStatus
from ex4d_core.messages import AskSilence, Cancel, EventsReply, GetEvents, Submit, Withdraw
from ex4d_core.safe_files import create_folder
from ex4d_core.scene_manifest import FILE_NAMES, MANIFEST
from ex4d_core.shot import MAX_FRAMES
from ex4d_core.stages import Pace, StageDetails, silence_text, stage_and_eta
from ex4d_core.take_files import ALL_TAKE_FILES, REQUEST_FILE, deep_files_of, frame_file_name
from ex4d_core.transfers import WINDOW, chunks_of, fetch_blobs, names_on_disk, upload_blobs

# What a reconstruction announces. A name from the wire is only ever compared with these, `ALL_TAKE_FILES`, or what a
# take's request makes of a template that is checked; it never becomes a path by itself.
PACKAGE_FILES = (*FILE_NAMES.values(), MANIFEST)

# How long the service may hold back one request for events; shorter than its limit.
_EVENT_WAIT_SECONDS = 5.0
# The service tells progress every quarter of a second.
_QUICKEST_SECONDS = 0.2
# So many answers in a row may bring no new result before the next is asked for no sooner, and so many before a job
# that is over counts as endless. They tell of states, estimates, and what an earlier attempt had.
_QUICK_ANSWERS = 20
_USELESS_ANSWERS = 100
# So often in a row may a job that is over promise events that do not come.
_EMPTY_PROMISES = 8

_OURS = "; is it EX-4D, and of this version?"

Submission = tuple[Mapping[str, Any], Mapping[str, Path | bytes]]


class JobState(str, Enum):
    """The state of a job for the client; .blend files store these values."""

    SENDING = "sending"
    QUEUED = "queued"
    RUNNING = "running"
    FETCHING = "fetching"  # the backend has finished; results are still arriving
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"  # the client cannot continue; resuming tries again
    IMPORTED = "imported"  # a scene that was done and is in the .blend

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens by itself."""
        return self not in (JobState.SENDING, JobState.QUEUED, JobState.RUNNING, JobState.FETCHING)


@dataclass
class RemoteJob:
    """One job, from its submission to its last result or its cancelling.

    Attributes:
        folder: where results are put.
        key: the client's own name of the submission; the same key never makes two jobs.
        job: the backend's name of the job, "" before it is accepted.
        submitted: whether the backend may have the job, although its name never came back.
        last_event: number of the last event that was handled completely.
        cancelling: whether the user cancelled it; `over` tells whether the backend knows.
        over: nothing more will happen on the wire; see `advance`.
        status: the newest `JobStatus`, or None.
        uploaded: bytes sent so far.
        upload_size: bytes to send.
        files: results that have arrived, by name.
        silence: for how long a running job has made no progress, for people; "" while that is normal.
        before_results: called once, before the first result is put into its place.
    """

    folder: Path
    _: KW_ONLY
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    job: str = ""
    submitted: bool = False
    last_event: int = 0
    cancelling: bool = False
    over: bool = field(default=False, init=False)
    status: JobStatus | None = field(default=None, init=False)
    uploaded: int = field(default=0, init=False)
    upload_size: int = field(default=0, init=False)
    files: dict[str, Path] = field(default_factory=dict, init=False)
    before_results: Callable[[], None] | None = field(default=None, init=False, repr=False)
    silence: str = field(default="", init=False)
    _announced: set[tuple[str, str, int]] = field(default_factory=set, init=False, repr=False)
    _useless: int = field(default=0, init=False, repr=False)
    _promised: int = field(default=0, init=False, repr=False)
    # Of more than 8 bits, by the request of a take that has arrived.
    _deep_files: frozenset[str] = field(default=frozenset(), init=False, repr=False)
    # Folders that have got a new one, whose name is not known to be on disk.
    _created: list[Path] = field(default_factory=list, init=False, repr=False)
    _last_progress: tuple[str, int, int] | None = field(default=None, init=False, repr=False)
    _tells_silence: bool = field(default=True, init=False, repr=False)
    _task: Task[JobStatus] | None = field(default=None, init=False, repr=False)
    _cancel_task: Task[None] | None = field(default=None, init=False, repr=False)
    _pace: Pace = field(default_factory=Pace, init=False, repr=False)

    # What users see.

    @property
    def withdrawn(self) -> bool:
        """Whether it was cancelled before the backend had named the job, so that there are no results to wait for."""
        return self.cancelling and not self.job

    @property
    def error(self) -> Exception | None:
        """What ended it early."""
        return self._task.error if self._task is not None and self.over and not self.withdrawn else None

    @property
    def state(self) -> JobState:
        """Its state."""
        if self.withdrawn:
            return JobState.CANCELLED
        if self.error is not None:
            return JobState.STOPPED
        if self.status is None:
            return JobState.SENDING
        state = JobState(self.status.state)
        return JobState.FETCHING if state.is_over and not self.over else state

    @property
    def reason(self) -> str:
        """Why it failed, was cancelled or cannot continue; "" if there is nothing to say."""
        if self.error is not None:
            return user_message(self.error)
        return self.status.reason if self.status is not None else ""

    @property
    def stage(self) -> str:
        """What the backend does while it runs ("denoise (fp8), part 12 of 40"); "" where the state says it all.

        With `silence`, if there is any: "denoise, no progress for 35 s, stopped at 300 s".
        """
        if self.status is None or self.state is JobState.FETCHING:
            return ""
        stage = stage_and_eta(self.status.stage)[0]
        return ", ".join(filter(None, (stage, self.silence))) if self.state is JobState.RUNNING else stage

    @property
    def progress(self) -> float:
        """Progress of the present stage, 0 to 1: the backend's, or that of the upload or download."""
        status = self.status
        if status is None:
            return self.uploaded / self.upload_size if self.upload_size and not self.job else 0.0
        if JobState(status.state).is_over:
            return self.last_event / status.events if status.events else 1.0
        return min(1.0, (status.done + StageDetails.of(status.stage).fraction) / status.total) if status.total else 0.0

    def eta_seconds(self) -> float | None:
        """Seconds until the present stage is over; None while unknown."""
        if self.over:
            return None
        if self.silence:  # then nobody knows
            return None
        reported = stage_and_eta(self.status.stage)[1] if self.status is not None and self.stage else None
        stage = StageDetails.of(self.stage).title or self.state.value
        return self._pace.eta_seconds(time.monotonic(), stage, self.progress, reported)

    # How it is kept going.

    def advance(self, client: Client | None) -> None:
        """Keep the job's conversations going on a client, also on another one than before.

        Call it after each `Client.poll`. A job that was cancelled while the backend was away is cancelled there when
        it is back.

        Args:
            client: the connection; None without one, when nothing can happen.
        """
        if self.cancelling:
            self._cancel_task = _kept(client, self._cancel_task, self.cancel_conversation)
        if self.withdrawn:
            self.over = not self.submitted or (self._cancel_task is not None and self._cancel_task.done)
            return
        self._task = _kept(client, self._task, self.conversation)
        self.over = self._task is not None and self._task.done

    def cancel(self, client: Client | None) -> None:
        """Stop the backend's job, or the sending of it; works while no backend answers, too."""
        if self.over or self.cancelling:
            return
        self.cancelling = True
        if self.withdrawn:
            self.abandon(client)
        self.advance(client)  # the conversation that collects a job's results will hear of its end

    def abandon(self, client: Client | None) -> None:
        """Stop following the job; the backend continues it, unless it was cancelled."""
        if client is not None and self._task is not None and not self._task.done:
            client.stop(self._task)

    # Conversations.

    def conversation(self) -> Conversation[JobStatus]:
        """From the upload to the last result; returns the job's final status."""
        self._created = create_folder(self.results_folder)
        yield from self.submission()
        while True:
            asked = time.monotonic()
            reply = yield from self._fetch_announced(_EVENT_WAIT_SECONDS)
            yield from self._ask_silence(reply)
            if self._has_ended(reply):
                return reply.status
            yield from self._wait_for_news(reply, asked)

    def submission(self) -> Conversation[str]:
        """Upload and submit, unless that is done, without waiting for results; returns the backend's job."""
        if not self.job:
            request, blobs = yield from self.prepare()
            yield from upload_blobs(blobs, self)
            self.submitted = True
            submit = Submit(self.key, dict(request))
            try:
                self.job = (yield submit).job
            except RequestRefused as refused:
                if refused.code not in ("unknown-scene", "unknown-blob"):
                    raise
                # The backend has found a damaged blob, or deleted one, since it said what it has.
                yield from upload_blobs(blobs, self)
                self.job = (yield submit).job
            if not self.job:
                raise UnexpectedReply(f"the backend has accepted {self.key} without a name for the job{_OURS}")
        return self.job

    def cancel_conversation(self) -> Conversation[None]:
        """Ask the backend to stop the job, or the job of a submission that was not answered.

        Like every conversation it waits for a backend that is away. Without a submission it asks nothing.
        """
        if self.job:
            self.status = (yield Cancel(self.job)).status
        elif self.submitted:
            yield Withdraw(self.key)

    def fetch_available(self) -> Conversation[JobStatus]:
        """Fetch what the job has produced so far, without waiting for more; returns its status."""
        self._created = create_folder(self.results_folder)
        while True:
            asked = time.monotonic()
            reply = yield from self._fetch_announced(0.0)
            if self._has_ended(reply) or not reply.events:
                return reply.status
            yield from self._wait_for_news(reply, asked)

    # What the kinds of job decide.

    @property
    def results_folder(self) -> Path:
        """Where results are put while they arrive."""
        return self.folder

    def prepare(self) -> Conversation[Submission]:
        """What to send: the request on the wire, and the blobs that it names by SHA-256 as files or bytes.

        Raises:
            RequestError: this job can only be fetched or cancelled.
        """
        raise RequestError(f"job {self.key} has nothing to send: it needs the backend's name of a job")
        yield []

    def path_for(self, event: JobEvent) -> Path | None:
        """File for an announced result; None for one that is not wanted."""
        if event.size > MAX_BLOB_BYTES:
            return None
        if event.kind == "frame" and 0 <= event.index < MAX_FRAMES:
            return self.results_folder / frame_file_name(event.index)
        if event.kind == "file" and event.name in (*ALL_TAKE_FILES, *PACKAGE_FILES, *self._deep_files):
            return self.results_folder / event.name
        return None

    def arrived(self, event: JobEvent, path: Path) -> None:
        """Note a result that is complete in its file."""
        self.files[event.name or path.name] = path
        if event.name == REQUEST_FILE:
            self._deep_files = frozenset(_deep_files_in(path))

    def _ask_silence(self, reply: EventsReply) -> Conversation[None]:
        """After an announcement of nothing new: hear for how long there was nothing."""
        status = reply.status
        now = (status.stage, status.done, status.total)
        if reply.events or status.state != "running" or now != self._last_progress or not self._tells_silence:
            self._last_progress, self.silence = now, ""
            return
        try:
            jobs = (yield AskSilence()).jobs
        except RequestRefused as refused:
            if refused.code != "bad-message":
                raise
            self._tells_silence = False  # an older service
            return
        self.silence = next((silence_text(one.seconds, one.limit) for one in jobs if one.job == self.job), "")

    def _fetch_announced(self, wait: float) -> Conversation[EventsReply]:
        """Fetch what was announced since the last event; returns the announcement."""
        reply: EventsReply = yield GetEvents(self.job, self.last_event, wait=wait)
        numbers = [self.last_event, *(event.number for event in reply.events)]
        if any(number <= before for before, number in pairwise(numbers)):
            raise UnexpectedReply(f"the backend tells the events of job {self.job} out of order: {numbers[:5]}{_OURS}")
        self.status = reply.status
        # An estimate is of interest until the next one; a client that comes late need not fetch them all.
        newest = max((event.number for event in reply.events if event.kind == "estimate"), default=0)
        wanted = [event for event in reply.events if event.kind != "estimate" or event.number == newest]
        new: set[tuple[str, str, int]] = set()
        for events in _small_together(wanted):
            paths = {event.number: path for event in events if (path := self.path_for(event)) is not None}
            if paths and self.before_results is not None:
                self.before_results()
                self.before_results = None
            yield from fetch_blobs([(one.sha256, one.size, paths[one.number]) for one in events if one.number in paths])
            for event in events:
                if event.number in paths:
                    self.arrived(event, paths[event.number])
            # Shown already; after a power cut it is fetched again if its name was lost.
            yield from names_on_disk([*self._created, *(path.parent for path in paths.values())])
            self._created = []
            self.last_event = events[-1].number
            results = {(one.kind, one.name, one.index) for one in events if one.number in paths}
            new |= {one for one in results if one[0] != "estimate"} - self._announced
        self._announced |= new
        self._useless = 0 if new else self._useless + 1
        if reply.events:
            self.last_event = reply.events[-1].number
        return reply

    def _has_ended(self, reply: EventsReply) -> bool:
        """Whether a job is over, and all that it announced was fetched.

        Raises:
            UnexpectedReply: it is over, but does not come to an end.
        """
        status = reply.status
        if not JobState(status.state).is_over:
            return False
        if not reply.events and status.events <= self.last_event:
            return True
        self._promised = self._promised or status.events
        kept = status.events <= self._promised and self.last_event <= self._promised
        if not kept or self._useless > (_USELESS_ANSWERS if reply.events else _EMPTY_PROMISES):
            text = f"the backend says that job {self.job} is {status.state}, and announces more without end"
            raise UnexpectedReply(text + _OURS)
        return False

    def _wait_for_news(self, reply: EventsReply, asked: float) -> Conversation[None]:
        """Wait a moment after a reply without news: a backend that does not hold it back must not keep us busy."""
        early = asked + _QUICKEST_SECONDS - time.monotonic()
        if early > 0 and (not reply.events or self._useless > _QUICK_ANSWERS):
            yield Pause(early)


def _deep_files_in(request: Path) -> tuple[str, ...]:
    """What the stored request of a take says of files of more than 8 bits."""
    try:
        values = json.loads(request.read_bytes())
        frames = values["camera"]["frames"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ()
    return deep_files_of(values, frames) if isinstance(frames, int) and 0 < frames <= MAX_FRAMES else ()


def _kept(
    client: Client | None, task: Task[Result] | None, conversation: Callable[[], Conversation[Result]]
) -> Task[Result] | None:
    """The task; a new one if it has not begun, or its connection was closed."""
    if task is not None and not isinstance(task.error, ClientError):
        return task
    return None if client is None else client.start(conversation())


def _small_together(events: list[JobEvent]) -> Iterator[list[JobEvent]]:
    """Events in order, in groups whose blobs fit into one window of chunks; a larger blob is a group of its own.

    A take's request ends its group: it says which other files there are.
    """
    group: list[JobEvent] = []
    for event in events:
        if group and chunks_of(one.size for one in [*group, event]) > WINDOW:
            yield group
            group = []
        group.append(event)
        if event.name == REQUEST_FILE:
            yield group
            group = []
    if group:
        yield group
