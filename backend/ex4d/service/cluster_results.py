"""`Results`: puts together what a worker on a node delivers in pieces, and passes it on to the job's sink."""

from __future__ import annotations

from pathlib import Path

from ex4d.service.cluster_messages import Delivered, Piece, Progressed
from ex4d.service.job_execution import JobSink


class Results:
    """Of one job; see the module."""

    def __init__(self, sink: JobSink, folder: Path):
        """Args: ``folder`` is for files on their way; the worker may have put them there itself."""
        self._sink, self._folder = sink, folder
        self._coming: Delivered | None = None
        self._lacking = 0

    def take(self, event: Progressed | Delivered | Piece) -> None:
        """Take the next event, in order. Raises what the sink raises."""
        if isinstance(event, Progressed):
            self._sink.progress(event.stage, event.done, event.total)
        elif isinstance(event, Delivered):
            self._coming, self._lacking = event, event.size
            if event.size >= 0:
                path = self._folder / event.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
            if event.size <= 0:
                self._pass_on(event)
        else:
            assert self._coming, "pieces follow what is delivered"
            with open(self._folder / self._coming.name, "ab") as file:
                file.write(event.data)
            self._lacking -= len(event.data)
            if self._lacking <= 0:
                self._pass_on(self._coming)

    def _pass_on(self, one: Delivered) -> None:
        path = self._folder / one.name
        if one.kind == "file":
            self._sink.file(one.take_name, path, one.sha256)
        elif one.kind == "state":
            self._sink.keep(path)
        elif one.kind == "frame":
            self._sink.frame(one.number, path)
        else:
            self._sink.estimate(one.number, path)
