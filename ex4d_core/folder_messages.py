"""The messages about files that client and service both reach, which need not be sent, and how paths are compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated

from ex4d_core.job_status import BlobSize
from ex4d_core.message_base import Message, Reply
from ex4d_core.schema import Length, Shown

MAX_PATH = 4000
_MAX_NAMES = 256


@dataclass(frozen=True)
class DescribeFolders(Message):
    """Asks which of the client's folders the service reaches, too.

    Services up to version 0.1.0 refuse it, and `TakeFile`, as an unknown type.
    """


@dataclass(frozen=True)
class FoldersReply(Reply):
    """The answer to `DescribeFolders`: folders by the names that clients know, as "/Volumes/show"."""

    names: Annotated[list[Annotated[str, Shown(MAX_PATH)]], Length(_MAX_NAMES)]


@dataclass(frozen=True)
class TakeFile(Message):
    """Has the service copy a blob out of such a folder; answered with a `PutBlobReply`.

    While ``received`` is not -1 the copy is under way: ask again.

    Attributes:
        sha256, size: of the blob.
        path: of the file, as the client calls it.
    """

    sha256: str
    size: BlobSize
    path: Annotated[str, Length(MAX_PATH)]


def parts_below(folder: str, path: str) -> tuple[str, ...] | None:
    """The names that lead from a folder to a file below it; None if the file is not below it.

    Paths of Windows have a drive or a share, and are compared without case; any others are POSIX paths.

    Args:
        folder: absolute.
        path: absolute, without ``..``.
    """
    kind = PureWindowsPath if PureWindowsPath(folder).drive else PurePosixPath
    above, below = kind(folder), kind(path)
    if not (above.is_absolute() and below.is_absolute()) or ".." in below.parts:
        return None
    try:
        return below.relative_to(above).parts or None
    except ValueError:
        return None
