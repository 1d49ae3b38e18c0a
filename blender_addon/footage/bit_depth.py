"""Tells whether footage can have more than 8 bits, so that other footage shows no settings for them."""

from __future__ import annotations

from pathlib import Path

# Image sequences of these kinds may have more, and videos for editing mostly do.
_DEEP_IMAGES = (".exr", ".dpx", ".tif", ".tiff", ".png")
_DEEP_VIDEOS = (".mxf",)
_MOVIES = (".mov", ".mp4", ".m4v")
# Sample descriptions of ProRes and DNxHR.
_DEEP_CODECS = (b"apco", b"apcs", b"apcn", b"apch", b"ap4h", b"ap4x", b"AVdh")
# Of a movie's table of contents; that of an hour has a few megabytes.
_MOST_BYTES = 32 * 1024 * 1024
# Of a folder.
_MOST_FILES = 1000


def may_be_deep(footage: Path) -> bool:
    """Whether a video, or the images of a folder, may have more than 8 bits; False where that cannot be read."""
    try:
        if footage.is_dir():
            names = (path.suffix.lower() for _, path in zip(range(_MOST_FILES), footage.iterdir(), strict=False))
            return any(suffix in _DEEP_IMAGES for suffix in names)
        suffix = footage.suffix.lower()
        return suffix in _DEEP_VIDEOS or (suffix in _MOVIES and _is_deep(_table_of_contents(footage)))
    except OSError:
        return False


def _table_of_contents(movie: Path) -> bytes:
    """The box "moov" of a QuickTime or MP4 file (ISO/IEC 14496-12, 4.2); b"" without one."""
    with open(movie, "rb") as file:
        while len(head := file.read(8)) == 8:
            size, name, read = int.from_bytes(head[:4], "big"), head[4:], 8
            if size == 1:
                size, read = int.from_bytes(file.read(8), "big"), 16
            if name == b"moov":
                return file.read(min(size - read if size else _MOST_BYTES, _MOST_BYTES))
            if size < read:  # to the end of the file, or damaged
                break
            file.seek(size - read, 1)
    return b""


def _is_deep(contents: bytes) -> bool:
    """Whether a table of contents names a codec of more than 8 bits, or H.265 with more (ISO/IEC 14496-15, 8.3.3)."""
    if any(name in contents for name in _DEEP_CODECS):
        return True
    place = contents.find(b"hvcC")
    return place >= 0 and len(contents) > place + 21 and contents[place + 21] & 7 > 0
