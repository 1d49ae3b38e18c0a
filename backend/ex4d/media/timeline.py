"""Resamples frames with display times to a constant frame rate."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ex4d.media.scan import Scan

_FALLBACK_RATE = Fraction(25)  # FFmpeg's own assumption for streams without any times
_LARGEST_DENOMINATOR = 1001  # enough for 24000/1001; finer fractions only reproduce rounding errors of container times
# Rates that cameras, editors and screen recorders have. Containers round them: 59.94 as 19001/317, for one.
_NOMINAL_RATES = (
    *(Fraction(rate) for rate in (5, 6, 8, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 72, 75, 90, 96, 100, 120, 144, 240)),
    *(Fraction(1000 * rate, 1001) for rate in (12, 24, 30, 48, 60, 96, 120, 240)),
)
# A rate this close to a nominal one is that rate; 30 and 30000/1001 differ by 1e-3.
_ROUNDING = 2e-4
# Recorders vary their steps by more than containers round, so that a median step says less.
_STEP_ROUNDING = 2e-2
_FIT_ROUNDING = 2e-3
# Of the usual step: a longer one is a missing frame, or one that is held.
_LONG_STEP = 1.75
# Up to this rate footage is resampled without dropping frames, unless its own nominal rate is higher.
_HIGHEST_RATE = 120
# Held frames cost as much as others: a slide show of hours is resampled to its average rate.
_MOST_HELD = 100
# A recorder's glitch drops this share of frames at most; footage without any nominal rate would lose more.
_FEW_DROPPED = 0.05


@dataclass(frozen=True)
class Timeline:
    """A constant rate: output frame i, shown at i / `fps`, is source frame `source_index[i]` ((T,) int64).

    `held` output frames show a frame again, `dropped` source frames are not shown.
    """

    fps: Fraction
    source_index: np.ndarray
    held: int = 0
    dropped: int = 0

    @property
    def resampled(self) -> bool:
        """Whether frames are shown again or dropped."""
        return bool(self.held or self.dropped)


def constant_rate(found: Scan) -> Timeline:
    """Assign source frames to a constant rate.

    Footage without missing frames, each less than half a frame off (jitter of container times, phone footage with
    slightly varying rate), keeps all frames once; a last one that lasts longer is held. Otherwise the rate is the
    nominal one, that of most steps, or the lowest higher one at which no two source frames fall into one output frame,
    and a frame that lasts longer is held. Only where such a rate would be above `_HIGHEST_RATE`, or frames would be
    held excessively, frames may be dropped.
    """
    once = np.arange(found.readable)
    declared = [_nominal(rate) for rate in found.declared_rates]
    if found.times is None or found.readable < 2:
        return Timeline(next(iter(declared), _FALLBACK_RATE), once)
    seconds = (found.times - found.times[0]) * float(found.time_base)
    steps = np.diff(seconds)
    usual = float(np.median(steps))
    last = found.last_duration * float(found.time_base) or usual
    end = float(seconds[-1]) + last
    if steps.max() < _LONG_STEP * usual:
        for rate in _fitted_rates(seconds, declared):
            if np.abs(seconds * float(rate) - once).max() < 0.5:
                held = _at_rate(seconds, rate, end) if last >= _LONG_STEP * usual else None
                return held or Timeline(rate, once)
    candidates = _candidates(seconds, declared)
    for rate in candidates:
        timeline = _at_rate(seconds, rate, end)
        if timeline and not timeline.dropped:
            return timeline
    timeline = _at_rate(seconds, candidates[0], end) if candidates else None
    if timeline and timeline.dropped < _FEW_DROPPED * found.readable:
        return timeline
    return _at_average_rate(found, seconds, end)


def _fitted_rates(seconds: np.ndarray, declared: list[Fraction]) -> list[Fraction]:
    """Rates for footage without missing frames: nominal ones first, then whatever is declared or fits."""
    slope = np.polyfit(np.arange(len(seconds)), seconds, 1)[0]
    ends = (len(seconds) - 1) / Fraction(float(seconds[-1])).limit_denominator(10**9)
    fitted = (1 / Fraction(float(slope))).limit_denominator(_LARGEST_DENOMINATOR)
    rates = [rate for rate in declared if rate in _NOMINAL_RATES]
    rates += [_nominal(fitted, _FIT_ROUNDING), *declared, ends.limit_denominator(_LARGEST_DENOMINATOR), fitted]
    return [rate for rate in rates if rate > 0]


def _nominal(rate: Fraction, rounding: float = _ROUNDING) -> Fraction:
    """The rate that cameras have which a rounded one stands for, or the rate itself."""
    nearest = min(_NOMINAL_RATES, key=lambda one: abs(one / rate - 1)) if rate > 0 else rate
    return nearest if rate > 0 and abs(nearest / rate - 1) < rounding else rate


def _candidates(seconds: np.ndarray, declared: list[Fraction]) -> list[Fraction]:
    """Rates to try for footage with unequal steps, the preferred ones first."""
    steps = np.diff(seconds)
    usual = _rate_of_step(float(np.median(steps)))
    near = [rate for rate in (*declared, *_NOMINAL_RATES) if rate > 0 and abs(rate / usual - 1) < _STEP_ROUNDING]
    near.sort(key=lambda rate: -round(float(abs(_phase(seconds, rate))), 3))
    highest = max(_HIGHEST_RATE, usual)
    short = [_rate_of_step(float(np.quantile(steps, share))) for share in (0.1, 0.0)]
    multiples = [usual * factor for factor in (2, 3, 4)]
    higher = sorted(rate for rate in _NOMINAL_RATES if rate.denominator == 1)
    rates = (*near, usual, *short, *multiples, *higher)
    lowest = usual * (1 - Fraction(_STEP_ROUNDING))
    return [rate for rate in dict.fromkeys(rates) if lowest <= rate <= highest]


def _rate_of_step(step: float) -> Fraction:
    """The nominal rate of a step in seconds: of those with whole frames a second, unless it is closer to none."""
    rate = (1 / Fraction(step)).limit_denominator(_LARGEST_DENOMINATOR) or 1 / Fraction(step)
    exact = _nominal(rate)
    return exact if exact in _NOMINAL_RATES else _nominal(rate, _STEP_ROUNDING)


def _phase(seconds: np.ndarray, rate: Fraction) -> complex:
    """Mean of the times' places within an output frame, on the unit circle: of length 1 if all fall on one place."""
    return complex(np.exp(2j * np.pi * seconds * float(rate)).mean())


