"""How fast masks for training are simulated at 512x512: the part `masks` of `ex4d bench train`.

A clip's surface is on the device already, and the mask stays there, as while a data set is built.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bench.measuring import Row, median_seconds
from ex4d.devices import cpu_cores
from ex4d.raster import Rasterizer, create_rasterizer
from ex4d.raster.speed import SUBJECT_DISTANCE, synthetic_surface
from ex4d.training.mask_settings import MoveSettings, RegionSettings
from ex4d.training.rendered_masks import as_wan_renders, rendered_seen, simulate_rendered
from ex4d.training.sampled_moves import SampledMove
from ex4d.training.tracked_masks import simulate_tracked

SIZE, FRAMES, CPU_FRAMES = 512, 49, 9
GOAL = 1000  # frames a second on an H200
_MOVE = SampledMove("orbit", "", "linear", 1.0, "orbit", 60.0, 15.0)
# One draw is one mask: with limits, how many are drawn depends on the clip.
_ONE_DRAW = {"tries": 1, "unseen": (0.0, 1.0)}


def measure_masks() -> Iterator[Row]:
    """All rows, the CPU's first."""
    yield from _on(create_rasterizer("warp", "cpu"), CPU_FRAMES, f"{cpu_cores()} cores", repeats=1)
    if torch.cuda.is_available():
        yield from _on(create_rasterizer("warp", "cuda"), FRAMES, torch.cuda.get_device_name(), repeats=5)
    else:
        yield Row(
            "masks on a GPU", "no GPU", f"PyTorch finds no CUDA device here; the goal is {GOAL} frames/s on an H200"
        )


def _on(rasterizer: Rasterizer, frames: int, where: str, repeats: int) -> Iterator[Row]:
    surface = as_wan_renders(synthetic_surface(frames, SIZE, SIZE)).to(rasterizer.device)
    path = _MOVE.path(frames, surface.intrinsics.numpy(), surface.size, SUBJECT_DISTANCE)
    of_clip = f"{frames} frames of {SIZE}x{SIZE}, {where}"

    def rate(work) -> str:
        return f"{frames / median_seconds(work, repeats):.0f} frames/s"

    for samples in (1, 3):
        yield Row(
            f"rendering masks, {samples}x{samples} rays a pixel",
            rate(lambda samples=samples: rendered_seen(rasterizer, surface, path, samples)),
            f"one move of 60 degrees; {of_clip}",
        )
    moves = MoveSettings(samples=1, **_ONE_DRAW)
    seeds = iter(range(1000))
    yield Row(
        "rendering masks, drawn, tried and cleaned",
        rate(lambda: simulate_rendered(surface, moves, next(seeds), rasterizer)),
        f"as a data set has them, 1x1 rays a pixel; {of_clip}",
    )
    yield Row(
        "tracking masks by the mesh",
        rate(
            lambda: simulate_tracked(
                surface, RegionSettings(tracks="mesh"), (0.0, 1.0), 1, next(seeds), rasterizer, camera_known=True
            )
        ),
        f"drawn, rendered from each frame, closed; {of_clip}",
    )
