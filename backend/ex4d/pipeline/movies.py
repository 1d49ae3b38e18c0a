"""Generates a finished movie from a colour and a mask movie, in the formats of the original EX-4D's generator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ex4d.generation import Engine, GenerationProgress
from ex4d.media import FootageInfo, MediaError, VideoWriter, probe, read_frames
from ex4d.pipeline.targets import require_file, require_movie_name
from ex4d.progress import Progress, ignore_progress
from ex4d.raster import RenderedFrame

# Above this a pixel of a mask movie counts as seen; EX-4D's own threshold.
_SEEN = 125


def repaint_movies(
    color_path: Path,
    mask_path: Path,
    output: Path,
    engine: Engine,
    *,
    frames: int | None = None,
    progress: Progress = ignore_progress,
    overwrite: bool = False,
) -> None:
    """Let an engine repaint what a mask movie (white = seen) marks as unseen in a colour movie.

    Args:
        frames: take only this many from the start.
        progress: called with the engine's stages.
        overwrite: replace a movie of ours.

    Raises:
        OutputError: the output is an input or exists, or does not end in .mp4.
        MediaError: a movie cannot be read or written, or the two differ in size or length.
    """
    require_movie_name(output)
    require_file(output, inputs=[color_path, mask_path], overwrite=overwrite)
    color, mask = probe(color_path), probe(mask_path)
    if (color.width, color.height, color.frames) != (mask.width, mask.height, mask.frames):
        raise MediaError(
            f"{color.path} has {color.frames} frames of {color.width}x{color.height}, {mask.path} has {mask.frames} "
            f"of {mask.width}x{mask.height}; render both at one size and length"
        )
    count = min(frames or color.frames, color.frames)

    def on_progress(step: GenerationProgress) -> None:
        progress(step.stage, step.done, step.total)

    metadata = {"ex4d_engine": engine.name}
    with VideoWriter(output, color.width, color.height, color.fps, metadata=metadata) as movie:
        finished = engine.generate(_rendered(color, mask, count), count=count, on_progress=on_progress)
        for done, frame in enumerate(finished, start=1):
            movie.write(frame)
            progress(engine.name, done, count)


def _rendered(color: FootageInfo, mask: FootageInfo, count: int) -> Iterator[RenderedFrame]:
    """Rendered frames from two movies. Movies have no depth: every seen pixel counts as equally far."""
    pairs = zip(read_frames(color.path, count=count), read_frames(mask.path, count=count), strict=True)
    for index, (image, mask_image) in enumerate(pairs):
        seen = mask_image[..., 1] > _SEEN
        yield RenderedFrame(index, image * seen[..., None], seen, np.ones(seen.shape, np.float32))