def _at_rate(seconds: np.ndarray, rate: Fraction, end: float) -> Timeline | None:
    """The timeline at a rate; None where frames would be held excessively.

    Times are rounded after the shift that suits most of them: the first frame may be off as well as any other.
    """
    slots = np.rint(seconds * float(rate) - np.angle(_phase(seconds, rate)) / (2 * np.pi)).astype(np.int64)
    slots -= slots[0]
    frames = max(round(end * float(rate)), int(slots[-1]) + 1)
    if frames > _MOST_HELD * len(seconds):
        return None
    return _timeline(rate, np.searchsorted(slots, np.arange(frames), side="right") - 1, len(seconds))


def _at_average_rate(found: Scan, seconds: np.ndarray, end: float) -> Timeline:
    """Each output frame is the last source frame shown at its time, at a rate that keeps number and duration."""
    average = found.readable / Fraction(end).limit_denominator(10**9)
    rate = average.limit_denominator(_LARGEST_DENOMINATOR) or average  # one frame in half an hour would round to 0
    output_seconds = np.arange(max(1, round(end * float(rate)))) / float(rate)
    # Half a tick of tolerance: a time equal to a frame's start must not miss it by rounding.
    grace = float(found.time_base) / 2
    return _timeline(rate, np.searchsorted(seconds, output_seconds + grace, side="right") - 1, found.readable)


def _timeline(rate: Fraction, source_index: np.ndarray, frames: int) -> Timeline:
    shown = len(np.unique(source_index))
    return Timeline(rate, source_index, len(source_index) - shown, frames - shown)
