"""Marks a finished movie as stereo: the boxes `st3d` and `sv3d` of Google's Spherical Video V2, which players read.

PyAV does not hand side data of a stream to FFmpeg's muxer, which would write them. So they are inserted here, behind
the other boxes of the video's sample entry, and what lies behind them in the file moves.
https://github.com/google/spatial-media/blob/master/docs/spherical-video-v2-rfc.md
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from ex4d_core import __version__

StereoKind = Literal["side-by-side", "vr180"]

_LEFT_RIGHT = 2
# VR180 shows half of the sphere: a quarter is cut off at each side, in units of 2^-32.
_QUARTER = 1 << 30
# Boxes of boxes, on the way to the sample entry of a video and to the places of its chunks.
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
# Sample entries of the codecs that we write: H.264, H.265, ProRes 4444 and DNxHR.
_VIDEOS = (b"avc1", b"hvc1", b"ap4h", b"AVdh")
# Behind a video's own fields, which come before its boxes.
_VIDEO_FIELDS = 78
_COPY_BYTES = 1 << 20


def mark_as_stereo(path: Path, kind: StereoKind) -> None:
    """Say in a movie that its frames have the left eye's image at their left, and the right one's at their right.

    Args:
        path: a finished .mp4 or .mov file with a video, as `VideoWriter` and `DeepVideoWriter` write it.
        kind: "vr180" also says that each half is equirectangular, of 180 by 180 degrees.
    """
    added, marked = _stereo_boxes(kind), path.with_name(path.name + ".marked")
    try:
        with path.open("rb") as source, marked.open("wb") as target:
            while header := source.read(8):
                size, name = struct.unpack(">I4s", header)
                before, content = header, size - 8
                if size == 1:  # the size is behind the name, in 64 bits
                    before += source.read(8)
                    content = struct.unpack(">Q", before[8:])[0] - 16
                if name == b"moov":
                    is_in_front = source.tell() + content < os.fstat(source.fileno()).st_size
                    index = header + source.read(content)
                    target.write(_rewritten(index, added, len(added) if is_in_front else 0))
                    continue
                target.write(before)
                if size == 0:  # up to the end of the file
                    shutil.copyfileobj(source, target)
                    break
                _copy(source, target, content)
        marked.replace(path)
    finally:
        marked.unlink(missing_ok=True)


def boxes_in(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each of some boxes, one after the other."""
    start = 0
    while start < len(data):
        size, name = struct.unpack_from(">I4s", data, start)
        yield name, data[start + 8 : start + size]
        start += size


def _stereo_boxes(kind: StereoKind) -> bytes:
    """What a sample entry says of its frames."""
    stereo = _box(b"st3d", struct.pack(">IB", 0, _LEFT_RIGHT))
    if kind == "side-by-side":
        return stereo
    source = _box(b"svhd", bytes(4) + f"ex4d {__version__}".encode() + b"\0")
    pose = _box(b"prhd", struct.pack(">Iiii", 0, 0, 0, 0))
    bounds = _box(b"equi", struct.pack(">5I", 0, 0, 0, _QUARTER, _QUARTER))
    return stereo + _box(b"sv3d", source + _box(b"proj", pose + bounds))


def _rewritten(data: bytes, added: bytes, shift: int) -> bytes:
    """Boxes with ``added`` behind those of the video's sample entry, and with chunks ``shift`` bytes further on."""
    parts = []
    for name, content in boxes_in(data):
        if name in _CONTAINERS:
            content = _rewritten(content, added, shift)
        elif name == b"stsd":  # has 8 bytes before its entries, which are boxes
            content = content[:8] + _rewritten(content[8:], added, shift)
        elif name in _VIDEOS:
            end = _end_of_boxes(content, _VIDEO_FIELDS)
            content = content[:end] + added + content[end:]
        elif name in (b"stco", b"co64"):
            kind = ">I" if name == b"stco" else ">Q"
            places = (place + shift for (place,) in struct.iter_unpack(kind, content[8:]))
            content = content[:8] + b"".join(struct.pack(kind, place) for place in places)
        parts.append(_box(name, content))
    return b"".join(parts)


def _end_of_boxes(data: bytes, start: int) -> int:
    """Where boxes end that begin at ``start``; FFmpeg ends those of DNxHR with four zeros."""
    while start + 8 <= len(data) and (size := struct.unpack_from(">I", data, start)[0]):
        start += size
    return start


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size > 0 and (data := source.read(min(size, _COPY_BYTES))):
        target.write(data)
        size -= len(data)
