"""From display times of source frames to a constant frame rate: which source frame each output frame shows."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ex4d.media.scan import Scan

_FALLBACK_RATE = Fraction(25)  # what FFmpeg, too, assumes for streams without any times
_LARGEST_DENOMINATOR = 1001  # enough for 24000/1001; finer fractions only spell out rounding of container times


@dataclass(frozen=True)
class Timeline:
    """`source_index` (T,) int64: output frame i, shown from i / `fps` on, is source frame `source_index[i]`."""

    fps: Fraction
    source_index: np.ndarray
    resampled: bool


def constant_rate(found: Scan) -> Timeline:
    """Lays source frames out at a constant rate.

    A rate under which every source frame is less than half a frame from its place (jitter of container times, phone
    footage with a little unsteadiness) keeps all frames once. Otherwise the average rate is taken, and each output
    frame is the last source frame shown at its time, so that the duration is kept.
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
    rate = average.limit_denominator(_LARGEST_DENOMINATOR) or average  # a frame in half an hour would round to 0
    output_seconds = np.arange(max(1, round(duration * rate))) / float(rate)
    # Half a tick of grace: a time that falls on a frame's start must not miss it by rounding.
    grace = float(found.time_base) / 2
    source_index = np.searchsorted(seconds, output_seconds + grace, side="right") - 1
    return Timeline(rate, source_index, resampled=True)
