"""What identifies footage: the SHA-256 of its files, and the timecode of its first frame."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ex4d.media.media_errors import unreadable
from ex4d.media.scan import open_video
from ex4d.media.sequences import IMAGE_SUFFIXES, is_sequence, sequence_files

# Hours to frames; a semicolon before the frames means drop-frame (SMPTE ST 12-1).
_TIMECODE = re.compile(r"\d\d:\d\d:\d\d[:;.]\d{2,3}")
_PIECE_BYTES = 1 << 20


def footage_sha256(path: Path) -> str:
    """SHA-256 in hexadecimal of a video file, or of a sequence's files one after the other.

    Raises:
        MediaError: a file cannot be read, or there is none.
    """
    digest = hashlib.sha256()
    for file in sequence_files(path, IMAGE_SUFFIXES) if is_sequence(path) else [path]:
        try:
            with file.open("rb") as stream:
                while piece := stream.read(_PIECE_BYTES):
                    digest.update(piece)
        except OSError as error:
            raise unreadable(file, error) from error
    return digest.hexdigest()


def start_timecode(path: Path) -> str:
    """Timecode of the first frame of a video file, as the file has it; "" for none, and for an image sequence.

    QuickTime and MP4 keep it in a track of its own, MXF in the container, MPEG and others in the video stream.

    Raises:
        MediaError: not a readable video.
    """
    if is_sequence(path):
        return ""
    with open_video(path) as (container, video):
        for metadata in (video.metadata, container.metadata, *(stream.metadata for stream in container.streams)):
            if found := _TIMECODE.fullmatch(metadata.get("timecode", "").strip()):
                return found.group()
    return ""
