"""The `warp` rasterizer: NVIDIA Warp on CPU or CUDA, free for any use, no compiler to install.

Launches the passes of the package `warp` (projection, drawing, unsnapped or clipping, stretched_faces, antialiasing,
resolving or sampling, cleaning) over batches of frames that fit into bounded memory, and over strips of rows where
several samples of each pixel would not. On the CPU, where Warp runs a kernel in the calling thread, each frame, or
several small ones, are a batch, and a pool of threads draws the batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
import warp as wp

from ex4d.calling_thread import copied, filled
from ex4d.devices import NO_CUDA, Devices, cpu_cores
from ex4d.kernels import BLOCK_THREADS, load_kernels
from ex4d.mesh import DepthSurface, edge_shares_kernel, surface_colors_kernel, thickness_kernel
from ex4d.raster.frames import RenderedBatch
from ex4d.raster.mask_cleaning import can_be_cleaned, remove_specks, vote
from ex4d.raster.rasterizer import (
    STRIP_SAMPLES,
    camera_to_draw,
    indexed_device,
    samples_to_draw,
)
from ex4d.raster.tiles import Tiles
from ex4d.raster.warp import (
    antialiasing,
    cleaning,
    clipping,
    drawing,
    near_edges,
    projection,
    resolving,
    resolving_reference,
    sampling,
    stretched_faces,
    unsnapped,
)
from ex4d.raster.warp_inputs import Inputs, StructInstance
from ex4d.warp_launch import Kernel
from ex4d.warp_start import start_warp
from ex4d_core.cameras import CameraPath

# Working memory of a CUDA batch; more would not be faster, since a few frames already fill the device.
CUDA_BATCH_BYTES = 1 << 30
# Pixels of a batch on the CPU, where a thread draws it: for less, launching the kernels takes longer than drawing.
CPU_BATCH_PIXELS = 1 << 16
BYTES_PER_VERTEX = 26  # snapped x, y and 1/z; EX-4D's alpha and exact x, y, or back limits and their queue
BYTES_PER_PIXEL = 16  # depth-and-id key, and shares of antialiasing
BYTES_PER_PIECE = 16  # of a large face, or a face that is not snapped

# Kernels of every picture, and of some: those of the reference convention, of several samples, of tiles.
_EVERY_PICTURE = (
    stretched_faces,
    resolving,
    drawing,
    unsnapped,
    thickness_kernel,
    edge_shares_kernel,
    surface_colors_kernel,
    projection,
)
_REFERENCE = (clipping, resolving_reference, antialiasing)

# How CUDA threads share the drawing; see `drawing.Work`. Values measured on an H200; none is critical.
DIRECT_PIXELS = 48
DIRECT_STRETCHED = 4096  # more, since each thread of a group splits or cuts the face again
PIECE_ROWS = 8
GROUP_SIZE = 16
DEVICE_GROUPS, MIN_GROUPS, MAX_GROUPS = 65536, 128, 16384  # of all frames; and of each, the fewest and the most
# Of threads for stretched faces, of all frames and of each at least: about one for each face, which are nearly equal.
DEVICE_STRETCHED_THREADS, MIN_STRETCHED_THREADS = 1 << 21, 4096
# Columns that a thread takes where most pixels, or vertices, are in no tile that is wanted.
TILE_SPAN = projection.BLOCK_SIDE


def cuda_problem(devices: Devices) -> str:
    """Why CUDA cannot be used for this device, and what to do; "" where it can."""
    start_warp()
    if problem := devices.problem():
        return problem
    return "" if devices.first == "cpu" or wp.is_cuda_available() else NO_CUDA.format("Warp")


class WarpRasterizer:
    """Draws with NVIDIA Warp; see `Rasterizer`. Deterministic: the same input gives the same bytes.

    Kernels that every picture needs are compiled when the first instance is created on a machine, others when a picture
    needs them, and all are loaded from Warp's cache afterwards (`ex4d.kernels`).
    """

    name = "warp"
    licence = "Apache-2.0: free for any use, also commercial"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """Load the kernels of every picture for a device: "cpu", "cuda" or "cuda:N"."""
        start_warp()
        self.device = indexed_device(device)
        self._warp_device = wp.device_from_torch(self.device)
        load_kernels(_EVERY_PICTURE, self.device)

    def render(
        self, surface: DepthSurface, camera: CameraPath, *, with_depth: bool = False, samples: int = 1
    ) -> RenderedBatch:
        """Render frame t of the surface with camera t; see `Rasterizer.render`."""
        return self._render(surface, camera, with_depth, samples, None)

    def render_tiles(self, surface: DepthSurface, camera: CameraPath, tiles: Tiles) -> RenderedBatch:
        """Render as `render` does, with depth and one sample of each pixel, but only some tiles of each frame.

        Pixels of other tiles are unseen; their colour and depth mean nothing.
        """
        return self._render(surface.drawn_as(clean=False), camera, True, 1, tiles)

    def _render(
        self, surface: DepthSurface, camera: CameraPath, with_depth: bool, samples: int, tiles: Tiles | None
    ) -> RenderedBatch:
        camera, samples = camera_to_draw(surface, camera), samples_to_draw(surface, samples)
        surface = surface.to(self.device)
        reference = _REFERENCE if surface.convention == "reference" else ()
        sampled, tiled = (sampling,) if samples > 1 else (), () if tiles is None else (near_edges,)
        load_kernels((*reference, *sampled, *tiled), self.device)
        frames, (width, height) = surface.frames, camera.size
        inputs = Inputs.of(surface, camera, tiles)
        color = torch.empty(frames, height * width, 3, dtype=torch.uint8, device=self.device)
        mask = torch.empty(frames, height * width, dtype=torch.bool, device=self.device)
        cleans = surface.clean and can_be_cleaned(surface.size, camera.size)
        keeps_depth = with_depth or cleans  # by which a pixel that is cleaned finds its surface
        depth = torch.empty(frames, height * width if keeps_depth else 0, dtype=torch.float32, device=self.device)
        alpha = torch.empty(frames, height * width if samples > 1 else 0, dtype=torch.uint8, device=self.device)
        deep = surface.deep_color is not None
        deep_color = torch.empty(frames, height * width if deep else 0, 3, dtype=torch.float16, device=self.device)
        images = RenderedBatch(color.unflatten(1, (height, width)), mask.unflatten(1, (height, width)))
        if keeps_depth:
            images = replace(images, depth=depth.unflatten(1, (height, width)))
        if samples > 1:
            images = replace(images, alpha=alpha.unflatten(1, (height, width)))
        if deep:
            images = replace(images, deep_color=deep_color.unflatten(1, (height, width)))
        rows = height if samples == 1 else min(height, max(1, STRIP_SAMPLES // (width * samples**2)))
        size = self._batch_size(surface, width * rows * samples**2)
        starts = range(0, frames, size)

        def draw(start: int) -> None:
            part = slice(start, min(start + size, frames))
            if tiles is not None and self.device.type == "cpu" and not tiles.wanted[part].any():
                mask[part] = False
                return
            drawn = surface if len(starts) == 1 else surface.frame_range(part.start, part.stop)
            outputs = tuple(values[part] for values in (color, mask, depth, alpha, deep_color))
            self._draw_batch(drawn, inputs.frames(part), Sampling(camera.size, samples, rows), outputs)
            if cleans:
                remove_specks(images.map(lambda values: values[part]))

        self._each(draw, starts)
        return images if with_depth else replace(images, depth=None)

    def masks_in_tiles(
        self, surface: DepthSurface, camera: CameraPath, known: torch.Tensor, marked: torch.Tensor
    ) -> torch.Tensor:
        """See `Rasterizer.masks_in_tiles`."""
        camera, surface = camera_to_draw(surface, camera), surface.to(self.device)
        load_kernels((near_edges, *(_REFERENCE if surface.convention == "reference" else ())), self.device)
        frames, (width, height) = surface.frames, camera.size
        tiles = Tiles(marked, cleaning.TILE_SIDE)
        inputs, masks = Inputs.of(surface, camera, tiles), copied(known)
        size = self._batch_size(surface, width * height)
        starts = range(0, frames, size)

        def draw(start: int) -> None:
            part = slice(start, min(start + size, frames))
            drawn = surface if len(starts) == 1 else surface.frame_range(part.start, part.stop)
            if self.device.type == "cpu" and not marked[part].any():
                return
            own, mask = inputs.frames(part), masks[part]
            view = own.view(drawn, camera.size)
            self._draw_strip(drawn, own.source(drawn, has_colors=False), view, [mask.flatten(1)])
            vote(mask, marked=marked[part])

        self._each(draw, starts)
        return masks

    def _each(self, draw: Callable[[int], None], starts: range) -> None:
        """Draw batches of frames, on a CPU one in each thread."""
        threads = min(cpu_cores(), len(starts)) if self.device.type == "cpu" else 1
        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(draw, starts))
        else:
            with self.torch_stream():
                for start in starts:
                    draw(start)

    def _batch_size(self, surface: DepthSurface, pixels: int) -> int:
        vertices = surface.grid_shape[0] * surface.grid_shape[1]
        if self.device.type == "cpu":
            return max(1, CPU_BATCH_PIXELS // max(vertices, pixels))
        per_piece = BYTES_PER_PIECE + (clipping.PIECE_BYTES if surface.convention == "reference" else 0)
        per_frame = vertices * BYTES_PER_VERTEX + pixels * BYTES_PER_PIXEL + self._pieces(vertices) * per_piece
        return max(1, CUDA_BATCH_BYTES // per_frame)

    def _sharing(self, frames: int, height: int) -> tuple[int, int, int, int, int, int]:
        """How threads share a frame's drawing: direct_pixels to stretched_threads of `drawing.Work`."""
        if self.device.type == "cpu":
            return 1 << 30, 1 << 30, height, 1, 1, 1
        groups = min(max(MIN_GROUPS, DEVICE_GROUPS // frames), MAX_GROUPS)
        alone = max(MIN_STRETCHED_THREADS, DEVICE_STRETCHED_THREADS // frames)
        return DIRECT_PIXELS, DIRECT_STRETCHED, PIECE_ROWS, groups, GROUP_SIZE, alone

    def _pieces(self, vertices: int) -> int:
        """Room in a frame's queue: stretched faces lie along discontinuities, far fewer than a frame has pixels."""
        return vertices // 8 + 1024

    def _stretched_faces(self, vertices: int) -> int:
        """Room in a frame's queue of stretched faces."""
        return vertices // 4 + 8192

    def torch_stream(self) -> contextlib.AbstractContextManager[object]:
        """Make Warp launch on PyTorch's CUDA stream, behind the work that produces the kernels' inputs."""
        if self.device.type == "cpu":
            return contextlib.nullcontext()
        return wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(self.device)), sync_enter=False)

    def _draw_batch(
        self,
        surface: DepthSurface,
        inputs: Inputs,
        drawn: Sampling,
        outputs: tuple[torch.Tensor, ...],
    ) -> None:
        """Draw some frames, strip after strip.

        Args:
            outputs: of these frames, colour (B, P, 3), and mask, depth and alpha (B, P), or (B, 0) where not asked for;
                deep colour (B, P, 3) or (B, 0, 3).
        """
        source = inputs.source(surface)
        (width, height), step = drawn.size, drawn.strip_rows
        for top in range(0, height, step):
            strip = range(top, min(top + step, height))
            pixels = slice(strip.start * width, strip.stop * width)
            view = inputs.view(surface, (width, len(strip)), drawn.samples, top)
            self._draw_strip(surface, source, view, [values[:, pixels] for values in outputs])

    def _draw_strip(
        self,
        surface: DepthSurface,
        source: StructInstance,
        view: StructInstance,
        outputs: Sequence[torch.Tensor],
    ) -> None:
        """Draw some rows of some frames.

        Args:
            outputs: as of `_draw_batch`; or the mask alone, written in the tiles that the view wants.
        """
        frames, (rows, columns), width, height = len(outputs[0]), surface.grid_shape, view.width, view.height
        vertices = rows * columns
        reference = surface.convention == "reference"

        projected = projection.Projected()
        projected.x = self._empty(wp.int32, frames, vertices)
        projected.y = self._empty(wp.int32, frames, vertices)
        projected.inverse_z = self._empty(wp.float32, frames, vertices)
        exact = vertices if reference else 0
        projected.exact_x = self._empty(wp.float32, frames, exact)
        projected.exact_y = self._empty(wp.float32, frames, exact)
        winners = wp.from_torch(filled((frames, width * height), -1, torch.int64, self.device), dtype=wp.uint64)

        work = drawing.Work()
        work.pieces = self._empty(wp.vec3i, frames, self._pieces(vertices), 3)
        work.unsnapped = self._empty(wp.int32, frames, self._pieces(vertices))
        has_parts = not reference and surface.occlusion != "watertight"  # of stretched faces, which are drawn apart
        room = self._stretched_faces(vertices) if has_parts else 0
        work.stretched = self._empty(wp.int32, frames, room)
        counters = torch.zeros(frames * int(drawing.COUNTERS), dtype=torch.int32, device=self.device)
        work.counters = wp.from_torch(counters)
        work.direct_pixels, work.direct_stretched, *shared = self._sharing(frames, height)
        work.piece_rows, work.groups, work.group_size, work.stretched_threads = shared

        def launch(kernel: Kernel, dim: tuple[int, ...], *arguments: object) -> None:
            wp.launch(kernel, dim=dim, inputs=arguments, device=self._warp_device, block_dim=BLOCK_THREADS)

        def launch_grid(kernel: Kernel, grid: tuple[int, int], *arguments: object, cuda_span: int = 1) -> None:
            # One CPU thread walks along a row, which saves computing its position at every step.
            span = grid[1] if self.device.type == "cpu" else cuda_span
            launch(kernel, (frames, grid[0], -(-grid[1] // span)), source, span, *arguments)

        if view.wanted is not None and not reference:
            blocks = [-(-(side - 1) // projection.BLOCK_SIDE) for side in (rows, columns)]
            view.blocks = self._empty(wp.uint8, frames, *blocks)
            launch_grid(near_edges.mark_blocks, (blocks[0], blocks[1]), view)
        tile_span = 1 if view.wanted is None else TILE_SPAN
        launch_grid(projection.project_vertices, (rows, columns), view, projected, cuda_span=tile_span)
        launch_grid(drawing.draw_cells, (rows - 1, columns - 1), projected, view, work, winners)
        groups = (frames, work.groups * work.group_size)
        launch(drawing.draw_pieces, groups, source, projected, view, work, winners)
        if reference:
            pieces = self._empty(clipping.Piece, frames, self._pieces(vertices), 12)
            launch(clipping.clip_faces, groups, source, projected, view, work, pieces, winners)
            launch(clipping.draw_clipped, groups, view, work, pieces, winners)
        else:
            launch(unsnapped.draw_unsnapped, groups, source, projected, view, work, winners)
        if has_parts:
            for kernel, counter, threads in (
                (stretched_faces.draw_stretched, drawing.STRETCHED_COUNTER, (frames, work.stretched_threads)),
                (stretched_faces.draw_stretched_pieces, drawing.STRETCHED_PIECE_COUNTER, groups),
                (stretched_faces.draw_unsnapped_stretched, drawing.STRETCHED_PIECE_COUNTER, groups),
            ):
                # A GPU would have to be waited for; it launches a kernel that finds nothing faster than it tells.
                if self.device.type != "cpu" or counters.view(frames, -1)[:, int(counter)].any():
                    launch(kernel, threads, source, projected, view, work, winners)
        if len(outputs) == 1:
            mask = wp.from_torch(outputs[0].view(torch.uint8))
            launch_grid(near_edges.resolve_wanted, (height, width), projected, view, winners, mask, cuda_span=TILE_SPAN)
            return
        color, mask, depth, alpha, deep_color = outputs
        results = [wp.from_torch(color), wp.from_torch(mask.view(torch.uint8)), wp.from_torch(depth)]
        if reference:
            faded = wp.from_torch(torch.full((frames, vertices), 255, dtype=torch.uint8, device=self.device))
            if surface.occlusion == "watertight":  # otherwise no occluded face is drawn, and no vertex fades
                launch_grid(resolving_reference.fade_vertices, (rows - 1, columns - 1), faded)
            pixels = (height, width)
            shares = self._empty(wp.float32, frames, width * height, 2)
            launch_grid(antialiasing.find_silhouettes, pixels, projected, view, winners, shares)
            launch_grid(
                resolving_reference.resolve_reference, pixels, faded, shares, projected, view, winners, *results
            )
        else:
            kernel, pixels = resolving.resolve_centered, (height, width)
            if view.samples > 1:
                kernel, pixels = sampling.resolve_samples, (height // view.samples, width // view.samples)
                results.append(wp.from_torch(alpha))
            launch_grid(kernel, pixels, projected, view, winners, *results)
            if surface.deep_color is not None and deep_color.shape[1]:
                plain = source.color, source.surface_color
                source.color = wp.from_torch(surface.deep_color.contiguous().view(torch.uint8))
                source.surface_color = source.color
                results[0] = wp.from_torch(deep_color.view(torch.uint8))
                launch_grid(kernel, pixels, projected, view, winners, *results)
                source.color, source.surface_color = plain

    def _empty(self, dtype: type, *shape: int) -> wp.array:
        """Working memory from PyTorch, which keeps it for the next batch and raises its own out-of-memory error."""
        plain = {wp.vec3i: torch.int32, clipping.Piece: torch.int32}.get(dtype) or wp.dtype_to_torch(dtype)
        return wp.from_torch(torch.empty(shape, dtype=plain, device=self.device), dtype=dtype)


@dataclass(frozen=True)
class Sampling:
    """An image, and how it is drawn.

    Attributes:
        size: (width, height), pixels.
        samples: of each pixel, per axis.
        strip_rows: the most rows of pixels that are drawn at once.
    """

    size: tuple[int, int]
    samples: int
    strip_rows: int
