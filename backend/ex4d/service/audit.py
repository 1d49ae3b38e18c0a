"""`Audit`: who did what on a service, one line of JSON each in ``logs/audit.log``.

A line has the time, what was done (``event``) and the ``user``, and what it was done to. Everything but ASCII is
escaped, so nothing that a client sends can begin a line or act on a terminal. Chunks of files are counted, and the
counts written once a minute; a user who does more than some hundred things a minute gets a count for the rest.
"""

from __future__ import annotations

import json
import logging.handlers
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from ex4d_core.plain_text import plain_line, shortened

# Of each file, and the number of files before the present one: months of a busy studio.
_MAX_BYTES = 5_000_000
_FILES_BEFORE = 10
_MAX_TEXT = 200
_LINES_A_MINUTE = 300
_MINUTE = 60.0

# What is counted in a minute: the user, the event, and the name of the count.
_Counts = defaultdict[tuple[str, str], dict[str, int]]


class _AuditFile(logging.handlers.RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Go on: on a full disk there is no line, and the service must not end for that."""


class Audit:
    """Writes the audit log; for any thread, one line after the other."""

    def __init__(
        self,
        logs: Path | None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        counted: Callable[[str, str, dict[str, int]], None] = lambda event, user, amounts: None,
    ):
        """Append to the log of a folder.

        Args:
            logs: the folder of logs; None for no log.
            clock: seconds since any moment, without jumps.
            wall_clock: seconds since 1970.
            counted: gets what `count` gets.
        """
        self._counted = counted
        self._clock, self._wall_clock = clock, wall_clock
        self._since = clock()
        self._lines: defaultdict[str, int] = defaultdict(int)
        self._counts: _Counts = defaultdict(dict)
        self._file = None
        if logs is not None:
            with suppress(OSError):  # on a full disk
                logs.mkdir(exist_ok=True)
            self._file = _AuditFile(
                logs / "audit.log", maxBytes=_MAX_BYTES, backupCount=_FILES_BEFORE, encoding="ascii", delay=True
            )

    def record(self, event: str, user: str, **about: str | int | float | None) -> None:
        """Write that a user did something.

        Args:
            event: what: "submit", "cancel", ...
            user: the name of their key; "" where all are one user.
            about: further fields; texts are cut to 200 characters.
        """
        self.flush_due()
        self._lines[user] += 1
        if self._lines[user] <= _LINES_A_MINUTE:
            self._write(event, user, about)
        else:
            self.count("left out", user, lines=1)

    def count(self, event: str, user: str, **amounts: int) -> None:
        """Add to what is written about a user once a minute."""
        self._counted(event, user, amounts)
        counts = self._counts[user, event]
        for name, amount in amounts.items():
            counts[name] = counts.get(name, 0) + amount
        self.flush_due()

    def flush_due(self) -> None:
        """Write the counts of a minute that is over."""
        if self._clock() - self._since >= _MINUTE:
            self.flush()

    def flush(self) -> None:
        """Write the counts so far, and begin new ones."""
        counts, self._counts = self._counts, defaultdict(dict)
        self._since = self._clock()
        self._lines.clear()
        for (user, event), amounts in counts.items():
            self._write(event, user, amounts)

    def close(self) -> None:
        """Write what is counted, and close the file."""
        self.flush()
        if self._file:
            self._file.close()

    def _write(self, event: str, user: str, about: object) -> None:
        assert isinstance(about, dict)
        if self._file is None:
            return
        when = datetime.fromtimestamp(self._wall_clock(), timezone.utc).isoformat(timespec="milliseconds")
        told = {name: _plain(value) for name, value in about.items()}
        line = json.dumps({"time": when, "event": event, "user": user, **told}, ensure_ascii=True)
        self._file.emit(logging.makeLogRecord({"msg": "%s", "args": (line,)}))


def _plain(value: object) -> object:
    return shortened(plain_line(value), _MAX_TEXT) if isinstance(value, str) else value
