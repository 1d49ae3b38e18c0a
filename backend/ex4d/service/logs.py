"""The logs of the service and its processes: harmless text, and bounds on lines a minute and on bytes."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from ex4d_core.plain_text import plain_lines

# A busy service writes three lines for each job.
_LINES_A_MINUTE = 600
# A line has a job's label or the start of a reason, and a traceback some 30 lines.
_MAX_LETTERS = 8000
# A file gets this many bytes; `kept_log` keeps as many of those before them.
_MAX_BYTES = 1_000_000
LOG_FORMATS = ("text", "json")
# What stands for a value in a message.
_PLACES = re.compile(r"%[-+ #0-9.]*[a-zA-Z]")
_FORM = "%(asctime)s %(levelname)s %(message)s"
_REST = "this file is full; further lines are in logs/service.log of the data folder"


class PlainFormatter(logging.Formatter):
    """Formats lines that no label can forge: what follows a line break is indented, and nothing acts on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as text, with its traceback."""
        return _cut(plain_lines(super().format(record))).replace("\n", "\n    ")


class JsonFormatter(logging.Formatter):
    """Formats each record as one line of JSON, with the job that it is about.

    That is the job whose id a line of ours names ("job %s ..."), or else the one that this process works on: no text of
    a user can name another.
    """

    def format(self, record: logging.LogRecord) -> str:
        """A record as a line; ASCII, so that nothing in it acts on a terminal."""
        when = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname, "logger": record.name, "process": record.process}
        if job := _job_of(record):
            line["job"] = job
        line["message"] = _cut(record.getMessage())
        if record.exc_info:
            line["traceback"] = _cut(self.formatException(record.exc_info))
        return json.dumps(line)


def _job_of(record: logging.LogRecord) -> str:
    before, named, _ = str(record.msg).partition("job %s")
    place = len(_PLACES.findall(before))
    if named and isinstance(record.args, tuple) and place < len(record.args):
        return str(record.args[place])
    return _work.job


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_LETTERS else f"{text[:_MAX_LETTERS]}... ({len(text)} characters)"


@dataclass
class _Work:
    """What this process does: the job it works on, and the format of its log."""

    job: str = ""
    log_format: str = "text"


_work = _Work()


@contextmanager
def working_on(job: str) -> Iterator[None]:
    """During the block this process's lines are about a job."""
    _work.job = job
    try:
        yield
    finally:
        _work.job = ""


def log_format() -> str:
    """The format of this process's log, one of `LOG_FORMATS`."""
    return _work.log_format


def message_of(line: str) -> str:
    """What a line of a log says, in either format."""
    if line.startswith("{"):
        with suppress(ValueError, TypeError, KeyError):
            found = json.loads(line)
            return "\n".join(filter(None, (str(found["message"]), str(found.get("traceback", "")))))
    return line


class LineLimit(logging.Filter):
    """Leaves out what is more than some hundred lines a minute: a client that errs in a loop must not fill the disk."""

    def __init__(self, lines: int = _LINES_A_MINUTE):
        """Let so many lines through in each minute."""
        super().__init__()
        self._lines, self._since, self._count = lines, time.monotonic(), 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written; the last one says that others are not."""
        now = time.monotonic()
        if now - self._since >= 60:
            self._since, self._count = now, 0
        self._count += 1
        if self._count == self._lines:
            record.msg, record.args = f"{record.getMessage()} (further lines of this minute are left out)", ()
        return self._count <= self._lines


class BoundedStreamHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream; where somebody has redirected that into a file, as Blender does, the file stays short.

    Its writer cannot rename it, so it is full one day: a last line says where the others are. Once somebody has emptied
    it, it is written again.
    """

    def __init__(self, stream: TextIO):
        """For standard error."""
        super().__init__(stream)
        self._full = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless the file is full."""
        if self._file_bytes() < _MAX_BYTES:
            self._full = False
            super().emit(record)
        elif not self._full:
            self._full = True
            super().emit(logging.LogRecord(record.name, logging.WARNING, "", 0, _REST, None, None))

    def _file_bytes(self) -> int:
        """Bytes of the file that the stream is; 0 for a terminal, a pipe or a journal."""
        try:
            status = os.fstat(self.stream.fileno())
        except (OSError, ValueError):
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0


class _KeptLog(logging.handlers.RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Go on: on a full disk the other log has the line."""


@contextmanager
def kept_log(folder: Path) -> Iterator[None]:
    """During the block this process's log is also in ``service.log``, and what went before in ``service.log.1``."""
    with suppress(OSError):  # on a full disk
        folder.mkdir(exist_ok=True)
    handler = _KeptLog(
        folder / "service.log", maxBytes=_MAX_BYTES, backupCount=1, encoding="utf-8", errors="replace", delay=True
    )
    handler.setFormatter(_formatter(_FORM))
    handler.addFilter(LineLimit())
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def start_log(handler: logging.Handler, level: int, form: str = _FORM, log_format: str = "text") -> None:
    """Write this process's log to a handler; that of the processes that it starts has the same format."""
    _work.log_format = log_format
    handler.setFormatter(_formatter(form))
    handler.addFilter(LineLimit())
    logging.basicConfig(level=level, handlers=[handler])


def _formatter(form: str) -> logging.Formatter:
    return JsonFormatter() if _work.log_format == "json" else PlainFormatter(form)
