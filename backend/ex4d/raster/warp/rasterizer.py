"""The `warp` rasterizer: NVIDIA Warp on CPU or CUDA, free for any use, no compiler to install.

Launches its passes (`warp_surface.py`, `warp_drawing.py`, `warp_unsnapped.py`, `warp_clipping.py`, `warp_curtains.py`,
`warp_resolving.py`) over batches of frames that fit in bounded memory. On the CPU, where Warp runs a kernel in the
calling thread, each frame is a batch and threads take turns at the frames.
"""

from __future__ import annotations

import contextlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import torch
import warp as wp

from ex4d.mesh import DepthSurface, thickness
from ex4d.mesh.occlusion import MIN_INNER_ANGLE_DEGREES
from ex4d.raster.rasterizer import (
    REFERENCE_FAR,
    REFERENCE_NEAR,
    CameraBatch,
    RenderedFrames,
    check_cameras,
    cpu_cores,
    no_usable_cuda,
    numbered,
    torch_cuda_problem,
)
from ex4d.raster.warp import antialiasing as warp_antialiasing
from ex4d.raster.warp import clipping as warp_clipping
from ex4d.raster.warp import drawing as warp_drawing
from ex4d.raster.warp import resolving as warp_resolving
from ex4d.raster.warp import stretched_faces as warp_curtains
from ex4d.raster.warp import surface as warp_surface
from ex4d.raster.warp import unsnapped as warp_unsnapped

# Working memory of a CUDA batch; more would not be faster, since a few frames already fill the device.
CUDA_BATCH_BYTES = 1 << 30
BYTES_PER_VERTEX = 26  # snapped x, y and 1/z; EX-4D's alpha and exact x, y, or where curtains end and a queue of them
BYTES_PER_PIXEL = 16  # depth-and-id key, and shares of antialiasing
BYTES_PER_PIECE = 16  # of a large face, or a face that is not snapped

# How CUDA threads share the drawing; see `warp_drawing.Work`. Values measured on an H200; none is critical.
DIRECT_PIXELS = 48
PIECE_ROWS = 8
GROUP_SIZE = 16
DEVICE_GROUPS, MIN_GROUPS = 16384, 128  # of all frames, and of each

OCCLUSION_CODES = {
    "watertight": warp_surface.WATERTIGHT,
    "open": warp_surface.OPEN,
    "thickness": warp_surface.THICKNESS,
}

REFERENCE_SNAP, CENTERED_SNAP = 16, 1  # in 1/256 pixel; nvdiffrast's vertices are snapped to 1/16
# In nvdiffrast's depth buffer caps, which come last, win over what lies in their plane: the border's corners.
REFERENCE_CAP_NEARER = 1 + 1e-4
# Depth has no fixed unit, so our own near plane is as good as none; homogeneous edge functions lose nothing by it.
CENTERED_NEAR, CENTERED_FAR = 1e-6, math.inf


def cuda_problem(device: str) -> str | None:
    """Why CUDA cannot be used for this device ("cuda", "cuda:N" or "auto"), and what to do; None where it can."""
    start_warp()
    return torch_cuda_problem(device) or (None if wp.is_cuda_available() else no_usable_cuda("Warp"))


