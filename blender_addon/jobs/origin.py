"""Tells what this user started on this computer from what a .blend of somebody else brings along.

Opening a file must do nothing by itself that its author could have planned: send, run, or write. So whatever the artist
starts is sealed, with a secret that never leaves this computer. A seal is kept in the .blend: it survives Save As, a
copy and a crash, and is void on any other computer, where the artist decides (Resume) and seals it again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from ex4d_core.durable_files import put_in_place
from ex4d_core.user_folder import user_folder

from ..paths import from_blend
from .records import JobRecord

_SECRET_BYTES = 32

# The secret and the file that it is from, once it has been read.
_known: tuple[Path, bytes] | None = None


def seal(*parts: str) -> str:
    """What only this user on this computer can write about some texts."""
    text = json.dumps(parts).encode("utf-8", errors="surrogatepass")
    return hmac.new(_secret(), text, hashlib.sha256).hexdigest()


def is_seal(candidate: str, *parts: str) -> bool:
    """Whether a text is the seal of others."""
    return hmac.compare_digest(candidate.encode("utf-8", errors="replace"), seal(*parts).encode())


def seal_record(record: JobRecord, content: bytes) -> None:
    """Note in a record that its job was started, or resumed, by this user on this computer.

    Args:
        record: of the job.
        content: what its job sends.
    """
    digest = hashlib.sha256(content).hexdigest()
    record.seal = f"{digest} {seal(*_names(record), digest)}"


def is_own(record: JobRecord, content: Callable[[], bytes]) -> bool:
    """Whether a record is sealed as it stands: its job and folder, and what the job sends.

    Args:
        record: of the job.
        content: reads what the job sends; only asked where the seal itself is in order.
    """
    digest, _, sealed = record.seal.partition(" ")
    if not sealed or not is_seal(sealed, *_names(record), digest):
        return False
    try:
        return hashlib.sha256(content()).hexdigest() == digest
    except OSError:
        return True  # there is nothing to send any more, and resuming the job will say so


def _names(record: JobRecord) -> tuple[str, str, str]:
    """What must stay as it was; the folders above may be moved, or be copied with the file."""
    return type(record).__name__, record.key, from_blend(record.folder).name


def _secret() -> bytes:
    """This user's secret, which is made when it is first needed."""
    global _known
    path = user_folder() / "origin.key"
    if _known is None or _known[0] != path:
        _known = (path, _read_or_make(path))
    return _known[1]


def _read_or_make(path: Path) -> bytes:
    made = secrets.token_bytes(_SECRET_BYTES)
    partial = path.with_name(f"{path.name}.{made[:4].hex()}")
    try:
        if (found := _read(path)) is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Complete before it has its name: another Blender may start at the same moment, and the first one wins.
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(made)
            try:
                os.link(partial, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                put_in_place(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return _read(path) or made
    except OSError:
        return made  # without a folder to keep it, files are this computer's own for as long as Blender is open


def _read(path: Path) -> bytes | None:
    """The secret in a file; None if the file is missing or damaged."""
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(found) != _SECRET_BYTES:
        path.unlink()
        return None
    return found
