"""Views as the front sees them: one viewer process, started when it is needed, and the newest wish of each client.

See `backend.service.viewer` for the process. It is apart from the workers so that an artist who drags a keyframe sees
the new view at once, whatever is being generated.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
import time
from collections import OrderedDict
from functools import partial
from typing import Any

from backend.service.inbox import Inbox
from backend.service.processes import read_message, start_process, write_message
from backend.service.refusal import Refusal
from backend.service.settings import ServiceSettings
from backend.service.uploads import Answer
from ex4d_core.messages import View

log = logging.getLogger(__name__)

# The first view waits for torch to be imported, later ones take milliseconds.
_PATIENCE_SECONDS = 120.0
_FOREVER_SECONDS = 3600.0


class Views:
    """Keeps the viewer busy with what clients wish to see; to be used on the service's loop only."""

    def __init__(self, settings: ServiceSettings, inbox: Inbox):
        self._settings = settings
        self._inbox = inbox
        self._process: subprocess.Popen | None = None
        self._waiting: OrderedDict[bytes, tuple[dict[str, Any], Answer]] = OrderedDict()
        self._current: Answer | None = None
        self._since = 0.0

    def ask(self, client: bytes, request: dict[str, Any], answer: Answer) -> None:
        """Have a view made; an earlier wish of this client that still waits is dropped."""
        superseded = self._waiting.pop(client, None)
        if superseded:
            superseded[1](Refusal("superseded", "a newer view was asked for").message())
        self._waiting[client] = request, answer
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
        _, (request, self._current) = self._waiting.popitem(last=False)
        self._since = time.monotonic()
        # A dead viewer cannot be written to; its end is on the way to us.
        with contextlib.suppress(OSError):
            write_message(self._process.stdin, request)

    def _start(self) -> None:
        options = {"data": str(self._settings.data), "device": self._settings.devices[0]}
        with open(self._settings.data / "logs" / "viewer.log", "ab") as errors:
            self._process = start_process("backend.service.viewer", options, self._settings.data, errors)
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
        self._answer(View(**message) if error is None else Refusal("bad-request", error).message())

    def _ended(self, process: subprocess.Popen) -> None:
        process.stdin.close()
        process.stdout.close()
        self._process = None
        if self._current is not None:
            log.warning("the viewer ended with code %s while it made a view", process.returncode)
            text = "the viewer stopped in the middle of this view; ask again, or see logs/viewer.log of the backend"
            self._answer(Refusal("internal", text).message())

    def _answer(self, message) -> None:
        answer, self._current = self._current, None
        answer(message)
        self._next()
