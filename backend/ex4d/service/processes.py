"""Starts the service's own processes and exchanges messages with them through pipes; keeps their logs short.

A message in a pipe is a 4-byte length and that many bytes of msgpack.
"""

from __future__ import annotations

import os
import struct
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgpack

from ex4d.subprocesses import module_command, module_environment

_LENGTH = struct.Struct("<I")
# A log keeps this many bytes, and as many of those before them.
_LOG_BYTES = 1_000_000


class ChildProcess(subprocess.Popen[bytes]):
    """A Python process with pipes for standard input and output, and a log of its standard error.

    Attributes:
        input: what it reads.
        output: what it writes.
        log_start: where its own lines begin in its log.
    """

    def __init__(self, module: str, options: dict[str, str], folder: Path, log: Path):
        """Run ``python -m module --name value ...``.

        Args:
            module: of this package.
            options: names without dashes, and values.
            folder: working directory.
            log: its standard error is appended to it; shortened first if it is too long.
        """
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
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
    # A log is not worth an error: on a full disk it stays as it is.
    with suppress(OSError), open(path, "rb+") as log:
        if log.seek(0, os.SEEK_END) > _LOG_BYTES:
            log.seek(-_LOG_BYTES, os.SEEK_END)
            path.with_suffix(".old.log").write_bytes(log.read(_LOG_BYTES))
            log.truncate(0)
            return True
    return False


def read_message(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next message, or None at the end of the stream."""
    head = _read_exactly(stream, _LENGTH.size)
    body = _read_exactly(stream, _LENGTH.unpack(head)[0]) if head else None
    return msgpack.unpackb(body) if body else None


def write_message(stream: IO[bytes], message: dict[str, Any]) -> None:
    """Write all of a message to an unbuffered stream."""
    packed = msgpack.packb(message) or b""  # which msgpack types as optional
    body = memoryview(_LENGTH.pack(len(packed)) + packed)
    while body:
        body = body[stream.write(body) :]


def _read_exactly(stream: IO[bytes], count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = stream.read(count - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)
