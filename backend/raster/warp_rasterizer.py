"""The `warp` rasterizer: NVIDIA Warp on CPU or CUDA, free for any use, no compiler to install.

Launches its passes (`warp_projection.py`, `warp_drawing.py`, `warp_resolving.py`) over batches of frames that fit in
bounded memory. On the CPU, where Warp runs a kernel in the calling thread, each frame is a batch and threads take
turns at the frames.
"""

from __future__ import annotations

import contextlib
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import warp as wp

from backend.mesh import DWMesh
from backend.raster import warp_drawing, warp_projection, warp_resolving
from backend.raster.interface import CameraBatch, RenderedFrames, check_cameras

# Working memory of a CUDA batch; more would not be faster, since one frame already fills the device.
CUDA_BATCH_BYTES = 1 << 30
BYTES_PER_VERTEX = 12  # snapped x, y and 1/z
BYTES_PER_PIXEL = 8  # depth-and-id key

REFERENCE_NEAR, REFERENCE_FAR = 1e-3, 1e3  # EX-4D's clipping planes
# Depth has no fixed unit, so our own near plane is as good as none; homogeneous edge functions lose nothing by it.
CENTERED_NEAR, CENTERED_FAR = 1e-6, math.inf


def cuda_problem(device: str) -> str | None:
    """Why CUDA cannot be used for this device ("cuda", "cuda:N" or "auto"), and what to do; None where it can."""
    _start_warp()
    for name, usable in (("PyTorch", torch.cuda.is_available()), ("Warp", wp.is_cuda_available())):
        if not usable:
            return (
                f"{name} finds no usable CUDA device: install an NVIDIA driver and a CUDA build of PyTorch, or use "
                "device cpu"
            )
    index, count = torch.device(device).index if device.startswith("cuda") else None, torch.cuda.device_count()
    if index is not None and index >= count:
        return f"there is no device {device}: this machine has cuda:0 to cuda:{count - 1}"
    return None


def _cpu_cores() -> int:
    """Cores that this process may use: a container or a batch system may grant fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_warp() -> None:
    """Without Warp's greeting, which would end up in the output of whatever program uses us."""
    wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
    wp.init()


class WarpRasterizer:
    """See `interface.Rasterizer`. Deterministic: the same input gives the same bytes.

    The kernels are compiled when the first one is created on a machine, and taken from Warp's cache from then on.
    """

    name = "warp"
    licence = "Apache-2.0: free for any use, also commercial"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        _start_warp()
        self.device = torch.device(device)
        self._warp_device = wp.device_from_torch(self.device)
        for kernels in (warp_projection, warp_drawing, warp_resolving):
            wp.load_module(kernels, device=self._warp_device)

    def render(
        self,
        mesh: DWMesh,
        world_to_camera: np.ndarray | torch.Tensor,
        intrinsics: np.ndarray | torch.Tensor,
        width: int,
        height: int,
        *,
        with_depth: bool = False,
    ) -> RenderedFrames:
        """See `interface.Rasterizer.render`."""
        cameras = check_cameras(mesh, world_to_camera, intrinsics, width, height)
        frames = mesh.frames
        color = torch.empty(frames, height * width, 3, dtype=torch.uint8, device=self.device)
        mask = torch.empty(frames, height * width, dtype=torch.bool, device=self.device)
        depth = torch.empty(frames, height * width if with_depth else 0, dtype=torch.float32, device=self.device)
        size = self._batch_size(mesh, width * height)
        starts = range(0, frames, size)

        def draw(start: int) -> None:
            part = slice(start, min(start + size, frames))
            self._draw_batch(
                mesh.frame_range(part.start, part.stop),
                CameraBatch(cameras.world_to_camera[part], cameras.lenses[part]),
                (width, height),
                (color[part], mask[part], depth[part]),
            )

        threads = min(_cpu_cores(), len(starts)) if self.device.type == "cpu" else 1
        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(draw, starts))
        else:
            with self._torch_stream():
                for start in starts:
                    draw(start)
        return RenderedFrames(
            color.reshape(frames, height, width, 3),
            mask.reshape(frames, height, width),
            depth.reshape(frames, height, width) if with_depth else None,
        )

    def _batch_size(self, mesh: DWMesh, pixels: int) -> int:
        if self.device.type == "cpu":
            return 1
        per_frame = mesh.vertices.shape[1] * BYTES_PER_VERTEX + pixels * BYTES_PER_PIXEL
        return max(1, CUDA_BATCH_BYTES // per_frame)

    def _torch_stream(self) -> contextlib.AbstractContextManager:
        """Warp has streams of its own: on CUDA its kernels must queue behind the PyTorch work that feeds them."""
        if self.device.type == "cpu":
            return contextlib.nullcontext()
        return wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(self.device)))

    def _draw_batch(
        self,
        mesh: DWMesh,
        cameras: CameraBatch,
        size: tuple[int, int],
        outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> None:
        frames, (rows, columns), (width, height) = mesh.frames, mesh.grid_shape, size
        device = self._warp_device
        reference = mesh.convention == "reference"

        view = warp_projection.View()
        view.cameras = wp.array(cameras.world_to_camera, dtype=wp.mat44d, device=device)
        view.lenses = wp.array(cameras.lenses, dtype=wp.vec4d, device=device)
        view.width, view.height = width, height
        view.near = REFERENCE_NEAR if reference else CENTERED_NEAR
        view.far = REFERENCE_FAR if reference else CENTERED_FAR

        vertices = wp.from_torch(mesh.vertices.to(self.device).contiguous(), dtype=wp.vec3)
        projected = warp_projection.Projected()
        projected.x = wp.empty(vertices.shape, dtype=wp.int32, device=device)
        projected.y = wp.empty(vertices.shape, dtype=wp.int32, device=device)
        projected.inverse_z = wp.empty(vertices.shape, dtype=wp.float32, device=device)
        winners = wp.full((frames, width * height), int(warp_projection.EMPTY), dtype=wp.uint64, device=device)

        def launch(kernel: wp.Kernel, dim: tuple[int, ...], *inputs: object) -> None:
            wp.launch(kernel, dim=dim, inputs=[vertices, *inputs], device=device)

        cells = (rows - 1) * (columns - 1)
        launch(warp_projection.project_vertices, vertices.shape, view, projected)
        launch(warp_drawing.draw_cells, (frames, rows - 1, columns - 1), projected, view, columns, cells, winners)
        launch(warp_drawing.draw_caps, (frames, mesh.cap_faces, height), projected, view, rows, columns, winners)
        color, mask, depth = outputs
        results = [wp.from_torch(color), wp.from_torch(mask.view(torch.uint8)), wp.from_torch(depth)]
        grid = [projected, view, rows, columns, winners, *results]
        if reference:
            colors = wp.from_torch(mesh.vertex_rgba().to(self.device).contiguous())
            launch(warp_resolving.resolve_reference, (frames, height, width), colors, *grid)
        else:
            colors = wp.from_torch(mesh.colors.to(self.device).contiguous())
            occluded = wp.from_torch(mesh.occluded.to(self.device).contiguous().view(torch.uint8))
            launch(warp_resolving.resolve_centered, (frames, height, width), colors, occluded, *grid)
