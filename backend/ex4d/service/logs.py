"""The format of the logs of the service and its processes: harmless text, and a bound on lines a minute."""

from __future__ import annotations

import logging
import time

from ex4d_core.plain_text import plain_lines

# A busy service writes three lines for each job.
_LINES_A_MINUTE = 600
# A line has a job's label or the start of a reason, and a traceback some 30 lines.
_MAX_LETTERS = 8000


class PlainFormatter(logging.Formatter):
    """Formats lines that no label can forge: what follows a line break is indented, and nothing acts on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as text, with its traceback."""
        text = plain_lines(super().format(record))
        if len(text) > _MAX_LETTERS:
            text = f"{text[:_MAX_LETTERS]}... ({len(text)} characters)"
        return text.replace("\n", "\n    ")


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


def start_log(handler: logging.Handler, level: int, form: str = "%(asctime)s %(levelname)s %(message)s") -> None:
    """Write this process's log to a handler."""
    handler.setFormatter(PlainFormatter(form))
    handler.addFilter(LineLimit())
    logging.basicConfig(level=level, handlers=[handler])
