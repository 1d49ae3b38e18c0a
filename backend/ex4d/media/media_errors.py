"""Errors of media files, and atomic writes that raise them.

Every room that reads or writes images through `ex4d.media` gets these errors, never PyAV's own.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av.error

from ex4d.memory import free_memory, require_memory
from ex4d_core.durable_files import put_in_place
from ex4d_core.errors import Ex4dError

# Of an image, decoded with 16 bits and alpha, converted, and composited.
_IMAGE_BYTES_PER_PIXEL = 32
# A video's decoder holds up to 16 frames that others refer to, and one for each of its threads, besides.
_VIDEO_BYTES_PER_PIXEL = 64


class MediaError(Ex4dError):
    """A file cannot be used as requested. The message names the file, the value that is wrong, and what to do."""


def system_reason(error: BaseException) -> str:
    """The operating system's or the codec library's own message for an error, without path or number."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Provide a `.partial` file beside `path` to write to; it is renamed to `path` on success, removed on any error.

    On success it is on disk when the block has ended.

    Raises:
        MediaError: it cannot be renamed.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with translate_write_errors(path):
            put_in_place(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def require_room_for_image(width: int, height: int, path: Path) -> None:
    """Check that an image fits into memory, before it is decoded: a small file may hold a huge one.

    Raises:
        MemoryRoomError: it does not.
    """
    require_memory(_IMAGE_BYTES_PER_PIXEL * width * height, f"{path}: an image of {width}x{height} pixels")


def require_room_for_video(width: int, height: int, path: Path) -> None:
    """Check that a video's frames fit into memory, before one is decoded.

    Raises:
        MemoryRoomError: they do not.
    """
    require_memory(_VIDEO_BYTES_PER_PIXEL * width * height, f"{path}: a video of {width}x{height} pixels")


def most_pixels() -> int:
    """Pixels of the largest image that fits into memory, for decoders: a frame may be larger than its file says."""
    return max(free_memory() // _IMAGE_BYTES_PER_PIXEL, 1)


@contextmanager
def translate_write_errors(path: Path) -> Iterator[None]:
    """Turn the system's and PyAV's errors of a block that writes `path` into errors for the user.

    Raises:
        MediaError: the disk or the quota is full, or the folder is missing or cannot be written to.
    """
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        raise _write_error(path, error) from error


def unreadable(path: Path, error: OSError) -> MediaError:
    """The error for a file that the system cannot open."""
    return MediaError(f"{path}: cannot be opened ({system_reason(error)}). Check the path and permissions.")


def _write_error(path: Path, error: BaseException) -> MediaError:
    reason = system_reason(error)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return MediaError(
            f"{path}: the disk is full ({reason}); the partial file was removed. "
            "Free some space, or choose an output folder on another disk."
        )
    if not path.parent.is_dir():
        return MediaError(f"{path}: the folder {path.parent} does not exist. Create it or choose another one.")
    return MediaError(f"{path}: cannot be written ({reason}). Check the folder's permissions or choose another one.")
