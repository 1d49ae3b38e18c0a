"""What a command tells its user: results on stdout, notes and progress on stderr, or one JSON document (--json).

Every verb gets a `Report`. In text mode results are printed as they come; with --json everything is kept, and printed
as one document when the verb ends, whatever its end (docs/how-to/command-line.md has the schema).
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ex4d_core import __version__
from ex4d_core.plain_text import plain_json, plain_line, plain_lines
from ex4d_core.stages import StageDetails

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ex4d.progress import Progress

# Without a terminal: how often a log says how far the work is, at least.
LOG_SECONDS = 60.0
_PIPE_WIDTH = 160


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every verb has."""
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print the result as one JSON document")
    level = output.add_mutually_exclusive_group()
    level.add_argument("-q", "--quiet", action="store_true", help="no notes and no progress, only results and errors")
    level.add_argument("-v", "--verbose", action="store_true", help="also print details, and a traceback on errors")


class Report:
    """Results, notes and progress of one command."""

    def __init__(
        self,
        verb: str,
        *,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        log_seconds: float = LOG_SECONDS,
    ) -> None:
        """Report on a run of `verb`; the flags are those of `add_report_arguments`."""
        self.verb, self.as_json, self.quiet, self.verbose = verb, as_json, quiet, verbose
        self._log_seconds = log_seconds
        self.result: dict[str, Any] = {}
        self.notes: list[str] = []
        self._announced = False
        self._part = ""

    @staticmethod
    def of(verb: str, options: argparse.Namespace) -> Report:
        """The report that parsed options ask for."""
        return Report(verb, as_json=options.json, quiet=options.quiet, verbose=options.verbose)

    def add(self, name: str, value: Any, text: str | None = None) -> None:
        """One result: a line `name  value` on stdout, a field of the document's `result` with --json.

        Args:
            name: snake_case; its underscores are spaces for people.
            value: what JSON can hold, or a path.
            text: for people, in place of the value; "" prints nothing.
        """
        name += self._part
        self.result[name] = value
        shown = str(value) if text is None else text
        if shown:
            self.say(f"{name.replace('_', ' '):10} {shown}")

    @contextmanager
    def of_part(self, ending: str) -> Iterator[None]:
        """Let the names of results have an ending, of one of several things that are made alike; "" of the only one."""
        self._part = ending
        try:
            yield
        finally:
            self._part = ""

    def show(self, *renderables: RenderableType) -> None:
        """Print tables or text for people; with --json nothing, since `result` holds the same."""
        if not self.as_json:
            console = plain_console()
            for renderable in renderables:
                console.print(plain_lines(renderable) if isinstance(renderable, str) else renderable)

    def say(self, text: str) -> None:
        """Print a line for people on stdout; with --json nothing."""
        if not self.as_json:
            print(plain_lines(text), flush=True)

    def note(self, text: str) -> None:
        """Tell something that the user should know: on stderr, and in the document's `notes`."""
        self.notes.append(text)
        if not self.as_json and not self.quiet:
            print(f"note: {plain_line(text)}", file=sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        """Tell something on stderr that only --verbose asks for."""
        if self.verbose:
            print(plain_lines(text), file=sys.stderr, flush=True)

    @contextmanager
    def stages(self) -> Iterator[Progress]:
        """A progress callback (see `ex4d.progress`): bars at a terminal, else a line for each stage and each minute."""
        if self.quiet:
            yield lambda stage, done, total: None
        elif sys.stderr.isatty():
            with _stage_bars() as progress:
                yield progress
        else:
            with _stage_log(self.verb, self._log_seconds) as progress:
                yield progress

    def finish(self, exit_code: int, error: str = "") -> None:
        """Print the error, or with --json the document: once, at the end of the command."""
        if not self.as_json:
            if error:
                print(f"ex4d {self.verb}: {plain_lines(error)}", file=sys.stderr)
            return
        document = {
            "ex4d": __version__,
            "verb": self.verb,
            "exit_code": exit_code,
            "error": error or None,
            "notes": self.notes,
            "result": self.result,
        }
        print(plain_json(json.dumps(document, indent=1, ensure_ascii=False, default=plain_value)))


def plain_value(value: Any) -> Any:
    """What JSON does not know: paths, dataclasses as mappings, numpy's numbers and arrays, fractions."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    return float(value) if hasattr(value, "__float__") else str(value)


def plain_console() -> Console:
    """A console for tables and text, which are printed as they are: labels, paths and reasons may hold brackets.

    What goes into a file or another program is broken late, unless COLUMNS says where.
    """
    import os

    from rich.console import Console

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            raise  # as print() does; rich itself would exit with code 1

    console = PlainConsole(markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


@contextmanager
def _stage_bars() -> Iterator[Progress]:
    """Bars on stderr, which appear with the first step: an error before it should stand alone."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    described = TextColumn("{task.description:12}", markup=False)
    bars = Bars(described, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True))
    tasks = {}

    def report(stage: str, done: int, total: int) -> None:
        if not tasks:
            bars.start()
        details = StageDetails.of(stage)
        if details.title not in tasks:
            tasks[details.title] = bars.add_task(details.title)
        bars.update(tasks[details.title], completed=done + details.fraction, total=total or None)

    try:
        yield report
    finally:
        if tasks:
            bars.stop()


@contextmanager
def _stage_log(verb: str, seconds: float) -> Iterator[Progress]:
    """Lines on stderr: the start and the end of each stage, and in between one every so many seconds, steps or not."""
    log = _StageLog(verb)
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(seconds):
            log.tell()

    # Apart from the work, since a single step of a large model may take minutes.
    thread = threading.Thread(target=tick, name="progress log", daemon=True)
    thread.start()
    try:
        yield log.report
    finally:
        ended.set()
        thread.join()


class _StageLog:
    """Where each stage is, and the lines about it."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self._stages: dict[str, tuple[float, int, int]] = {}  # when it began, steps done, steps in all
        self._current = StageDetails("")

    def report(self, stage: str, done: int, total: int) -> None:
        self._current = StageDetails.of(stage)
        known = self._stages.get(self._current.title)
        self._stages[self._current.title] = (known[0] if known else time.monotonic(), done, total)
        ended = total and done >= total and not (known and known[1] >= known[2] > 0)
        if known is None or ended:
            self.tell()

    def tell(self) -> None:
        now = self._current
        if not now.name:
            return
        began, done, total = self._stages[now.title]
        parts = [f"{now.title} {done}/{total}" if total else f"{now.title} {done or ''}".rstrip()]
        if now.parts:
            parts.append(f"part {now.part} of {now.parts}")
        if total and 0 < (done := done + now.fraction) < total:
            left = round((time.monotonic() - began) * (total - done) / done)
            parts += [f"ETA {timedelta(seconds=left)}"] if left else []
        print(f"{datetime.now():%H:%M:%S} {self.verb}: {', '.join(parts)}", file=sys.stderr, flush=True)