def start_warp() -> None:
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
        start_warp()
        self.device = numbered(device)
        self._warp_device = wp.device_from_torch(self.device)
        for kernels in (
            thickness,
            warp_surface,
            warp_drawing,
            warp_unsnapped,
            warp_clipping,
            warp_curtains,
            warp_antialiasing,
            warp_resolving,
        ):
            wp.load_module(kernels, device=self._warp_device)

    def render(
        self,
        surface: DepthSurface,
        world_to_camera: np.ndarray | torch.Tensor,
        intrinsics: np.ndarray | torch.Tensor,
        width: int,
        height: int,
        *,
        with_depth: bool = False,
    ) -> RenderedFrames:
        """See `interface.Rasterizer.render`."""
        cameras = check_cameras(surface, world_to_camera, intrinsics, width, height)
        surface = surface.to(self.device)
        frames = surface.frames
        inputs = Inputs.of(surface, cameras)
        color = torch.empty(frames, height * width, 3, dtype=torch.uint8, device=self.device)
        mask = torch.empty(frames, height * width, dtype=torch.bool, device=self.device)
        depth = torch.empty(frames, height * width if with_depth else 0, dtype=torch.float32, device=self.device)
        size = self._batch_size(surface, width * height)
        starts = range(0, frames, size)

        def draw(start: int) -> None:
            part = slice(start, min(start + size, frames))
            self._draw_batch(surface, inputs.frames(part), (width, height), (color[part], mask[part], depth[part]))

        threads = min(cpu_cores(), len(starts)) if self.device.type == "cpu" else 1
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

    def _batch_size(self, surface: DepthSurface, pixels: int) -> int:
        if self.device.type == "cpu":
            return 1
        vertices = surface.grid_shape[0] * surface.grid_shape[1]
        per_piece = BYTES_PER_PIECE + (warp_clipping.PIECE_BYTES if surface.convention == "reference" else 0)
        per_frame = vertices * BYTES_PER_VERTEX + pixels * BYTES_PER_PIXEL + self._pieces(vertices) * per_piece
        return max(1, CUDA_BATCH_BYTES // per_frame)

    def _sharing(self, frames: int, height: int) -> tuple[int, int, int, int]:
        """How threads share a frame's drawing: `warp_drawing.Work`'s direct_pixels, piece_rows, groups, group_size."""
        if self.device.type == "cpu":
            return 1 << 30, height, 1, 1
        return DIRECT_PIXELS, PIECE_ROWS, max(MIN_GROUPS, DEVICE_GROUPS // frames), GROUP_SIZE

    def _pieces(self, vertices: int) -> int:
        """Room in a frame's queue; a scene has curtains along outlines, far fewer than it has pixels."""
        return vertices // 8 + 1024

    def _curtains(self, vertices: int) -> int:
        """Room for a frame's curtains in the "thickness" model."""
        return vertices // 4 + 8192

    def _torch_stream(self) -> contextlib.AbstractContextManager:
        """Warp has streams of its own: on CUDA its kernels must queue behind the PyTorch work that feeds them."""
        if self.device.type == "cpu":
            return contextlib.nullcontext()
        return wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(self.device)), sync_enter=False)

    def _draw_batch(
        self,
        surface: DepthSurface,
        inputs: Inputs,
        size: tuple[int, int],
        outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> None:
        frames, (rows, columns), (width, height) = len(inputs.depth), surface.grid_shape, size
        vertices = rows * columns
        reference = surface.convention == "reference"

        known = surface.outlines if surface.occlusion == "thickness" and surface.frames == 1 else None
        source = inputs.source(surface, known)
        view = inputs.view(surface, width, height)
        projected = warp_surface.Projected()
        projected.x = self._empty(wp.int32, frames, vertices)
        projected.y = self._empty(wp.int32, frames, vertices)
        projected.inverse_z = self._empty(wp.float32, frames, vertices)
        exact = vertices if reference else 0
        projected.exact_x = self._empty(wp.float32, frames, exact)
        projected.exact_y = self._empty(wp.float32, frames, exact)
        winners = torch.full((frames, width * height), -1, dtype=torch.int64, device=self.device)
        winners = wp.from_torch(winners, dtype=wp.uint64)

        work = warp_drawing.Work()
        work.pieces = self._empty(wp.vec3i, frames, self._pieces(vertices), 3)
        work.unsnapped = self._empty(wp.int32, frames, self._pieces(vertices))
        room = self._curtains(vertices) if surface.occlusion == "thickness" else 0
        work.curtains = self._empty(wp.int32, frames, room)
        counters = torch.zeros(frames * int(warp_drawing.COUNTERS), dtype=torch.int32, device=self.device)
        work.counters = wp.from_torch(counters)
        work.direct_pixels, work.piece_rows, work.groups, work.group_size = self._sharing(frames, height)

        def launch(kernel: wp.Kernel, dim: tuple[int, ...], *arguments: object) -> None:
            wp.launch(kernel, dim=dim, inputs=arguments, device=self._warp_device)

        def launch_grid(kernel: wp.Kernel, grid: tuple[int, int], *arguments: object) -> None:
            # the CPU's one thread walks along rows, which spares it working out where it is at every step
            span = grid[1] if self.device.type == "cpu" else 1
            launch(kernel, (frames, grid[0], -(-grid[1] // span)), source, span, *arguments)

        launch_grid(warp_surface.project_vertices, (rows, columns), view, projected)
        launch_grid(warp_drawing.draw_cells, (rows - 1, columns - 1), projected, view, work, winners)
        groups = (frames, work.groups * work.group_size)
        launch(warp_drawing.draw_pieces, groups, source, projected, view, work, winners)
        if reference:
            pieces = self._empty(warp_clipping.Piece, frames, self._pieces(vertices), 12)
            launch(warp_clipping.clip_faces, groups, source, projected, view, work, pieces, winners)
            launch(warp_clipping.draw_clipped, groups, view, work, pieces, winners)
        else:
            launch(warp_unsnapped.draw_unsnapped, groups, source, projected, view, work, winners)
        if surface.occlusion == "thickness":
            curtains = (
                warp_curtains.draw_curtains,
                warp_curtains.draw_curtain_pieces,
                warp_curtains.draw_unsnapped_curtains,
            )
            for kernel in curtains:
                launch(kernel, groups, source, projected, view, work, winners)
        color, mask, depth = outputs
        results = [wp.from_torch(color), wp.from_torch(mask.view(torch.uint8)), wp.from_torch(depth)]
        if reference:
            alpha = wp.from_torch(torch.full((frames, vertices), 255, dtype=torch.uint8, device=self.device))
            if surface.occlusion == "watertight":  # else no occluded face is drawn, and nothing fades
                launch_grid(warp_resolving.fade_vertices, (rows - 1, columns - 1), alpha)
            pixels = (height, width)
            shares = self._empty(wp.float32, frames, width * height, 2)
            launch_grid(warp_antialiasing.find_silhouettes, pixels, projected, view, winners, shares)
            launch_grid(warp_resolving.resolve_reference, pixels, alpha, shares, projected, view, winners, *results)
        else:
            launch_grid(warp_resolving.resolve_centered, (height, width), projected, view, winners, *results)

    def _empty(self, dtype: type, *shape: int) -> wp.array:
        """Working memory from PyTorch, which keeps it for the next batch and has one error for too little of it."""
        plain = {wp.vec3i: torch.int32, warp_clipping.Piece: torch.int32}.get(dtype) or wp.dtype_to_torch(dtype)
        return wp.from_torch(torch.empty(shape, dtype=plain, device=self.device), dtype=dtype)


@dataclass(frozen=True)
class Inputs:
    """What the kernels read, on the surface's device, for the same frames each."""

    depth: torch.Tensor
    color: torch.Tensor
    border: torch.Tensor
    ray_x: torch.Tensor
    ray_y: torch.Tensor
    cameras: torch.Tensor
    lenses: torch.Tensor
    pixel_angles: torch.Tensor

    @staticmethod
    def of(surface: DepthSurface, cameras: CameraBatch) -> Inputs:
        poses = torch.from_numpy(cameras.world_to_camera)
        if surface.camera_to_world is not None:
            poses = poses @ surface.camera_to_world
        small = (*surface.rays, poses, torch.from_numpy(cameras.lenses), thickness.pixel_angles(surface.intrinsics))
        return Inputs(
            surface.depth.contiguous(),
            surface.color.contiguous(),
            surface.border_depth,
            *(_upload(values, surface.device) for values in small),
        )

    def frames(self, part: slice) -> Inputs:
        return Inputs(*(getattr(self, field.name)[part] for field in fields(self)))

    def source(self, surface: DepthSurface, outlines: thickness.BackLimits | None = None) -> warp_surface.Source:
        """For the kernels; outlines are measured where the occlusion model needs them and they are not given."""
        source = warp_surface.Source()
        source.depth, source.color = wp.from_torch(self.depth), wp.from_torch(self.color)
        source.border = wp.from_torch(self.border)
        source.ray_x, source.ray_y = wp.from_torch(self.ray_x), wp.from_torch(self.ray_y)
        if surface.occlusion == "thickness":
            found = outlines or thickness.measure(self.depth, self.pixel_angles)
            source.limits, source.steps = wp.from_torch(found.limits), wp.from_torch(found.steps)
            source.pixel_angles = wp.from_torch(self.pixel_angles)
        source.rows, source.columns = surface.grid_shape
        source.ring = surface.ring
        source.boundary_rule = surface.occlusion_rule == "boundary"
        source.thin = 4.0 * math.cos(math.radians(MIN_INNER_ANGLE_DEGREES)) ** 2
        return source

    def view(self, surface: DepthSurface, width: int, height: int) -> warp_surface.View:
        view = warp_surface.View()
        view.cameras = wp.from_torch(self.cameras, dtype=wp.mat44d)
        view.lenses = wp.from_torch(self.lenses, dtype=wp.vec4d)
        view.width, view.height = width, height
        reference = surface.convention == "reference"
        view.near = REFERENCE_NEAR if reference else CENTERED_NEAR
        view.far = REFERENCE_FAR if reference else CENTERED_FAR
        view.occlusion = OCCLUSION_CODES[surface.occlusion]
        view.snap = REFERENCE_SNAP if reference else CENTERED_SNAP
        view.cap_nearer = REFERENCE_CAP_NEARER if reference else 1.0
        return view


def _upload(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Small arrays to the device, without waiting for what it is busy with."""
    values = values.contiguous()
    return values if device.type == "cpu" else values.pin_memory().to(device, non_blocking=True)
