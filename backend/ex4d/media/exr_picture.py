"""Reads the picture of an OpenEXR file, as sRGB or as it is: linear light, its primaries, alpha, display window."""

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
_LARGEST_HALF = 65504.0


def read_exr_picture(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The picture (H, W, 3) uint8 sRGB, black outside of the data window, and notes for the artist.

    H and W are those of the display window. Light above 1 is clipped. Of several layers, the one named like the
    picture is taken, else the first one with red, green and blue.

    Raises:
        MediaError: not an EXR, damaged, or without colours.
        MemoryRoomError: it does not fit into memory.
    """
    light, header = _light(path)
    light = np.nan_to_num(light, nan=0.0, posinf=1.0, neginf=0.0)
    notes = ["linear light is converted to sRGB, and what is brighter than 1 is clipped"]
    matrix = _primaries_matrix(header.get("chromaticities"))
    if matrix is not None:
        light = light @ matrix.T.astype(np.float32)
        notes.append("the file's own primaries are converted to those of sRGB")
    picture = np.rint(srgb_of_linear(light) * 255.0).astype(np.uint8)
    whole = _displayed(picture, header)
    if whole is not picture:
        notes.append("the picture's data window differs from its display window; it is black where there is no data")
    return whole, tuple(notes)


def read_exr_light(path: Path) -> np.ndarray:
    """The picture (H, W, 3) float32 of the display window as the file has it, in its own primaries; errors as above.

    Not a number becomes 0, and infinite light the largest half float.
    """
    light, header = _light(path)
    return _displayed(np.nan_to_num(light, copy=False, nan=0.0, posinf=_LARGEST_HALF, neginf=-_LARGEST_HALF), header)


def _light(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Colours (H, W, 3) float32 of the data window, and the file's header."""
    channels = read_exr_channels(path)
    names = _colour_names(channels, path)
    with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
        header: dict[str, Any] = dict(file.parts[0].header)
    left, top, right, bottom = _window(header["displayWindow"])
    require_room_for_image(right - left + 1, bottom - top + 1, path)
    return np.stack([channels[name].astype(np.float32) for name in names], axis=-1), header


def _displayed(picture: np.ndarray, header: dict[str, Any]) -> np.ndarray:
    """A picture of the data window (h, w, 3) in the display window, 0 around it; itself where both are the same."""
    data, display = _window(header["dataWindow"]), _window(header["displayWindow"])
    height, width = display[3] - display[1] + 1, display[2] - display[0] + 1
    if picture.shape[:2] == (height, width) and data[:2] == display[:2]:
        return picture
    whole = np.zeros((height, width, 3), picture.dtype)
    left, top = data[0] - display[0], data[1] - display[1]
    x, y = slice(max(left, 0), max(left + picture.shape[1], 0)), slice(max(top, 0), max(top + picture.shape[0], 0))
    target = whole[y, x]
    offset_y, offset_x = max(-top, 0), max(-left, 0)
    target[:] = picture[offset_y : offset_y + target.shape[0], offset_x : offset_x + target.shape[1]]
    return whole


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
