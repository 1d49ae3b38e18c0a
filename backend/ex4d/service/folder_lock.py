"""The lock of a data folder: one service, or one `ex4d clean`, uses it at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from ex4d.service.settings import ServiceError


@contextmanager
def locked(folder: Path, *, create: bool = True) -> Iterator[None]:
    """Hold a data folder's lock, which the system releases however this process ends.

    Args:
        folder: of the service's data.
        create: create it where it does not exist; else there is nothing to lock.

    Raises:
        ServiceError: another process has it, or the folder cannot be written.
    """
    if not create and not folder.is_dir():
        yield
        return
    owner = folder / "service.pid"
    try:
        # Footage is private.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = filelock.FileLock(folder / "lock").acquire(timeout=0)
    except filelock.Timeout as error:
        pid = owner.read_text() if owner.exists() else "unknown"
        raise ServiceError(
            f"another service (process {pid}) uses the data folder {folder}; stop it, or choose another folder"
        ) from error
    except OSError as error:
        raise ServiceError(f"cannot write into the data folder {folder}: {error.strerror}; choose another") from error
    with lock:
        # It is for a message only; on a full disk the service does without.
        with suppress(OSError):
            owner.write_text(str(os.getpid()))
        yield
