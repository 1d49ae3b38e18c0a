"""Small movies for pages that stand alone: the first frames of a result, H.264, as text of the page."""

from __future__ import annotations

import base64
import tempfile
from fractions import Fraction
from pathlib import Path

from ex4d.evaluation.clips import Frames
from ex4d.media import VideoWriter, probe

LONGEST_SIDE = 320  # pixels of a page's movie
MOST_FRAMES = 120


def video_data(path: Path, longest_side: int = LONGEST_SIDE) -> str:
    """A data: address of a small copy of a movie or an image sequence, at most `MOST_FRAMES` long.

    Raises:
        MediaError: it cannot be read.
    """
    found = probe(path)
    scale = min(1.0, longest_side / max(found.width, found.height))
    # H.264 with half of the colours' pixels needs even sides.
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (found.width, found.height))
    with tempfile.TemporaryDirectory(prefix="ex4d-page-") as folder:
        small = Path(folder) / "small.mp4"
        with VideoWriter(small, width, height, Fraction(found.fps)) as writer:
            for frame in Frames(path, (width, height), MOST_FRAMES):
                writer.write(frame)
        return "data:video/mp4;base64," + base64.b64encode(small.read_bytes()).decode("ascii")
