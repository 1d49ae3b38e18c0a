"""Reports the engine's progress: loading, warming up, and denoising steps with the time that is left."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ex4d.generation.engine import GenerationProgress, ProgressCallback
from ex4d_core.final_sizes import window_lengths
from ex4d_core.stages import LOAD_STAGE, WARM_UP_STAGE
from ex4d_core.step_plan import step_plan
from ex4d_core.wan_settings import WanSettings


class ProgressReporter:
    """Counts steps over all windows, and calls the callback."""

    def __init__(self, callback: ProgressCallback | None, settings: WanSettings, count: int | None):
        self._callback = callback or (lambda progress: None)
        self._steps = settings.steps
        self._total = settings.steps * (len(window_lengths(count, settings)) if count else 1)
        self._passes = [len(step.computed) for step in step_plan(settings)]
        self._seconds: list[float] = []

    def report_load(self, done: int, total: int) -> None:
        """Report a tensor that was loaded."""
        self._callback(GenerationProgress(LOAD_STAGE, done, total))

    def report_warm_up(self) -> None:
        """Report the start of encoding and of the first step, which compiles kernels."""
        self._callback(GenerationProgress(WARM_UP_STAGE, 0, self._total))

    def report_step(self, window: int, step: int, seconds: float, image: Callable[[], np.ndarray]) -> None:
        """Report a denoising step. The first one also warms up, so it is left out of the ETA as soon as it can be.

        Steps take as long as the passes that they have, so that these are what is left.
        """
        self._seconds.append(seconds)
        done = window * self._steps + step
        total = max(self._total, done)
        ran = [self._passes_of(number) for number in range(done - len(self._seconds), done)]
        counted, passes = sum(self._seconds[1:]), sum(ran[1:])
        if not passes:
            counted, passes = sum(self._seconds), max(1, sum(ran))
        eta = counted / passes * sum(self._passes_of(number) for number in range(done, total))
        self._callback(GenerationProgress("denoise", done, total, eta, image()))

    def _passes_of(self, step: int) -> int:
        """Of a step, counted over all windows."""
        return self._passes[step % self._steps]
