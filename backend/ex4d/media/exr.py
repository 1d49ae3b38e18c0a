"""Reads OpenEXR files: the channels of an image as arrays, rows from top to bottom."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import OpenEXR

from ex4d.media.media_errors import (
    MediaError,
    atomic_write,
    system_reason,
    translate_write_errors,
    unreadable,
)
from ex4d.memory import require_memory
from ex4d_core import __version__

# Of each channel, in the file's own type at most, and once more while it is decoded.
_BYTES_PER_VALUE = 8


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
        reason = system_reason(error).splitlines()[0]
        raise MediaError(f"{path}: damaged or truncated EXR ({reason}). Render or copy it again.") from error


def _require_room(path: Path) -> None:
    with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
        for part in file.parts:
            (left, top), (right, bottom) = ([int(value) for value in corner] for corner in part.header["dataWindow"])
            width, height, channels = right - left + 1, bottom - top + 1, len(part.header["channels"])
            what = f"{path}: an EXR of {width}x{height} pixels in {channels} channels"
            require_memory(_BYTES_PER_VALUE * channels * width * height, what)


def exr_pixel_aspect(path: Path) -> float:
    """Width of a pixel by its height, of the first part; 1 where the file says none.

    Raises:
        MediaError: not an EXR.
    """
    _check_readable(path)
    with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
        aspect = float(file.parts[0].header.get("pixelAspectRatio", 1.0))
    return aspect if 0 < aspect < float("inf") else 1.0


def write_exr_channels(path: str | os.PathLike[str], channels: Mapping[str, np.ndarray]) -> None:
    """Write an EXR with these channels (H, W), float16, float32 or uint32, completely or not at all.

    Raises:
        MediaError: the file cannot be written.
    """
    path = Path(path)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, "software": f"ex4d {__version__}"}
    with atomic_write(path) as partial, translate_write_errors(path):
        try:
            OpenEXR.File(header, {name: np.ascontiguousarray(values) for name, values in channels.items()}).write(
                str(partial)
            )
        except (RuntimeError, ValueError) as error:
            raise OSError(f"OpenEXR cannot write it: {error}") from error


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
