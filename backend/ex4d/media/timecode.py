"""SMPTE timecode (ST 12-1): that of a frame some frames after another one."""

from __future__ import annotations

import re
from fractions import Fraction

_PAIRED_RATES = (48, 50, 60)
_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d{2,3})")


def timecode_after(start: str, frames: int, fps: Fraction) -> tuple[int, int, int, int, bool] | None:
    """Hours, minutes, seconds, frames and whether frame numbers are dropped, of a timecode.

    Args:
        start: such as "01:00:00:00", with a semicolon before the frames where numbers are dropped.
        frames: to count from there.
        fps: of the footage; 29.97 counts 30 frames a second.

    Returns:
        None without a timecode.
    """
    found = _TIMECODE.fullmatch(start)
    if found is None:
        return None
    hours, minutes, seconds = (int(found.group(k)) for k in (1, 2, 3))
    rate = round(fps)
    # Of 30 frames a second 2 numbers are left out in each minute, but not in every tenth; of 60, 4.
    dropped = round(rate / 15) if found.group(4) == ";" and rate % 30 == 0 else 0
    passed = 60 * hours + minutes
    count = (60 * passed + seconds) * rate + int(found.group(5)) - dropped * (passed - passed // 10) + frames
    if dropped:
        ten = 600 * rate - 9 * dropped
        tens, rest = divmod(count, ten)
        count += 9 * dropped * tens
        if rest >= dropped:
            count += dropped * ((rest - dropped) // (60 * rate - dropped))
    seconds, frame = divmod(count, rate)
    return seconds // 3600 % 24, seconds // 60 % 60, seconds % 60, frame, bool(dropped)


def paired_timecode(
    parts: tuple[int, int, int, int, bool], fps: Fraction
) -> tuple[tuple[int, int, int, int, bool], bool] | None:
    """A timecode where frame numbers end at 29: at 48, 50 and 60 frames a second, pairs of frames are numbered.

    Args:
        parts: as of `timecode_after`.
        fps: of the footage.

    Returns:
        The timecode with the number of the pair, and whether the frame is the second one of its pair, which the field
        flag of ST 12-1 tells. None at rates that ST 12-1 does not have.
    """
    rate = round(fps)
    if rate <= 30:
        return parts, False
    if rate not in _PAIRED_RATES:
        return None
    hours, minutes, seconds, frame, dropped = parts
    return (hours, minutes, seconds, frame // 2, dropped), bool(frame % 2)


def timecode_text(parts: tuple[int, int, int, int, bool]) -> str:
    """A timecode as text."""
    hours, minutes, seconds, frame, dropped = parts
    return f"{hours:02}:{minutes:02}:{seconds:02}{';' if dropped else ':'}{frame:02}"
