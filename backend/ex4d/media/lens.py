"""Reads the focal length stored in footage: EXIF of JPEG, TIFF and PNG images, and the keys that phones write."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

from ex4d.media.footage import FootageInfo
from ex4d.media.media_errors import MediaError
from ex4d.media.scan import open_video
from ex4d.media.sequences import IMAGE_SUFFIXES, is_sequence, sequence_files

_FULL_FRAME_DIAGONAL_MM = math.hypot(36, 24)  # "35 mm equivalent" compares diagonals (CIPA DCG-001)
_MOVIE_KEYS_35MM = ("com.apple.quicktime.camera.focal_length.35mm_equivalent",)
_HEAD_BYTES = 256 << 10  # EXIF is near the start of a file; this is room for it and what comes before it

_EXIF_IFD, _FOCAL_LENGTH, _FOCAL_LENGTH_35MM = 0x8769, 0x920A, 0xA405
_PIXELS_ACROSS, _PLANE_RESOLUTION, _PLANE_UNIT = 0xA002, 0xA20E, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0}
_PLAUSIBLE_WIDTHS = (0.1, 100.0)  # focal lengths over the longer side: from a fisheye to a large telescope


@dataclass(frozen=True)
class Lens:
    """A focal length found in footage.

    Attributes:
        focal_px: in pixels of the footage as displayed.
        source: where it was found, as a text for the user.
    """

    focal_px: float
    source: str


def lens_of(footage: FootageInfo) -> Lens | None:
    """The focal length stored in footage, or None where there is none or an implausible one.

    Of an image sequence the first image is read. A movie that was cropped later still has its camera's focal length.
    """
    diagonal, longer = math.hypot(footage.width, footage.height), max(footage.width, footage.height)
    try:
        if is_sequence(footage.path):
            file = sequence_files(footage.path, IMAGE_SUFFIXES)[0]
            with file.open("rb") as stream:
                found = _from_exif(exif_of(stream.read(_HEAD_BYTES)), diagonal, longer, file.name)
        else:
            found = _from_movie(footage.path, diagonal)
    except (MediaError, OSError):
        return None  # reading the frames reports what is wrong with the file
    if found is None or not _PLAUSIBLE_WIDTHS[0] < found.focal_px / longer < _PLAUSIBLE_WIDTHS[1]:
        return None
    return found


def _from_movie(path: Path, diagonal: float) -> Lens | None:
    with open_video(path) as (container, stream):
        texts = {**stream.metadata, **container.metadata}
    for key in _MOVIE_KEYS_35MM:
        millimetres = _number(texts.get(key, ""))
        if millimetres > 0:
            return _from_35mm(millimetres, diagonal, path.name)
    return None


def _from_exif(tags: dict[int, float], diagonal: float, longer: int, name: str) -> Lens | None:
    if tags.get(_FOCAL_LENGTH_35MM, 0) > 0:
        return _from_35mm(tags[_FOCAL_LENGTH_35MM], diagonal, name)
    needed = (_FOCAL_LENGTH, _PIXELS_ACROSS, _PLANE_RESOLUTION)
    unit = _UNIT_MM.get(int(tags.get(_PLANE_UNIT, 2)))
    if unit is None or not all(tags.get(tag, 0) > 0 for tag in needed):
        return None
    millimetres, pixels, per_unit = (tags[tag] for tag in needed)
    sensor = pixels / per_unit * unit
    return Lens(longer * millimetres / sensor, f"{name}: {millimetres:g} mm on a sensor {sensor:.1f} mm wide")


def _from_35mm(millimetres: float, diagonal: float, name: str) -> Lens:
    focal = diagonal * millimetres / _FULL_FRAME_DIAGONAL_MM
    return Lens(focal, f"{name}: {millimetres:g} mm (35 mm equivalent)")


def exif_of(head: bytes) -> dict[int, float]:
    """Numeric EXIF tags from the first bytes of a JPEG, TIFF or PNG file; empty if missing or damaged."""
    start = head.find(b"Exif\0\0")
    block = b""
    if head[:4] in (b"II*\0", b"MM\0*"):
        block = head
    elif head[:2] == b"\xff\xd8" and start >= 0:
        block = head[start + 6 :]
    elif head[:4] == b"\x89PNG" and (start := head.find(b"eXIf")) >= 0:
        block = head[start + 4 :]
    if block[:2] not in (b"II", b"MM"):
        return {}
    order = "<" if block[:2] == b"II" else ">"
    try:
        (first,) = struct.unpack_from(order + "I", block, 4)
        tags = _directory(block, order, first)
        if _EXIF_IFD in tags:
            tags.update(_directory(block, order, int(tags[_EXIF_IFD])))
    except struct.error:
        return {}
    return tags


def _directory(block: bytes, order: str, offset: int) -> dict[int, float]:
    """The single numbers of one image file directory (TIFF 6.0, section 2)."""
    (count,) = struct.unpack_from(order + "H", block, offset)
    tags: dict[int, float] = {}
    for index in range(count):
        at = offset + 2 + 12 * index
        tag, kind, values = struct.unpack_from(order + "HHI", block, at)
        if values != 1:
            continue
        if kind == 3:
            tags[tag] = struct.unpack_from(order + "H", block, at + 8)[0]
        elif kind == 4:
            tags[tag] = struct.unpack_from(order + "I", block, at + 8)[0]
        elif kind == 5:
            (where,) = struct.unpack_from(order + "I", block, at + 8)
            above, below = struct.unpack_from(order + "II", block, where)
            tags[tag] = above / below if below else 0.0
    return tags


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
