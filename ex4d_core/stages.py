"""Stages of a backend's job: their names, their ETA inside the text of `JobStatus.stage`, and an ETA from the pace."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Stages in which no step tells how long the next one takes: loading models, encoding, and the first step with them.
LOAD_STAGE, ENCODE_STAGE, WARM_UP_STAGE = "load weights", "encode", "warm up"
DENOISE_STAGE, DECODE_STAGE = "denoise", "decode"
# The stage of a queued job that waits for disk space on the backend; its reason says how much.
NO_ROOM_STAGE = "waiting for disk space"
# In `Welcome.devices`, before the reason why no device takes a job.
PAUSED = ", paused: "

_ETA = re.compile(r", (\d+) s left$")

# An estimate from less time or less progress than this would fluctuate.
_MIN_SECONDS = 1.0
_MIN_FRACTION = 0.02


def stage_with_eta(stage: str, eta_seconds: float | None) -> str:
    """A stage as `JobStatus` carries it, with its ETA where that is known: "denoise, 90 s left"."""
    return stage if eta_seconds is None else f"{stage}, {eta_seconds:.0f} s left"


def stage_and_eta(text: str) -> tuple[str, float | None]:
    """The stage and the ETA (whole seconds) that `stage_with_eta` was given."""
    found = _ETA.search(text)
    return (text[: found.start()], float(found[1])) if found else (text, None)


_DETAILS = re.compile(r"(.*?)(?: \((.+)\))?(?:, part (\d{1,6}) of (\d{1,6}))?", re.DOTALL)


@dataclass(frozen=True)
class StageDetails:
    """What the text of a stage says, without its ETA: "denoise (fp8), part 12 of 40".

    Attributes:
        name: of the stage.
        arithmetic: what the backend computes it in; "" where it does not say so.
        part, parts: how much of the present step is done; 0, 0 where that is not known.
    """

    name: str
    arithmetic: str = ""
    part: int = 0
    parts: int = 0

    @staticmethod
    def of(text: str) -> StageDetails:
        """Read a stage, with or without its ETA."""
        found = _DETAILS.fullmatch(stage_and_eta(text)[0])
        assert found is not None, "the pattern takes any text"
        name, arithmetic, part, parts = found.groups()
        return StageDetails(name, arithmetic or "", int(part or 0), int(parts or 0))

    def __str__(self) -> str:
        part = f", part {self.part} of {self.parts}" if self.parts else ""
        return f"{self.title}{part}"

    @property
    def title(self) -> str:
        """The text without the part, so that it stays the same from step to step."""
        return f"{self.name} ({self.arithmetic})" if self.arithmetic else self.name

    @property
    def fraction(self) -> float:
        """How much of the present step is done, 0 to 1."""
        return min(1.0, self.part / self.parts) if self.parts else 0.0


# A job without progress for less than this is nothing to worry about: a step may take as long.
SILENT_SECONDS = 20.0


def silence_text(seconds: float, limit: float) -> str:
    """What users are told of a job that makes no progress; "" while that is normal."""
    return "" if seconds < SILENT_SECONDS else f"no progress for {seconds:.0f} s, stopped at {limit:.0f} s"


class Pace:
    """Estimates the ETA of the present stage from how much of it was done in how much time."""

    def __init__(self) -> None:
        """Start without a stage; each new stage starts over."""
        self._stage: str | None = None
        self._began = 0.0
        self._fraction = 0.0
        self._changed = (0.0, 0.0)
        self._reported: tuple[float, float] | None = None
        self._reported_at = 0.0

    def eta_seconds(self, now: float, stage: str, fraction: float, reported: float | None = None) -> float | None:
        """Seconds until the stage is over.

        Args:
            now: seconds on a monotonic clock.
            stage: what is being done.
            fraction: share of the stage that is done, 0 to 1.
            reported: the backend's own ETA at that fraction, which is better than an estimate.

        Returns:
            The reported ETA counted down, or an estimate at the average pace so far; None while nothing is known.
        """
        if reported is not None:
            if self._reported != (reported, fraction):
                self._reported, self._reported_at = (reported, fraction), now
            return max(0.0, reported - (now - self._reported_at))
        if stage != self._stage or fraction < self._fraction:
            self._stage, self._began, self._fraction, self._changed = stage, now, fraction, (now, fraction)
        if fraction != self._changed[1]:
            self._changed = (now, fraction)
        # Between two reports of progress the clock continues all the same.
        changed_at, fraction = self._changed
        elapsed, done = changed_at - self._began, fraction - self._fraction
        if elapsed < _MIN_SECONDS or done < _MIN_FRACTION:
            return None
        return max(0.0, (1.0 - fraction) * elapsed / done - (now - changed_at))
