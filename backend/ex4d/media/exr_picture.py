"""Reads the picture of an OpenEXR file as sRGB: linear light, its primaries, alpha, display window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR

from ex4d.media.colour import srgb_of_linear, to_srgb_primaries
from ex4d.media.exr import read_exr_channels
from ex4d.media.media_errors import MediaError, require_room_for_image

_RED_NAMES = ("R", "r", "red")
_GREY_NAMES = ("Y", "L")
_UNCHANGED = 1e-3


def read_exr_picture(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The picture (H, W, 3) uint8 sRGB, black outside of the data window, and notes for the artist.

    H and W are those of the display window. Light above 1 is clipped. Of several layers, the one named like the
    picture is taken, else the first one with red, green and blue.

    Raises:
        MediaError: not an EXR, damaged, or without colours.
        MemoryRoomError: it does not fit into memory.
    """
    channels = read_exr_channels(path)
    red, green, blue = _colour_names(channels, path)
    with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
        header: dict[str, Any] = dict(file.parts[0].header)
    data, display = _window(header["dataWindow"]), _window(header["displayWindow"])
    height, width = display[3] - display[1] + 1, display[2] - display[0] + 1
    require_room_for_image(width, height, path)
    light = np.stack([channels[name].astype(np.float32) for name in (red, green, blue)], axis=-1)
    light = np.nan_to_num(light, nan=0.0, posinf=1.0, neginf=0.0)
    notes = ["linear light is converted to sRGB, and what is brighter than 1 is clipped"]
    matrix = _primaries_matrix(header.get("chromaticities"))
    if matrix is not None:
        light = light @ matrix.T.astype(np.float32)
        notes.append("the file's own primaries are converted to those of sRGB")
    picture = np.rint(srgb_of_linear(light) * 255.0).astype(np.uint8)
    if picture.shape[:2] == (height, width) and data[:2] == display[:2]:
        return picture, tuple(notes)
    whole = np.zeros((height, width, 3), np.uint8)
    left, top = data[0] - display[0], data[1] - display[1]
    x, y = slice(max(left, 0), max(left + picture.shape[1], 0)), slice(max(top, 0), max(top + picture.shape[0], 0))
    target = whole[y, x]
    offset_y, offset_x = max(-top, 0), max(-left, 0)
    target[:] = picture[offset_y : offset_y + target.shape[0], offset_x : offset_x + target.shape[1]]
    notes.append("the picture's data window differs from its display window; it is black where there is no data")
    return whole, tuple(notes)


def _colour_names(channels: dict[str, np.ndarray], path: Path) -> tuple[str, str, str]:
    """Names of red, green and blue: without a layer, else of the layer `Combined`, else of the first one."""
    reds = [name for name in channels if name.rpartition(".")[2] in _RED_NAMES]
    reds.sort(key=lambda name: ("." in name, not name.endswith("Combined.R")))
    for red in reds:
        layer, dot, last = red.rpartition(".")
        others = {"R": "GB", "r": "gb", "red": ("green", "blue")}[last]
        green, blue = (f"{layer}{dot}{name}" for name in others)
        if green in channels and blue in channels:
            return red, green, blue
    for grey in (name for name in channels if name.rpartition(".")[2] in _GREY_NAMES):
        return grey, grey, grey
    names = ", ".join(list(channels)[:8])
    raise MediaError(f"{path}: holds no picture, only the channels {names}. Choose an EXR with R, G and B.")


def _window(corners: Any) -> tuple[int, int, int, int]:
    (left, top), (right, bottom) = ([int(value) for value in corner] for corner in corners)
    return left, top, right, bottom


def _primaries_matrix(chromaticities: Any) -> np.ndarray | None:
    """Matrix (3, 3) to sRGB's primaries; None where the file names none, or these."""
    if chromaticities is None:
        return None
    values = np.array(chromaticities, dtype=np.float64).reshape(-1)
    if values.size != 8:
        return None
    red, green, blue, white = ((float(x), float(y)) for x, y in values.reshape(4, 2))
    matrix = to_srgb_primaries((red, green, blue, white))
    return None if np.abs(matrix - np.eye(3)).max() < _UNCHANGED else matrix
