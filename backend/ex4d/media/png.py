"""Writes and reads PNG files with text metadata: frames of a take, contact sheets, 16-bit depth.

The writer is our own, over zlib: frames are announced as files one by one, so its speed is part of a preview's. PyAV's
PNG encoder (level 1, filter "up") took 1.00 to 1.32 times the CPU time and 0.98 to 1.9 times the bytes for
renders, footage and masks of 512 x 512, 1.00 to 1.11 times and 0.92 to 2.9 times at 1920 x 1080, and writes no texts.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import av
import av.error
import numpy as np

from ex4d.media.media_errors import (
    MediaError,
    atomic_write,
    require_room_for_image,
    system_reason,
    translate_write_errors,
    unreadable,
)
from ex4d.media.pixels import FrameConverter, has_alpha

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _RGB, _RGBA = 0, 2, 6  # colour types of the PNG specification, 11.2.2
_FILTER_UP = 2  # each row as the difference to the row above: cheap in NumPy and good for renders and masks


def write_png(path: str | os.PathLike[str], image: np.ndarray, metadata: Mapping[str, str] | None = None) -> None:
    """Write an image, completely or not at all.

    Args:
        path: the file to write; an existing one is replaced.
        image: (H, W, 3) uint8 sRGB or uint16, (H, W, 4) uint16 with straight alpha, (H, W) uint8 or uint16, or (H, W)
            bool (written as 0 and 255).
        metadata: texts by keyword (1 to 79 characters of Latin-1), readable by `read_png_metadata`.

    Raises:
        MediaError: the file cannot be written.
        ValueError: another shape or type, or an impossible keyword.
    """
    path = Path(path)
    data = png_bytes(image, metadata)
    with atomic_write(path) as partial, translate_write_errors(path):
        partial.write_bytes(data)


def read_png(path: str | os.PathLike[str]) -> np.ndarray:
    """Read (H, W, 3) uint8 for colour, (H, W) uint8 or uint16 for gray. Transparency is composited over black.

    Raises:
        MediaError: not a PNG, truncated, or damaged.
    """
    frame = png_frame(_read(Path(path)), Path(path))
    name = frame.format.name
    if name.startswith("gray16"):
        return frame.to_ndarray().astype(np.uint16)
    rgb = FrameConverter().rgb(frame)
    is_gray = name in ("gray", "monob", "monow") or (name.startswith("ya") and has_alpha(frame.format))
    return np.ascontiguousarray(rgb[..., 0]) if is_gray else rgb


def read_png_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts of a PNG by keyword.

    Raises:
        MediaError: not a PNG, truncated, or damaged.
    """
    texts = {}
    for kind, body in _chunks(_read(Path(path)), Path(path)):
        keyword, _, rest = body.partition(b"\0")
        if kind == b"tEXt":
            texts[keyword.decode("latin-1")] = rest.decode("latin-1")
        elif kind == b"iTXt" and len(rest) >= 2:
            _, _, text = rest[2:].split(b"\0", 2)
            plain = zlib.decompress(text) if rest[0] else text
            texts[keyword.decode("latin-1")] = plain.decode("utf-8", "replace")
    return texts


def png_frame(data: bytes, path: Path) -> av.VideoFrame:
    """The decoded image of PNG bytes; `path` is for messages.

    Raises:
        MediaError: not a PNG, truncated, or damaged.
    """
    for _ in _chunks(data, path):
        pass  # the decoder itself would return half an image without an error
    if data[12:16] == b"IHDR":
        require_room_for_image(*struct.unpack_from(">II", data, 16), path)
    try:
        decoder = av.CodecContext.create("png", "r")
        frames = decoder.decode(av.Packet(data)) + decoder.decode(None)
    except av.error.FFmpegError as error:
        raise MediaError(f"{path}: damaged PNG ({system_reason(error)}). Write or copy it again.") from error
    if not frames:
        raise MediaError(f"{path}: damaged PNG (no image in it). Write or copy it again.")
    return frames[0]


def png_bytes(image: np.ndarray, metadata: Mapping[str, str] | None = None) -> bytes:
    """A PNG file's content; see `write_png`."""
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    kind = {(): _GRAY, (3,): _RGB, (4,): _RGBA}.get(image.shape[2:]) if image.ndim >= 2 else None
    is_known = kind is not None and image.dtype in (np.uint8, np.uint16)
    if not is_known or (kind == _RGBA and image.dtype == np.uint8) or 0 in image.shape:
        expected = "(H, W, 3) uint8 or uint16, (H, W, 4) uint16, or (H, W) uint8, uint16 or bool"
        raise ValueError(f"invalid image {image.shape} {image.dtype}: expected {expected}")
    height, width = image.shape[:2]
    depth = 8 * image.dtype.itemsize
    big_endian = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder(">"))
    rows = big_endian.view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _FILTER_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    assert kind is not None, "checked above"
    # After the filter only run lengths pay off at 8 bits; 16-bit ramps need real matches.
    strategy = zlib.Z_RLE if depth == 8 else zlib.Z_DEFAULT_STRATEGY
    deflate = zlib.compressobj(1, zlib.DEFLATED, 15, 9, strategy)
    pixels = deflate.compress(filtered.data) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    texts = b"".join(_text_chunk(keyword, text) for keyword, text in (metadata or {}).items())
    srgb = _chunk(b"sRGB", b"\0") if depth == 8 else b""
    return _SIGNATURE + _chunk(b"IHDR", header) + srgb + texts + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _text_chunk(keyword: str, text: str) -> bytes:
    """A tEXt chunk where Latin-1 is enough, since more programs show it; else iTXt, which is UTF-8."""
    try:
        key = keyword.encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(f"invalid PNG keyword {keyword!r}: expected Latin-1") from error
    if not 1 <= len(key) <= 79 or b"\0" in key or "\0" in text:
        raise ValueError(f"invalid PNG keyword {keyword!r}: expected 1 to 79 characters, without zero bytes")
    try:
        return _chunk(b"tEXt", key + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", key + b"\0\0\0\0\0" + text.encode("utf-8"))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _chunks(data: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    """(kind, body) of every chunk up to IEND, each with its checksum verified."""
    if not data:
        raise MediaError(f"{path}: the file is empty (0 bytes). Write or copy it again.")
    if not data.startswith(_SIGNATURE):
        raise MediaError(f"{path}: not a PNG. Choose another file or convert it.")
    position = len(_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        body = data[position + 8 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        if len(checksum) < 4:
            break
        if checksum != struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))):
            raise MediaError(f"{path}: damaged PNG (wrong checksum in chunk {kind!r}). Write or copy it again.")
        yield kind, body
        if kind == b"IEND":
            return
        position += 12 + length
    raise MediaError(f"{path}: truncated PNG ({len(data)} bytes, its end is missing). Write or copy it again.")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
