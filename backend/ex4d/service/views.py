"""Views and coverage as the front sees them: one viewer process, and the newest wish of each kind of each client.

See `ex4d.service.viewer` for the process. The coverage of a shot is made in pieces, so that a view never waits for
more than one of them, and a newer wish ends an older one in the middle. The process is apart from the workers so that
an artist who drags a keyframe sees what comes of it at once, whatever is being generated.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ex4d.service.inbox import Inbox
from ex4d.service.processes import read_message, shorten_log, start_process, write_message
from ex4d.service.refusal import Refusal
from ex4d.service.settings import ServiceSettings
from ex4d.service.uploads import Answer
from ex4d_core.messages import Coverage, Message, View
from ex4d_core.shot import ShotRequest

log = logging.getLogger(__name__)

# The first view waits for torch to be imported, later ones take milliseconds.
_PATIENCE_SECONDS = 120.0
_FOREVER_SECONDS = 3600.0


# Frames of coverage at a time: about as long as one view of full size takes.
_PIECE = 8


@dataclass
class _Wish:
    """What a client wishes to see; ``coverage`` is None for a view, else what is known of it so far."""

    client: bytes
    request_id: int
    request: ShotRequest
    answer: Answer
    coverage: dict[str, list[float]] | None = None

    @property
    def key(self) -> tuple[bytes, bool]:
        """Of two wishes of one key the newer one counts."""
        return self.client, self.coverage is None

    def piece(self) -> dict[str, Any]:
        """What the viewer is asked next."""
        if self.coverage is None:
            return {"view": self.request.to_wire()}
        start = len(self.coverage["seen"])
        camera = self.request.camera.frames(start, start + _PIECE)
        part = replace(self.request, camera=camera, first_frame=self.request.first_frame + start)
        return {"coverage": part.to_wire(), "index": start}

    def take(self, made: dict[str, Any]) -> Message | None:
        """The answer, once the viewer's last piece is there."""
        if self.coverage is None:
            return View(**made)
        for name, values in made.items():
            self.coverage[name] += values
        return Coverage(**self.coverage) if len(self.coverage["seen"]) >= len(self.request.camera) else None


class Views:
    """Keeps the viewer busy with what clients wish to see; to be used on the service's loop only."""

    def __init__(self, settings: ServiceSettings, inbox: Inbox):
        self._settings = settings
        self._inbox = inbox
        self._process: subprocess.Popen | None = None
        self._log = settings.data / "logs" / "viewer.log"
        self._waiting: OrderedDict[tuple[bytes, bool], _Wish] = OrderedDict()
        self._current: _Wish | None = None
        self._since = 0.0

    def ask(self, client: bytes, request_id: int, request: ShotRequest, answer: Answer) -> None:
        """Have a view made; an earlier wish of this client that still waits is dropped."""
        self._wish(_Wish(client, request_id, request, answer))

    def ask_coverage(self, client: bytes, request_id: int, request: ShotRequest, answer: Answer) -> None:
        """Have a shot's coverage made; an earlier wish for coverage of this client is dropped, even half made."""
        self._wish(_Wish(client, request_id, request, answer, {"seen": [], "view_angle": []}))

    def _wish(self, wish: _Wish) -> None:
        known = [one for one in (self._current, self._waiting.get(wish.key)) if one is not None]
        if any((one.key, one.request_id) == (wish.key, wish.request_id) for one in known):
            return  # the client lost patience and asked the same again; it is being made
        superseded = self._waiting.pop(wish.key, None)
        if superseded:
            _supersede(superseded)
        self._waiting[wish.key] = wish
        self._next()

    def tick(self) -> float:
        """End a viewer that hangs; returns the seconds until this is worth calling again."""
        if self._current is None:
            return _FOREVER_SECONDS
        left = self._since + _PATIENCE_SECONDS - time.monotonic()
        if left <= 0:
            self._process.kill()
        return max(left, 1.0)

    def stop(self) -> None:
        """End the viewer."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def _next(self) -> None:
        if self._current is not None or not self._waiting:
            return
        if self._process is None:
            self._start()
        _, self._current = self._waiting.popitem(last=False)
        self._since = time.monotonic()
        # A dead viewer cannot be written to; its end is on the way to us.
        with contextlib.suppress(OSError):
            write_message(self._process.stdin, self._current.piece())

    def _start(self) -> None:
        options = {"data": str(self._settings.data), "device": self._settings.devices[0]}
        options["machine"] = self._settings.machine.to_json()
        shorten_log(self._log)
        with open(self._log, "ab") as errors:
            self._process = start_process("ex4d.service.viewer", options, self._settings.data, errors)
        log.info("viewer started as process %d", self._process.pid)
        threading.Thread(target=self._listen, args=(self._process,), name="viewer", daemon=True).start()

    def _listen(self, process: subprocess.Popen) -> None:
        """In a thread: pass on the viewer's pictures, and then its end."""
        while (message := read_message(process.stdout)) is not None:
            self._inbox.post(partial(self._made, message))
        process.wait()
        self._inbox.post(partial(self._ended, process))

    def _made(self, message: dict[str, Any]) -> None:
        error = message.get("error")
        if error is not None:
            shorten_log(self._log)  # each error is a page in it, and somebody may be dragging a camera
            self._answer(Refusal("bad-request", error).message())
        elif (reply := self._current.take(message)) is not None:
            self._answer(reply)
        else:
            unfinished, self._current = self._current, None
            if unfinished.key in self._waiting:
                _supersede(unfinished)
            else:
                self._waiting[unfinished.key] = unfinished
            self._next()

    def _ended(self, process: subprocess.Popen) -> None:
        process.stdin.close()
        process.stdout.close()
        self._process = None
        if self._current is not None:
            log.warning("the viewer ended with code %s while it made a view", process.returncode)
            text = "the viewer stopped in the middle of this view; ask again, or see logs/viewer.log of the backend"
            self._answer(Refusal("internal", text).message())

    def _answer(self, message: Message) -> None:
        wish, self._current = self._current, None
        wish.answer(message)
        self._next()


def _supersede(wish: _Wish) -> None:
    wish.answer(Refusal("superseded", "a newer view was asked for").message())
