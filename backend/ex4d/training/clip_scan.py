"""Finds the windows of a clip: shots between cuts, long enough, in which something moves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ex4d.depth.cut_detection import CutDetector
from ex4d.media import MediaError, probe, read_frames
from ex4d.media.pixels import resized
from ex4d.training.dataset_settings import DatasetSettings
from ex4d_core.plain_text import plain_line
from ex4d_core.schema import Settings

# Images are compared at this size: grain and compression average out.
_SIDE = 24

UNREADABLE, TOO_SHORT, STILL = "unreadable clips", "shots too short", "still windows"


@dataclass(frozen=True)
class ClipScan(Settings):
    """What a clip is good for.

    Attributes:
        starts: first frames of its windows.
        frames: that it has.
        cuts: how many it has.
        dropped: what cannot be used, by reason.
        problem: why it cannot be read; "" where it can.
    """

    starts: tuple[int, ...] = ()
    frames: int = 0
    cuts: int = 0
    dropped: dict[str, int] | None = None
    problem: str = ""


def scan_clip(footage: Path, settings: DatasetSettings) -> ClipScan:
    """Read a clip once, and choose its windows.

    A clip that cannot be read to its end is dropped as a whole, with the reason.
    """
    detector, small = CutDetector(), []
    try:
        probe(footage)
        for image in read_frames(footage):
            detector.begins_shot(image)
            small.append(resized(image, _SIDE, _SIDE))
    except (MediaError, OSError) as error:
        return ClipScan(dropped={UNREADABLE: 1}, problem=plain_line(str(error)))
    starts, dropped = [], Counter()
    for begin, end in pairwise([0, *detector.cuts, len(small)]):
        of_shot = range(begin, end - settings.frames + 1, settings.step)
        dropped[TOO_SHORT] += not of_shot
        for start in of_shot:
            moves = motion(np.stack(small[start : start + settings.frames])) >= settings.still
            dropped[STILL] += not moves
            if moves:
                starts.append(start)
    if settings.windows and len(starts) > settings.windows:
        starts = [starts[place] for place in np.linspace(0, len(starts) - 1, settings.windows).round().astype(int)]
    return ClipScan(tuple(starts), len(small), len(detector.cuts), {name: n for name, n in dropped.items() if n})


def motion(images: np.ndarray) -> float:
    """How far images (T, h, w, 3) uint8 get from the first one: the largest mean difference, of 1."""
    difference = np.abs(images.astype(np.float32) - images[0].astype(np.float32))
    return float(difference.mean(axis=(1, 2, 3)).max() / 255)
