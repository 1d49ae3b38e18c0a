"""A process of `ex4d batch` for one device: runs one verb after the other, so that torch is imported once.

Messages are those of `ex4d.service.processes`. It gets {"verb", "words"} and replies with {"stage", "done", "total"}
and, at the end, {"ended": {"code", "error", "notes", "result"}}. Its first message is {"devices"}: what "auto" means.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import IO, Any

from ex4d.cli.main import parse_verb
from ex4d.cli.report import Report, plain_value
from ex4d.devices import Devices
from ex4d.progress import Progress
from ex4d.service.processes import read_messages, start_child, write_message
from ex4d_core.errors import is_expected, user_message


class WorkReport(Report):
    """The report of one command, kept as a document; its progress goes to the batch."""

    def __init__(self, verb: str, output: IO[bytes]) -> None:
        """Send progress as messages."""
        super().__init__(verb, as_json=True)
        self._output = output

    @contextmanager
    def stages(self) -> Iterator[Progress]:
        """A message for each step; what cannot be sent ends the work, as nobody waits for it."""
        yield lambda stage, done, total: write_message(
            self._output, {"stage": stage, "done": int(done), "total": int(total)}
        )


def run_verb(verb: str, words: list[str], output: IO[bytes]) -> dict[str, Any]:
    """Run a command; returns what `main` would have printed as its document, without raising what it raises."""
    report = WorkReport(verb, output)
    try:
        code, error = import_module(f"ex4d.cli.{verb}").run(parse_verb(verb, words), report), ""
    except BrokenPipeError:
        raise
    except SystemExit as ended:  # of the parser, or of a signal
        if not isinstance(ended.code, int) or ended.code > 128:
            raise
        code, error = ended.code, "wrong usage"
    except Exception as failure:
        code, error = 1, user_message(failure)
        if not is_expected(failure):
            traceback.print_exception(failure)
    result = json.loads(json.dumps(report.result, default=plain_value))
    return {"code": code, "error": error, "notes": report.notes, "result": result}


def devices_of(name: str) -> list[str]:
    """A device for each worker: "auto" is every GPU, or else the processor."""
    if name != "auto":
        return [name]
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]


def device_words(verb: str, words: list[str], device: str) -> list[str]:
    """The option that names this worker's device."""
    if any(word.startswith("--backend=") for word in words):
        return []  # that backend has devices of its own
    # Several GPUs are for the engine wan; one of them estimates depth and renders.
    return [f"--device={device if verb == 'generate' else Devices.parse(device).first}"]


def main() -> None:
    """Work until there is no more."""
    options, output = start_child("a worker of ex4d batch", "device")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that unfinished files are put away
    devices = devices_of(options.device)
    write_message(output, {"devices": devices})
    for message in read_messages(os.fdopen(0, "rb", buffering=0)):
        verb, words = message["verb"], message["words"]
        write_message(output, {"ended": run_verb(verb, [*words, *device_words(verb, words, devices[0])], output)})


if __name__ == "__main__":
    main()
