"""Long clips by batches: the same frames whatever the batch, in order, and less at once where memory is short."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ex4d.mesh import DepthSurface, MeshDepthError
from ex4d.raster import Rasterizer, RenderedBatch, RenderMemoryError, create_rasterizer, render_in_batches
from ex4d.raster.speed import synthetic_camera, synthetic_surface
from ex4d_core.cameras import CameraPath


@pytest.fixture(scope="module")
def rasterizer() -> Rasterizer:
    return create_rasterizer("warp", "cpu")


class SmallDevice:
    """The warp rasterizer on a device that holds so many frames at once, and fails as CUDA does with more."""

    name, licence = "warp", ""

    def __init__(self, rasterizer: Rasterizer, frames: int):
        self.rasterizer, self.frames, self.device = rasterizer, frames, rasterizer.device
        self.asked: list[int] = []

    def render(
        self, surface: DepthSurface, camera: CameraPath, *, with_depth: bool = False, samples: int = 1
    ) -> RenderedBatch:
        self.asked.append(surface.frames)
        if surface.frames > self.frames:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.rasterizer.render(surface, camera, with_depth=with_depth, samples=samples)


def test_batches_give_what_one_render_gives(rasterizer) -> None:
    surface, camera = synthetic_surface(7, 64, 48), synthetic_camera(7, 80, 50)
    whole = rasterizer.render(surface, camera, with_depth=True)
    for size in (1, 3, 7, 20, None):
        batches = list(render_in_batches(rasterizer, surface, camera, with_depth=True, batch_frames=size))
        for name in ("color", "mask", "depth"):
            assert torch.equal(torch.cat([getattr(batch, name) for batch in batches]), getattr(whole, name))
    assert next(render_in_batches(rasterizer, surface, camera)).depth is None


def test_too_little_memory_makes_smaller_batches(rasterizer) -> None:
    surface, camera = synthetic_surface(9, 64, 48), synthetic_camera(9, 64, 48)
    small = SmallDevice(rasterizer, 2)
    drawn = torch.cat([batch.mask for batch in render_in_batches(small, surface, camera, batch_frames=9)])
    assert small.asked == [9, 4, 2, 2, 2, 2, 1]
    assert torch.equal(drawn, rasterizer.render(surface, camera).mask)


def test_without_a_gpu_frames_do_not_wait_for_the_next_batch(rasterizer) -> None:
    surface, watched = synthetic_surface(9, 64, 48), SmallDevice(rasterizer, 9)
    frames = render_in_batches(watched, surface, synthetic_camera(9, 64, 48), batch_frames=3)
    assert len(next(frames).mask) == 3 and watched.asked == [3]
    assert len(list(frames)) == 2 and watched.asked == [3, 3, 3]


def test_too_little_memory_for_a_single_frame_is_a_clear_error(rasterizer) -> None:
    surface = synthetic_surface(2, 64, 48)
    frames = render_in_batches(SmallDevice(rasterizer, 0), surface, synthetic_camera(2, 90, 70))
    with pytest.raises(RenderMemoryError, match=r"single frame of 64 x 48 pixels rendered at 90 x 70.*device cpu"):
        list(frames)


def test_other_mistakes_are_not_taken_for_too_little_memory(rasterizer) -> None:
    surface = synthetic_surface(2, 64, 48)
    surface.depth[1, 5, 5] = np.nan
    camera = synthetic_camera(2, 64, 48)
    with pytest.raises(MeshDepthError, match="depth of frame"):
        list(render_in_batches(rasterizer, surface, camera, batch_frames=1))
    with pytest.raises(ValueError, match="invalid batch_frames 0"):
        list(render_in_batches(rasterizer, surface, camera, batch_frames=0))


@pytest.mark.parametrize("frames", [2, 4, 6])
def test_a_camera_path_of_another_length_is_refused_before_anything_is_drawn(rasterizer, frames) -> None:
    surface, watched = synthetic_surface(3, 64, 48), SmallDevice(rasterizer, 9)
    with pytest.raises(ValueError, match=f"a camera path of {frames} frames does not fit a surface of 3"):
        next(render_in_batches(watched, surface, synthetic_camera(frames, 64, 48), batch_frames=2))
    assert watched.asked == []
