"""Resamples frames with display times to a constant frame rate."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ex4d.media.scan import Scan

_FALLBACK_RATE = Fraction(25)  # FFmpeg's own assumption for streams without any times
_LARGEST_DENOMINATOR = 1001  # enough for 24000/1001; finer fractions only reproduce rounding errors of container times


@dataclass(frozen=True)
class Timeline:
    """A constant rate: output frame i, shown at i / `fps`, is source frame `source_index[i]` ((T,) int64)."""

    fps: Fraction
    source_index: np.ndarray
    resampled: bool


def constant_rate(found: Scan) -> Timeline:
    """Assign source frames to a constant rate.

    A rate at which every source frame is less than half a frame off (jitter of container times, phone footage with
    slightly varying rate) keeps all frames once. Otherwise the average rate is taken, and each output frame is the last
    source frame shown at its time, so that the duration is kept.
    """
    once = np.arange(found.readable)
    if found.times is None or found.readable < 2:
        rate = next(iter(found.declared_rates), _FALLBACK_RATE)
        return Timeline(rate, once, resampled=False)
    seconds = (found.times - found.times[0]) * float(found.time_base)
    span = int(found.times[-1] - found.times[0]) * found.time_base
    fitted = (Fraction(found.readable - 1) / span).limit_denominator(_LARGEST_DENOMINATOR)
    for rate in (*found.declared_rates, fitted):
        if rate > 0 and np.abs(seconds * float(rate) - once).max() < 0.5:
            return Timeline(rate, once, resampled=False)
    last = found.last_duration or int(np.median(np.diff(found.times)))
    duration = span + last * found.time_base
    average = found.readable / duration
    rate = average.limit_denominator(_LARGEST_DENOMINATOR) or average  # one frame in half an hour would round to 0
    output_seconds = np.arange(max(1, round(duration * rate))) / float(rate)
    # Half a tick of tolerance: a time equal to a frame's start must not miss it by rounding.
    grace = float(found.time_base) / 2
    source_index = np.searchsorted(seconds, output_seconds + grace, side="right") - 1
    return Timeline(rate, source_index, resampled=True)
