"""Rendering of long clips, by any rasterizer, in batches that fit into the device's memory.

While a batch is being copied from the GPU the next one is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from ex4d.devices import cpu_cores
from ex4d.mesh import DepthSurface
from ex4d.raster.frames import RenderedBatch, page_locked_copy
from ex4d.raster.mask_cleaning import different_tiles, edge_tiles, hold_steady
from ex4d.raster.rasterizer import Rasterizer, RenderMemoryError, require_same_frames
from ex4d_core.cameras import CameraPath

# Pixels of a batch, of the footage or of the render: enough to keep a GPU busy, little enough to copy and draw at once.
BATCH_PIXELS = 1 << 24
CPU_BATCH_PIXELS = 1 << 21


def render_in_batches(
    rasterizer: Rasterizer,
    surface: DepthSurface,
    camera: CameraPath,
    *,
    with_depth: bool = False,
    samples: int = 1,
    around: tuple[DepthSurface, DepthSurface] | None = None,
    batch_frames: int | None = None,
) -> Iterator[RenderedBatch]:
    """Render as `Rasterizer.render` does, batch after batch.

    Args:
        rasterizer: draws the batches.
        surface: T frames, on the rasterizer's device or in host memory, from where it is copied batch by batch.
        camera: of T frames.
        with_depth: also return depth.
        samples: of each pixel, per axis.
        around: what the frames of the footage before and after each frame show; they hold its mask steady.
        batch_frames: the most frames of a batch; chosen by their size if not given. Where the device's memory is
            too small for it, batches get smaller.

    Yields:
        The frames in order, in host memory (page-locked where they come from a GPU).

    Raises:
        RenderMemoryError: not even one frame fits into the device's memory.
        ValueError, MeshDepthError: see `Rasterizer.render`.
    """
    if batch_frames is not None and batch_frames < 1:
        raise ValueError(f"invalid batch_frames {batch_frames}: expected at least 1")
    require_same_frames(surface, camera)
    size = batch_frames or _batch_frames(rasterizer, surface, camera.width * camera.height)
    start, pending = 0, None
    while start < surface.frames:
        current, shortage = None, None
        try:
            part = start, start + size
            how = {"with_depth": with_depth, "samples": samples}
            frames = rasterizer.render(surface.frame_range(*part), camera.frames(*part), **how)
            if around is not None:
                beside = (near.frame_range(*part) for near in around)
                frames = _held_steady(rasterizer, frames, *beside, camera.frames(*part))
            current = _start_copy(frames)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            shortage = str(error)  # not the error itself, whose stack frames keep memory allocated
        if pending is not None:
            yield pending.finish()
        pending = current
        if current is not None:
            start += size
            if current.done is None:  # nothing is being copied, so the caller gets these frames now
                pending = None
                yield current.finish()
            continue
        torch.cuda.empty_cache()
        if size == 1:
            raise RenderMemoryError(
                f"{rasterizer.device} has too little memory for a single frame of {surface.size[0]} x "
                f"{surface.size[1]} pixels rendered at {camera.width} x {camera.height}: close other programs that "
                f"use it, render smaller, or use device cpu ({shortage})"
            )
        size //= 2
    if pending is not None:
        yield pending.finish()


def _held_steady(
    rasterizer: Rasterizer, drawn: RenderedBatch, earlier: DepthSurface, later: DepthSurface, camera: CameraPath
) -> RenderedBatch:
    """Frames as `hold_steady` makes them: the frames before and after are drawn where both could outvote a pixel."""
    drawn = replace(drawn, drawn=torch.empty_like(drawn.mask))

    def hold(start: int, stop: int) -> None:
        own, seen_by = drawn.map(lambda values: values[start:stop]), camera.frames(start, stop)
        marked = edge_tiles(own.mask)
        before = rasterizer.masks_in_tiles(earlier.frame_range(start, stop), seen_by, own.mask, marked)
        differing = different_tiles(own.mask, before, marked)
        after = rasterizer.masks_in_tiles(later.frame_range(start, stop), seen_by, own.mask, differing)
        hold_steady(own, before, after, marked)

    frames = len(drawn.mask)
    if rasterizer.device.type == "cuda" or frames == 1:
        hold(0, frames)
    else:  # each core takes whole frames, and waits for no other between their steps
        with ThreadPoolExecutor(min(cpu_cores(), frames)) as pool:
            list(pool.map(hold, range(frames), range(1, frames + 1)))
    return drawn


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device ran out of memory; nvdiffrast reports that by the name of the call that failed."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in ("out of memory", "cudaMalloc")
    )


def _batch_frames(rasterizer: Rasterizer, surface: DepthSurface, pixels: int) -> int:
    """Frames of a batch, so that all batches are of about the same size."""
    room = BATCH_PIXELS if rasterizer.device.type == "cuda" else CPU_BATCH_PIXELS
    most = max(1, room // max(pixels, surface.size[0] * surface.size[1]))
    batches = -(-surface.frames // most)
    return -(-surface.frames // batches)


@dataclass
class _Copy:
    """Frames that are being copied to host memory; `done` is None where no copy was needed."""

    frames: RenderedBatch
    done: torch.cuda.Event | None

    def finish(self) -> RenderedBatch:
        if self.done is not None:
            self.done.synchronize()
        return self.frames


_copy_streams: dict[torch.device, torch.cuda.Stream] = {}


def _start_copy(frames: RenderedBatch) -> _Copy:
    device = frames.color.device
    if device.type != "cuda":
        return _Copy(frames, None)
    stream = _copy_streams.setdefault(device, torch.cuda.Stream(device))
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        copies = frames.map(page_locked_copy)
        for values in (frames.color, frames.mask, frames.depth, frames.alpha, frames.drawn, frames.deep_color):
            if values is not None:
                values.record_stream(stream)  # keeps the memory allocated until it has been copied
        done = torch.cuda.Event()
        done.record(stream)
    return _Copy(copies, done)
