"""Reads OpenEXR files: the channels of an image as arrays, rows from top to bottom."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import OpenEXR

from ex4d.media.media_errors import (
    MediaError,
    system_reason,
    unreadable,
)
from ex4d.memory import require_memory

# Of each channel, in the file's own type at most, and once more while it is decoded.
_BYTES_PER_VALUE = 8


class ExrWindow(NamedTuple):
    """A rectangle of pixels; data windows are placed in the coordinates of the display window."""

    left: int
    top: int
    width: int
    height: int


def read_exr_windows(path: str | os.PathLike[str]) -> dict[str, tuple[ExrWindow, ExrWindow]]:
    """The data window and the display window of each channel, under the names of `read_exr_channels`.

    Raises:
        MediaError: not an EXR, or damaged.
    """
    path = Path(path)
    _check_readable(path)
    try:
        with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
            return {
                _full_name(part, channel.name, len(file.parts)): (
                    _window(part.header["dataWindow"]),
                    _window(part.header["displayWindow"]),
                )
                for part in file.parts
                for channel in part.header["channels"]
            }
    except (RuntimeError, ValueError, OSError) as error:
        raise _damaged(path, error) from error


def read_exr_channels(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read all channels of all parts: (H, W) float16, float32 or uint32 by full name, such as `ViewLayer.Depth.Z`.

    A channel of a named part that does not carry the part's name already is called `part.channel`. H and W are those
    of the data window.

    Raises:
        MediaError: not an EXR, or damaged.
        MemoryRoomError: its channels do not fit into memory.
    """
    path = Path(path)
    _check_readable(path)
    try:
        _require_room(path)
        with OpenEXR.File(str(path), separate_channels=True) as file:
            if not file.parts or any(not part.channels for part in file.parts):
                # OpenEXR returns a part whose pixels it could not read without any channel, and raises nothing.
                raise MediaError(f"{path}: damaged or truncated EXR (pixels are missing). Render or copy it again.")
            return {
                _full_name(part, name, len(file.parts)): np.asarray(channel.pixels)
                for part in file.parts
                for name, channel in part.channels.items()
                if np.ndim(channel.pixels) == 2
            }
    except MediaError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        raise _damaged(path, error) from error


def _require_room(path: Path) -> None:
    with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
        for part in file.parts:
            _, _, width, height = _window(part.header["dataWindow"])
            channels = len(part.header["channels"])
            what = f"{path}: an EXR of {width}x{height} pixels in {channels} channels"
            require_memory(_BYTES_PER_VALUE * channels * width * height, what)


def _window(corners: Any) -> ExrWindow:
    (left, top), (right, bottom) = ([int(value) for value in corner] for corner in corners)
    return ExrWindow(left, top, right - left + 1, bottom - top + 1)


def _damaged(path: Path, error: Exception) -> MediaError:
    reason = system_reason(error).splitlines()[0]
    return MediaError(f"{path}: damaged or truncated EXR ({reason}). Render or copy it again.")


def exr_pixel_aspect(path: Path) -> float:
    """Width of a pixel by its height, of the first part; 1 where the file says none.

    Raises:
        MediaError: not an EXR.
    """
    _check_readable(path)
    with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
        aspect = float(file.parts[0].header.get("pixelAspectRatio", 1.0))
    return aspect if 0 < aspect < float("inf") else 1.0


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise unreadable(path, error) from error
    if not magic:
        raise MediaError(f"{path}: the file is empty (0 bytes). Render or copy it again.")
    if magic != b"\x76\x2f\x31\x01":
        raise MediaError(f"{path}: not an EXR. Choose another file or convert it.")


def _full_name(part: OpenEXR.Part, channel: str, parts: int) -> str:
    name = part.name() if parts > 1 else ""
    return f"{name}.{channel}" if name and not channel.startswith(name) else channel
