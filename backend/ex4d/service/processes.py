"""Starts the service's own processes, shortens their logs, and exchanges msgpack messages with them through pipes."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, ClassVar

import msgpack

from ex4d.service.logs import LOG_FORMATS, log_format, start_log
from ex4d.subprocesses import module_command, module_environment

_LENGTH = struct.Struct("<I")
# A log keeps this many bytes, and as many of those before them.
_LOG_BYTES = 1_000_000


class ChildProcess(subprocess.Popen[bytes]):
    """A Python process with pipes for standard input and output, and a log of its standard error.

    Attributes:
        input: what it reads.
        output: what it writes.
        log_start: where its lines about its present work begin in its log.
        started: how many of each module have been started.
    """

    started: ClassVar[Counter[str]] = Counter()

    def __init__(self, module: str, options: dict[str, str], folder: Path, log: Path):
        """Run ``python -m module --name value ...``.

        Args:
            module: of this package.
            options: names without dashes, and values.
            folder: working directory.
            log: its standard error is appended to it; shortened first if it is too long.
        """
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        words += ["--log-format", log_format()]
        self.started[module] += 1
        shorten_log(log)
        with open(log, "ab") as errors:
            self.log_start = errors.tell()
            super().__init__(
                module_command(module, *words),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                cwd=folder,
                env={**module_environment(), "PYTHONUNBUFFERED": "1"},
                # Ctrl+C in a terminal is for the service, which ends its processes itself.
                start_new_session=True,
            )
        assert self.stdin and self.stdout
        self.input, self.output = self.stdin, self.stdout

    def close(self) -> None:
        """Close the pipes of a process that has ended."""
        self.input.close()
        self.output.close()


def shorten_log(path: Path) -> bool:
    """Empty a log that has grown too long, and keep its end in ``NAME.old.log``; returns whether it had.

    The process that appends to it continues, and may lose a line.
    """
    # An error here is ignored: on a full disk the log stays as it is.
    with suppress(OSError), open(path, "rb+") as log:
        if log.seek(0, os.SEEK_END) > _LOG_BYTES:
            log.seek(-_LOG_BYTES, os.SEEK_END)
            path.with_suffix(".old.log").write_bytes(log.read(_LOG_BYTES))
            log.truncate(0)
            return True
    return False


def read_messages(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The messages of an unbuffered stream, as they arrive, to its end.

    Each is a 4-byte length and that many bytes of msgpack; `msgpack.Unpacker` is several times slower for large ones.
    """
    while (head := _read_exactly(stream, _LENGTH.size)) and (body := _read_exactly(stream, *_LENGTH.unpack(head))):
        yield msgpack.unpackb(body)


def write_message(stream: IO[bytes], message: dict[str, Any]) -> None:
    """Write all of a message to an unbuffered stream."""
    packed = msgpack.packb(message) or b""  # which msgpack types as optional
    body = memoryview(_LENGTH.pack(len(packed)) + packed)
    while body:
        body = body[stream.write(body) :]


def _read_exactly(stream: IO[bytes], count: int) -> bytes:
    """``count`` bytes; none at the end of the stream."""
    data = bytearray()
    while len(data) < count:
        piece = stream.read(count - len(data))
        if not piece:
            return b""
        data += piece
    return bytes(data)


def start_child(what: str, *options: str) -> tuple[argparse.Namespace, IO[bytes]]:
    """What every `ChildProcess` does first: reads its options, and starts its log.

    Args:
        what: the process is, for its help.
        options: names, all required.

    Returns:
        The options, and the stream to the service.
    """
    parser = argparse.ArgumentParser(description=f"{what} of the EX-4D service, which starts it.")
    for option in options:
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--log-format", choices=LOG_FORMATS, default=LOG_FORMATS[0])
    # Ctrl+C is for the service alone, where its processes share a console.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries print to standard output; only our own messages may go to the service.
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    parsed = parser.parse_args()
    start_log(logging.StreamHandler(sys.stderr), logging.INFO, log_format=parsed.log_format)
    return parsed, output
