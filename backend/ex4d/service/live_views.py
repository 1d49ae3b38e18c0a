"""`LiveViewQueue`: hands the clients' requests for live views and coverage to one live view process.

Of each kind and client only the newest request counts, and users take turns. The process (see
`ex4d.service.live_view_process`) is apart from the workers, so that an artist who drags a keyframe sees the result at
once, whatever is being generated. It computes the coverage of a shot in parts: a view waits for one of them at most,
and a newer request replaces an older one halfway. Idle workers of a cluster compute parts of a long shot, too.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil

from ex4d.service.coverage_parts import CoverageHelpers, CoverageParts, Values
from ex4d.service.inbox import Inbox
from ex4d.service.processes import ChildProcess, read_messages, shorten_log, write_message
from ex4d.service.refusals import Refusal
from ex4d.service.settings import ServiceSettings
from ex4d.service.uploads import Answer
from ex4d_core.messages import Message
from ex4d_core.shot import ShotRequest
from ex4d_core.view_messages import View

log = logging.getLogger(__name__)

# The first view waits for torch to be imported, later ones take milliseconds.
_TIMEOUT_SECONDS = 120.0
_LOOK_SECONDS = 0.5
_TRIES = 2
_IDLE_SECONDS = 3600.0
# Frames of all requests that wait, of all clients: 200 bytes each. The longest request has 100,000.
_MAX_WAITING_FRAMES = 300_000


@dataclass
class ViewRequest:
    """A client's request; ``coverage`` is None for a view, else has the values so far; ``part`` is in the process."""

    client: bytes
    user: str
    request_id: int
    request: ShotRequest
    answer: Answer
    coverage: CoverageParts | None = None
    part: range = range(0)
    tries: int = 0

    @property
    def key(self) -> tuple[bytes, bool]:
        """Of two requests with one key the newer one counts."""
        return self.client, self.coverage is None

    def next_message(self) -> dict[str, Any]:
        """What the process is asked next."""
        if self.coverage is None:
            return {"user": self.user, "view": self.request.to_wire()}
        self.part = self.coverage.take()
        return self.message_of(self.part)

    def message_of(self, part: range) -> dict[str, Any]:
        """What is asked about some frames' coverage."""
        return {"user": self.user, "coverage": self.request.part(part.start, part.stop).to_wire(), "index": part.start}

    def reply_to(self, result: dict[str, Any]) -> Message | None:
        """The client's reply; None while parts of it are missing."""
        if self.coverage is None:
            return View(**result)
        self.coverage.put(self.part.start, result)
        return self.coverage.reply()


