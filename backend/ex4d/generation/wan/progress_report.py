"""Reports the engine's progress: loading, encoding, warming up, denoising with the time that is left, decoding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ex4d.generation.engine import GenerationProgress, ProgressCallback
from ex4d_core.final_sizes import window_lengths
from ex4d_core.stages import DECODE_STAGE, DENOISE_STAGE, ENCODE_STAGE, LOAD_STAGE, WARM_UP_STAGE
from ex4d_core.step_plan import step_plan
from ex4d_core.wan_settings import WanSettings


class ProgressReporter:
    """Counts steps over all windows, and calls the callback."""

    def __init__(
        self, callback: ProgressCallback | None, settings: WanSettings, count: int | None, arithmetic: str = ""
    ):
        """Report a shot of ``count`` frames, whose steps are computed in ``arithmetic``, for people."""
        self._arithmetic = arithmetic
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

    def report_encode(self, done: int, total: int) -> None:
        """Report layers of an encoder, over all that it encodes."""
        self._callback(GenerationProgress(ENCODE_STAGE, done, total))

    def report_decode(self, done: int, total: int) -> None:
        """Report layers of the decoder, over the latent whose frames come next."""
        self._callback(GenerationProgress(DECODE_STAGE, done, total))

    def report_part(self, window: int, steps: int, part: int, parts: int) -> None:
        """Report a part of the step after the first ``steps`` of a window, without an image."""
        done = window * self._steps + steps
        total = max(self._total, done + 1)
        stage, eta = WARM_UP_STAGE, None
        if self._seconds:
            left = self._passes_left(done, total) - self._passes_of(done) * part / parts
            stage, eta = DENOISE_STAGE, left * self._pass_seconds(done)
        told = GenerationProgress(stage, done, total, eta, part=part, parts=parts, arithmetic=self._arithmetic)
        self._callback(told)

    def report_step(self, window: int, step: int, seconds: float, image: Callable[[], np.ndarray]) -> None:
        """Report a denoising step."""
        self._seconds.append(seconds)
        done = window * self._steps + step
        total = max(self._total, done)
        eta = self._passes_left(done, total) * self._pass_seconds(done)
        told = GenerationProgress(DENOISE_STAGE, done, total, eta, image(), arithmetic=self._arithmetic)
        self._callback(told)

    def _passes_left(self, done: int, total: int) -> int:
        return sum(self._passes_of(number) for number in range(done, total))

    def _pass_seconds(self, done: int) -> float:
        """The average pass: steps take as long as the passes that they have.

        The first step also warms up, so it is left out as soon as it can be.
        """
        ran = [self._passes_of(number) for number in range(done - len(self._seconds), done)]
        if passes := sum(ran[1:]):
            return sum(self._seconds[1:]) / passes
        return sum(self._seconds) / max(1, sum(ran))

    def _passes_of(self, step: int) -> int:
        """Of a step, counted over all windows."""
        return self._passes[step % self._steps]
