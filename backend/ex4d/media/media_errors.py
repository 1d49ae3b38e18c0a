"""What can be wrong with media files, said so that the person at the keyboard can act on it.

Every room that reads or writes pictures through `ex4d.media` gets these errors and nothing of PyAV's own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av.error

from ex4d_core.errors import Ex4dError


class MediaError(Ex4dError, ValueError):
    """A file cannot be used as asked. The message names the file, the value that is wrong, and the remedy."""


class DiskFullError(MediaError):
    """There is no room left for a file. Nothing half-written is left behind."""


def system_reason(error: BaseException) -> str:
    """The operating system's or the codec library's own words for an error, without path or number."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a `.partial` sibling to write to, which becomes `path` on success and disappears on any error."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with writing(path):
            os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around every call that writes to disk: says what a failure means for `path`.

    Raises:
        DiskFullError: the disk or the quota is full.
        MediaError: the folder is missing or cannot be written to.
    """
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        raise _writing_error(path, error) from error


def _writing_error(path: Path, error: BaseException) -> MediaError:
    reason = system_reason(error)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"{path}: the disk is full ({reason}); the unfinished file was removed. "
            "Free some space, or choose an output folder on another disk."
        )
    if not path.parent.is_dir():
        return MediaError(f"{path}: the folder {path.parent} does not exist. Create it or choose another one.")
    return MediaError(f"{path}: cannot be written ({reason}). Check the folder's permissions or choose another one.")
