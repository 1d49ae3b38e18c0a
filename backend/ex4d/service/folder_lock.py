"""One service per data folder: an operating system's lock, which ends with the process however that ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ex4d.service.settings import ServiceError

if os.name == "nt":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        # A byte far behind the content, since Windows keeps others from reading what is locked.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a data folder's lock.

    Raises:
        ServiceError: another service has it, or nothing can be written there.
    """
    try:
        file = open(folder / "lock", "a+b")  # noqa: SIM115 - closed below, whatever happens in between
    except OSError as error:
        raise ServiceError(f"cannot write into the data folder {folder}: {error.strerror}; choose another") from error
    with file:
        try:
            _lock(file)
        except OSError as error:
            file.seek(0)
            owner = file.read(32).decode(errors="replace").strip() or "unknown"
            raise ServiceError(
                f"the data folder {folder} is in use by another service (process {owner}); stop that one, or give "
                "this one a folder of its own"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield
