"""Fills holes of new views with what key frames show there, once they are drawn from the views' cameras.

A part of `key_frames.py`, which says what is drawn; the kernel is in `warp/remembering.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import warp as wp

from ex4d.devices import cpu_cores
from ex4d.kernels import BLOCK_THREADS
from ex4d.mesh import DepthSurface
from ex4d.raster.frames import RenderedBatch
from ex4d.raster.warp import remembering
from ex4d.raster.warp_rasterizer import WarpRasterizer
from ex4d_core.cameras import CameraPath

# Share of the depth within which two key frames agree on a remembered surface.
SAME_SURFACE = 0.06
# Share of the depth by which it may contradict what the frame itself saw.
_FREE = 0.05
_SOLID = 0.05


@dataclass(frozen=True)
class Images:
    """What T frames show, to be written into.

    Attributes:
        color: (T, h, w, 3) uint8, or (0, h, w, 3) where only shares are asked for.
        deep_color: (T, h, w, 3) float16, or (0, h, w, 3) where there are 8 bits.
        depth: (T, h, w) float32.
        remembered: (T, h, w) bool.
    """

    color: torch.Tensor
    deep_color: torch.Tensor
    depth: torch.Tensor
    remembered: torch.Tensor

    @staticmethod
    def empty(shape: Sequence[int], device: torch.device, *, with_color: bool = True) -> Images:
        """Black images of (T, rows, columns) and 8 bits, in which nothing is remembered."""
        frames, rows, columns = shape
        return Images(
            torch.zeros(frames if with_color else 0, rows, columns, 3, dtype=torch.uint8, device=device),
            torch.zeros(0, rows, columns, 3, dtype=torch.float16, device=device),
            torch.zeros(*shape, device=device),
            torch.zeros(*shape, dtype=torch.bool, device=device),
        )


@dataclass(frozen=True)
class NewViews:
    """T frames of footage, the cameras that they are drawn from, and which key frame each is itself, or -1."""

    own: DepthSurface
    camera: CameraPath
    skipped: Sequence[int]


@dataclass(frozen=True)
class DrawnKeys:
    """K key frames, drawn from the cameras of T views.

    Attributes:
        surface: of the key frames.
        still: (K, H, W) uint8, 1 where their pixels stand still.
        drawn: (T * K, h, w, ...), all key frames of the first view, then those of the next. Its depth is infinite
            where it does not count, once holes were filled.
    """

    surface: DepthSurface
    still: torch.Tensor
    drawn: RenderedBatch


def fill_holes(
    hole: torch.Tensor, views: NewViews, keys: DrawnKeys, wall: torch.Tensor, images: Images, rasterizer: WarpRasterizer
) -> None:
    """Write what key frames know of the holes of some views into their images.

    Args:
        hole: (T, h, w) bool.
        wall: (T, h, w), how far each frame's own solid leaves the rays free.
        rasterizer: on whose stream CUDA works.
    """
    assert keys.drawn.depth is not None, "drawn with depth"
    cuda, (width, height) = hole.is_cuda, views.camera.size
    span = 1 if cuda else width
    poses = torch.from_numpy(views.camera.camera_to_world)
    intrinsics = np.ascontiguousarray(views.camera.intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]])
    inputs = [
        _vectors(torch.from_numpy(intrinsics), hole.device),
        _matrices(_from(keys.surface)[None] @ poses[:, None], hole.device),
        _vectors(lens_of(keys.surface), hole.device),
        wp.from_torch(torch.tensor(list(views.skipped), dtype=torch.int32).to(hole.device)),
        wp.from_torch(keys.still),
        wp.from_torch(keys.drawn.color),
        wp.from_torch(images.deep_color if keys.drawn.deep_color is None else keys.drawn.deep_color),
        wp.from_torch(keys.drawn.mask.view(torch.uint8)),
        wp.from_torch(keys.drawn.depth),
        _matrices(_from(views.own) @ poses, hole.device),
        _vectors(lens_of(views.own), hole.device),
        wp.from_torch(views.own.depth.contiguous()),
        wp.from_torch(wall),
        wp.from_torch(hole.contiguous().view(torch.uint8)),
        SAME_SURFACE,
        _FREE,
        _SOLID,
        wp.from_torch(images.color),
        wp.from_torch(images.deep_color),
        wp.from_torch(images.depth),
        wp.from_torch(images.remembered.view(torch.uint8)),
    ]

    def fill(first: int, frames: int) -> None:
        dim = (frames, height, -(-width // span))
        what = {"inputs": [first, span, *inputs], "device": wp.device_from_torch(hole.device)}
        wp.launch(remembering.recall_unseen, dim=dim, block_dim=BLOCK_THREADS, **what)

    if cuda or len(hole) == 1:
        with rasterizer.torch_stream():
            fill(0, len(hole))
    else:  # where Warp runs a kernel in the calling thread
        with ThreadPoolExecutor(min(cpu_cores(), len(hole))) as pool:
            list(pool.map(lambda frame: fill(frame, 1), range(len(hole))))


def lens_of(surface: DepthSurface) -> torch.Tensor:
    """(T, 4) float64: fx, fy, cx, cy."""
    return surface.intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]].contiguous()


def _from(surface: DepthSurface) -> torch.Tensor:
    """(T, 4, 4) float64, from the world to the source cameras."""
    assert surface.camera_to_world is not None, "key frames have poses"
    return torch.linalg.inv(surface.camera_to_world)


def _vectors(values: torch.Tensor, device: torch.device) -> wp.array:
    return wp.from_torch(values.to(device), dtype=wp.vec4d)


def _matrices(values: torch.Tensor, device: torch.device) -> wp.array:
    return wp.from_torch(values.contiguous().to(device), dtype=wp.mat44d)
