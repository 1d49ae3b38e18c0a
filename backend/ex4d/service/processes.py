"""How the service starts processes of its own, with our packages found, and talks with them through pipes.

A message in a pipe is a 4-byte length and that many bytes of msgpack.
"""

from __future__ import annotations

import os
import struct
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

import msgpack

from ex4d.subprocesses import module_command, module_environment

_LENGTH = struct.Struct("<I")
# What a process prints is kept to so much, and as much again of what it printed before.
_LOG_BYTES = 1_000_000


def start_process(module: str, options: dict[str, str], folder: Path, errors: IO[bytes]) -> subprocess.Popen:
    """Run ``python -m module --name value ...`` with pipes for standard input and output.

    Args:
        module: of this package.
        options: names without dashes, and values.
        folder: working directory.
        errors: where its standard error goes.
    """
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return subprocess.Popen(
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


def shorten_log(path: Path) -> bool:
    """Empty a log that has grown too long, and keep its end in ``NAME.old.log``; returns whether it had.

    The process that appends to it goes on, and may have lost a line to this.
    """
    # A log is not worth an error: on a full disk it stays as it is.
    with suppress(OSError), open(path, "rb+") as log:
        if log.seek(0, os.SEEK_END) > _LOG_BYTES:
            log.seek(-_LOG_BYTES, os.SEEK_END)
            path.with_suffix(".old.log").write_bytes(log.read(_LOG_BYTES))
            log.truncate(0)
            return True
    return False


def read_message(stream: BinaryIO) -> dict[str, Any] | None:
    """The next message, or None at the end of the stream."""
    head = _read_exactly(stream, _LENGTH.size)
    body = _read_exactly(stream, _LENGTH.unpack(head)[0]) if head else None
    return msgpack.unpackb(body) if body else None


def write_message(stream: BinaryIO, message: dict[str, Any]) -> None:
    body = memoryview(_LENGTH.pack(len(data := msgpack.packb(message))) + data)
    while body:
        body = body[stream.write(body) :]


def _read_exactly(stream: BinaryIO, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = stream.read(count - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)