class LiveViewQueue:
    """Keeps the live view process busy; to be used on the service's loop only."""

    def __init__(self, settings: ServiceSettings, inbox: Inbox, helpers: CoverageHelpers | None = None):
        """Without a process, which starts at the first request.

        Args:
            settings: of the service.
            inbox: of its loop.
            helpers: compute parts of long shots' coverage, too.
        """
        self._helpers = helpers
        self._settings = settings
        self._inbox = inbox
        self._process: ChildProcess | None = None
        self._log = settings.data / "logs" / "live-view.log"
        self._waiting: OrderedDict[tuple[bytes, bool], ViewRequest] = OrderedDict()
        self._current: ViewRequest | None = None
        # Who had a turn, the last one last.
        self._turns: OrderedDict[str, None] = OrderedDict()
        self._since = 0.0
        self._activity: float | None = None
        self._active_at = 0.0

    def ask_view(self, client: bytes, user: str, request_id: int, request: ShotRequest, answer: Answer) -> None:
        """Render a view; drops a waiting request for a view of this client."""
        self._add(ViewRequest(client, user, request_id, request, answer))

    def ask_coverage(self, client: bytes, user: str, request_id: int, request: ShotRequest, answer: Answer) -> None:
        """Compute the coverage of a shot; drops a request for coverage of this client, even halfway."""
        parts = CoverageParts(len(request.camera))
        self._add(ViewRequest(client, user, request_id, request, answer, parts))

    def tick(self) -> float:
        """Kill a process that hangs; returns the seconds until the next call is due."""
        if self._current is None or self._process is None:
            return _IDLE_SECONDS
        now = time.monotonic()
        activity = _activity(self._process.pid)
        if activity is None or activity != self._activity:
            self._activity, self._active_at = activity, now
        if now - self._active_at >= self._settings.stalled_view_seconds or now - self._since >= _TIMEOUT_SECONDS:
            log.warning("live view process %d hangs; it is replaced", self._process.pid)
            self._process.kill()
            return 1.0
        return _LOOK_SECONDS

    def stop(self) -> None:
        """Kill the process."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def _add(self, added: ViewRequest) -> None:
        known = [one for one in (self._current, self._waiting.get(added.key)) if one is not None]
        if any((one.key, one.request_id) == (added.key, added.request_id) for one in known):
            return  # the client sent the same request again, which is in progress
        superseded = self._waiting.pop(added.key, None)
        if superseded:
            _supersede(superseded)
        self._waiting[added.key] = added
        while self._waiting_frames().total() > _MAX_WAITING_FRAMES:
            # Of whoever has the most, so that nobody loses a request to another.
            [(user, _)] = self._waiting_frames().most_common(1)
            _supersede(self._pop_oldest(user))
        self._deal_out(added)
        self._next()

    def _deal_out(self, request: ViewRequest) -> None:
        """Have idle workers elsewhere compute the end of a long shot's coverage."""
        parts, helpers = request.coverage, self._helpers
        while helpers and parts and helpers.free() and (part := parts.take_elsewhere()):
            helpers.cover(request.message_of(part), partial(self._helped, request, part.start))

    def _helped(self, request: ViewRequest, start: int, values: Values) -> None:
        waits = self._waiting.get(request.key) is request
        if request.coverage is None or not (waits or self._current is request):
            return  # answered or replaced meanwhile
        request.coverage.put(start, values)
        if waits and (reply := request.coverage.reply()):
            del self._waiting[request.key]
            request.answer(reply)
            return
        self._deal_out(request)

    def _waiting_frames(self) -> Counter[str]:
        frames: Counter[str] = Counter()
        for one in self._waiting.values():
            frames[one.user] += len(one.request.camera)
        return frames

    def _pop_oldest(self, user: str) -> ViewRequest:
        return self._waiting.pop(next(key for key, one in self._waiting.items() if one.user == user))

    def _pop_next(self) -> ViewRequest:
        """The oldest request of a user without a turn yet, or else of the one whose turn was the longest ago."""
        waiting = dict.fromkeys(one.user for one in self._waiting.values())
        user = next((user for user in waiting if user not in self._turns), None)
        if user is None:
            user = next(user for user in self._turns if user in waiting)
        self._turns[user] = None
        self._turns.move_to_end(user)
        return self._pop_oldest(user)

    def _next(self) -> None:
        if self._current is not None or not self._waiting:
            return
        if self._process is None:
            options = {"data": str(self._settings.data), "device": self._settings.devices[0]}
            options["machine"] = self._settings.machine.to_json()
            self._process = ChildProcess("ex4d.service.live_view_process", options, self._settings.data, self._log)
            log.info("live view process %d started", self._process.pid)
            threading.Thread(target=self._listen, args=(self._process,), name="live views", daemon=True).start()
        self._current = self._pop_next()
        self._current.tries += 1
        self._since = self._active_at = time.monotonic()
        # A dead process cannot be written to; its end is on the way to us.
        with contextlib.suppress(OSError):
            write_message(self._process.input, self._current.next_message())

    def _listen(self, process: ChildProcess) -> None:
        """In a thread: pass on the results of a process, and its end."""
        for result in read_messages(process.output):
            self._inbox.post(partial(self._received, result))
        process.wait()
        self._inbox.post(partial(self._ended, process))

    def _received(self, result: dict[str, Any]) -> None:
        current = self._current
        assert current is not None, "the process answers each request once"
        if "error" in result:
            shorten_log(self._log)  # each error is a page in it, and somebody may be dragging a camera
            self._answer(Refusal(*result["error"]).message())
        elif reply := current.reply_to(result):
            self._answer(reply)
        else:
            self._current, current.tries = None, 0
            if current.key in self._waiting:
                _supersede(current)
            else:
                self._waiting[current.key] = current
            self._next()

    def _ended(self, process: ChildProcess) -> None:
        process.close()
        self._process = None
        current = self._current
        if current is not None and current.tries < _TRIES:
            log.warning("the live view process ended with code %s during a view; trying again", process.returncode)
            self._current = None
            if current.key in self._waiting:
                _supersede(current)
            else:
                self._waiting[current.key] = current
                self._waiting.move_to_end(current.key, last=False)
            self._next()
        elif current is not None:
            log.warning("the live view process ended with code %s during a view", process.returncode)
            text = "the live view process ended during this view; try again, or see logs/live-view.log of the backend"
            self._answer(Refusal("internal", text).message())

    def _answer(self, message: Message) -> None:
        current, self._current = self._current, None
        if current is not None:
            current.answer(message)
        self._next()


def _activity(pid: int) -> float | None:
    """Processor seconds that a process has used; None while it waits for a disk, or has ended."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_DISK_SLEEP:
            return None
        times = process.cpu_times()
        return times.user + times.system
    except psutil.Error:
        return None


def _supersede(request: ViewRequest) -> None:
    request.answer(Refusal("superseded", "a newer request replaced this one").message())
