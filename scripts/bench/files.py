"""Benchmarks what the files of a take add to a job: `ex4d bench generate --part files`.

The frames come from an engine that computes elsewhere, as a GPU does: this processor waits for each. They are written
as `ex4d.pipeline.take` does it, in the thread that waits for the engine and in other threads.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np

from bench.measuring import Row
from ex4d.media import BackgroundVideoWriter, VideoWriter, read_frames
from ex4d.media.pixels import resized
from ex4d.pipeline.frame_files import FrameFiles, write_for_sink

_SAMPLE = Path(__file__).resolve().parents[2] / "tests" / "data" / "sample" / "footage.mp4"
_SIZES = ((512, 512), (1920, 1080))
_FRAMES = 16
# Seconds of a job of 49 frames of 512x512 on an H200: the target of the preset standard, and as measured.
_JOBS = {"standard": 15.0, "fast": 3.26}
_MOVIES = ("color.mp4", "mask.mp4", "take.mp4")
_TARGET = 0.03


def measure_files() -> Iterator[Row]:
    """Rows for each size: milliseconds a frame in this thread and in others, and their share of a job."""
    for width, height in _SIZES:
        images = [resized(frame, width, height) for frame in read_frames(_SAMPLE, count=_FRAMES)]
        masks = [image[..., 1] > 100 for image in images]
        for preset, job in _JOBS.items():
            pace = job / 49 * width * height / 512**2
            here, threads = (
                _added_seconds(write, images, masks, pace) / _FRAMES for write in (_in_this_thread, _in_threads)
            )
            what = f"files of a {width}x{height} frame, {preset}"
            remark = f"at {1000 * pace:.0f} ms a frame"
            yield Row(f"{what}, in the same thread", f"{1000 * here:.1f} ms", f"{here / pace:.1%} of the job, {remark}")
            remark = f"{threads / pace:.1%} of the job, target {_TARGET:.0%}; {threads / here:.2f} x the same thread's"
            yield Row(f"{what}, in other threads", f"{1000 * threads:.1f} ms", remark)


def _added_seconds(write: Callable[..., None], images: list[np.ndarray], masks: list[np.ndarray], pace: float) -> float:
    """What writing adds to the time that an engine takes at a pace of seconds a frame."""
    with tempfile.TemporaryDirectory(prefix="ex4d-bench-") as folder:
        started = time.perf_counter()
        write(Path(folder), images, masks, lambda: time.sleep(pace))
        return time.perf_counter() - started - len(images) * pace


def _in_this_thread(
    folder: Path, images: list[np.ndarray], masks: list[np.ndarray], wait_for_engine: Callable[[], None]
) -> None:
    with ExitStack() as opened:
        movies = _movies(opened, VideoWriter, folder, images[0])
        for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
            wait_for_engine()
            write_for_sink(folder / f"{index}.png", image)
            for movie, frame in zip(movies, (image, mask, image), strict=True):
                movie.write(frame)


def _in_threads(
    folder: Path, images: list[np.ndarray], masks: list[np.ndarray], wait_for_engine: Callable[[], None]
) -> None:
    with ExitStack() as opened:
        movies = _movies(opened, BackgroundVideoWriter, folder, images[0])
        files = opened.enter_context(FrameFiles(lambda index, path: None, {}))
        for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
            wait_for_engine()
            files.write(index, folder / f"{index}.png", image)
            for movie, frame in zip(movies, (image, mask, image), strict=True):
                movie.write(frame)
        files.deliver_all()


def _movies(opened: ExitStack, kind: type[VideoWriter], folder: Path, image: np.ndarray) -> list[VideoWriter]:
    height, width = image.shape[:2]
    return [opened.enter_context(kind(folder / name, width, height, Fraction(24))) for name in _MOVIES]
