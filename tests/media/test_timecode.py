"""Timecode of later frames, with and without dropped numbers."""

from __future__ import annotations

from fractions import Fraction

import pytest

from ex4d.media.timecode import paired_timecode, timecode_after, timecode_text

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("start", "frames", "fps", "expected"),
    [
        ("01:00:00:00", 25, Fraction(25), "01:00:01:00"),
        ("23:59:59:23", 1, Fraction(24), "00:00:00:00"),
        ("01:00:00:00", 24, Fraction(24000, 1001), "01:00:01:00"),
        ("01:00:59;29", 1, NTSC, "01:01:00;02"),
        ("01:09:59;29", 1, NTSC, "01:10:00;00"),
        ("00:00:00;00", 17982, NTSC, "00:10:00;00"),
        ("00:00:00;00", 1800, NTSC, "00:01:00;02"),
        ("01:00:59;59", 1, Fraction(60000, 1001), "01:01:00;04"),
        ("01:00:59:29", 1, NTSC, "01:01:00:00"),
    ],
)
def test_counts_frames(start, frames, fps, expected) -> None:
    parts = timecode_after(start, frames, fps)
    assert parts is not None and timecode_text(parts) == expected


def test_footage_without_timecode_has_none() -> None:
    assert timecode_after("", 3, Fraction(24)) is None


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (Fraction(30), [(28, False), (29, False)]),
        (Fraction(50), [(24, False), (24, True)]),
        (Fraction(60000, 1001), [(29, False), (29, True)]),
        (Fraction(120), [None, None]),
    ],
)
def test_above_30_frames_a_second_pairs_are_numbered(fps, expected) -> None:
    """The last two frames of a second."""
    last = [(1, 2, 3, round(fps) - back, False) for back in (2, 1)]
    found = [paired_timecode(parts, fps) for parts in last]
    assert [one and (one[0][3], one[1]) for one in found] == expected
    assert all(one is None or one[0][:3] == (1, 2, 3) for one in found)
