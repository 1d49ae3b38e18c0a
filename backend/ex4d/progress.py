"""The type of every progress callback, and a callback that ignores all reports."""

from __future__ import annotations

from collections.abc import Callable

# Called with the stage of the work ("depth", "render"), how many of its steps are done, and how many there are. What it
# raises ends the work. A final's stage says more, "denoise (fp8), part 12 of 40": see `ex4d_core.stages.StageDetails`.
Progress = Callable[[str, int, int], None]


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Ignores all reports."""
