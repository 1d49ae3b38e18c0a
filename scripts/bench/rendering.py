"""Benchmarks colour and mask renders on this machine, beside the original EX-4D's own loop where that can run.

The table of `ex4d bench render`. Every figure is measured when it is printed; what this machine has no hardware for is
reported as missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from bench.measuring import Row, median_ms, wait_for_gpu
from bench.original_loop import render_as_the_original
from bench.views import VIEW_SIZE, measure_service
from ex4d.devices import cpu_cores
from ex4d.mesh import DepthSurface
from ex4d.pipeline.surfaces import measured
from ex4d.raster import Rasterizer, RasterizerUnavailableError, create_rasterizer, render_in_batches
from ex4d.raster.nvdiffrast_rasterizer import load_nvdiffrast
from ex4d.raster.speed import synthetic_camera, synthetic_surface
from ex4d.service import ServiceError
from ex4d_core.cameras import CameraPath
from ex4d_core.conversations import ClientError
from ex4d_core.render_settings import Convention, OcclusionModel

CLIP = (49, 512, 512)  # frames, width, height of EX-4D's own clips
CPU_SIZE = (512, 512)
SIZES = ((512, 512), (832, 480), (1280, 720), (1920, 1080), (2048, 2048))
MODELS: tuple[tuple[Convention, OcclusionModel], ...] = (
    ("centered", "watertight"),
    ("centered", "open"),
    ("centered", "thickness"),
    ("reference", "watertight"),
)
LONG_CLIP = (1000, 1920, 1080)
SPEED_UP = {"warp": 50, "nvdiffrast": 20}  # our targets, times the original's loop


def measure_rendering() -> Iterator[Row]:
    """All rows, the CPU's first."""
    yield from _on_cpu()
    yield from _over_a_socket("cpu")
    if not torch.cuda.is_available():
        for what in ("original's loop", "nvdiffrast", "warp on the GPU", "sizes", "views", "coverage", "long clip"):
            yield Row(what, "no GPU", "PyTorch finds no CUDA device on this machine")
        return
    yield from _against_the_original()
    yield _all_on(create_rasterizer("warp", "cuda"), CLIP[0])
    yield from _where_time_goes()
    yield from _sizes()
    yield from _one_frame(create_rasterizer("warp", "cuda"))
    yield from _over_a_socket("cuda")
    yield from _long_clip()


def _over_a_socket(device: str) -> Iterator[Row]:
    try:
        yield from measure_service(device)
    except (ServiceError, ClientError) as error:
        yield Row("views and coverage", "not measured", f"{device}: {error}")


def _on_cpu() -> Iterator[Row]:
    """A frame on each core: wall time divided by the number of frames."""
    rasterizer = create_rasterizer("warp", "cpu")
    frames = max(4, cpu_cores())
    for convention, occlusion in MODELS:
        surface = replace(synthetic_surface(frames, *CPU_SIZE, convention), occlusion=occlusion)
        milliseconds = median_ms(lambda surface=surface: _render(rasterizer, _fresh(surface)), 9) / frames
        remark = (
            f"{CPU_SIZE[0]}x{CPU_SIZE[1]}, {convention}, {occlusion}, mesh included, {min(frames, cpu_cores())} cores"
        )
        yield Row("warp on the CPU", f"{milliseconds:.1f} ms/frame", remark)
    yield _all_on(rasterizer, CLIP[0])
    for width, height in SIZES:
        surface = synthetic_surface(2, width, height)
        milliseconds = median_ms(lambda of=surface: _render(rasterizer, _fresh(of)), 3) / 2
        yield Row(f"{width}x{height}", f"warp {milliseconds:.1f} ms/frame", "cpu, 2 frames")
    yield from _one_frame(rasterizer)


def _all_on(rasterizer: Rasterizer, frames: int) -> Row:
    """Masks as takes have them: plausible depth, no specks, held steady; a ratio to the same masks as drawn."""
    camera = synthetic_camera(frames, *CPU_SIZE)
    clip = replace(synthetic_surface(frames + 2, *CPU_SIZE), occlusion="thickness", clean=True).to(rasterizer.device)
    plain = replace(clip.frame_range(1, frames + 1), clean=False)

    def draw() -> None:
        ready = measured(_fresh(clip), rasterizer.device)
        earlier, own, later = (ready.frame_range(start, start + frames) for start in range(3))
        for _ in render_in_batches(rasterizer, own, camera, with_depth=True, around=(earlier, later)):
            pass

    milliseconds, drawn = median_ms(draw, 9), median_ms(lambda: _render(rasterizer, _fresh(plain), camera), 9)
    figure = f"{milliseconds / frames:.1f} ms/frame" if rasterizer.device.type == "cpu" else f"{milliseconds:.2f} ms"
    remark = f"{frames} frames, {CPU_SIZE[0]}x{CPU_SIZE[1]}, thickness, no specks, held steady"
    return Row("warp, all of it on", figure, f"{remark}; {milliseconds / drawn:.2f} x as drawn")


def _one_frame(rasterizer: Rasterizer) -> Iterator[Row]:
    """One camera at one frame, without the socket."""
    surface = synthetic_surface(1, *VIEW_SIZE).to(rasterizer.device)
    camera = synthetic_camera(2, *VIEW_SIZE, 20).frames(1, 2)
    milliseconds = median_ms(lambda: _render(rasterizer, surface, camera), repeats=15)
    width, height = VIEW_SIZE
    yield Row(f"one frame, {width}x{height}", f"{milliseconds:.2f} ms", f"{rasterizer.name}, {rasterizer.device.type}")


def _against_the_original() -> Iterator[Row]:
    frames, width, height = CLIP
    surface = synthetic_surface(frames, width, height, "reference").to("cuda")
    camera = synthetic_camera(frames, width, height)
    clip = f"{frames} frames, {width}x{height}"
    baseline = None
    try:
        context = load_nvdiffrast().RasterizeCudaContext(device="cuda")
        baseline = median_ms(lambda: render_as_the_original(surface, camera, context), repeats=3)
        yield Row("original's loop", f"{baseline:.1f} ms", f"{clip}; our own rewriting of it, for timing")
    except RasterizerUnavailableError as error:
        yield Row("original's loop", "not measured", str(error))
    for name in ("nvdiffrast", "warp"):
        try:
            rasterizer = create_rasterizer(name, "cuda", "research")
        except RasterizerUnavailableError as error:
            yield Row(name, "not measured", str(error))
            continue
        for convention, occlusion in MODELS:
            if occlusion == "thickness" and name == "nvdiffrast":
                continue
            clip_surface = replace(synthetic_surface(frames, width, height, convention).to("cuda"), occlusion=occlusion)
            milliseconds = median_ms(lambda of=clip_surface, by=rasterizer: _render(by, _fresh(of)), 15)
            ratio = f"{baseline / milliseconds:.0f} x the original's loop; target {SPEED_UP[name]}" if baseline else ""
            what = f"{name}, {convention}, {occlusion}"
            yield Row(what, f"{milliseconds:.2f} ms", f"{clip}, mesh and copies to the host; {ratio}")


def _where_time_goes() -> Iterator[Row]:
    """The parts of the warp figure, and lower bounds by the memory's speed."""
    frames, width, height = CLIP
    rasterizer = create_rasterizer("warp", "cuda")
    surface = synthetic_surface(frames, width, height).to("cuda")
    camera = synthetic_camera(frames, width, height)

    def draw() -> None:
        rasterizer.render(_fresh(surface), camera)

    yield Row("warp, without copies to the host", f"{median_ms(draw, 15):.2f} ms", "wall time")
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    times = []
    for _ in range(15):
        events[0].record()
        draw()
        events[1].record()
        wait_for_gpu()
        times.append(events[0].elapsed_time(events[1]))
    yield Row("warp, on the GPU's clock", f"{np.median(times):.2f} ms", "from the first kernel to the last")
    pixels = frames * width * height
    gigabytes = pixels * (4 + 3 + 3 + 1) / 1e9
    room = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(room)
    rate = 2 * room.numel() / 1e6 / median_ms(lambda: other.copy_(room), 15)
    yield Row("floor: device memory", f"{1000 * gigabytes / rate:.3f} ms", f"{gigabytes:.2f} GB at {rate:.0f} GB/s")
    images = torch.empty(4 * pixels, dtype=torch.uint8, device="cuda")
    host = torch.empty(4 * pixels, dtype=torch.uint8, pin_memory=True)
    copy = median_ms(lambda: host.copy_(images, non_blocking=True), 15)
    yield Row("floor: copy to the host", f"{copy:.2f} ms", f"{images.numel() / 1e6:.0f} MB, page-locked")
    source = DepthSurface(surface.depth.cpu().pin_memory(), surface.color.cpu().pin_memory(), surface.intrinsics)
    milliseconds = median_ms(lambda: _render(rasterizer, _fresh(source)), 15)
    yield Row("warp, footage from the host too", f"{milliseconds:.2f} ms", "page-locked; depth and colour copied first")


def _sizes() -> Iterator[Row]:
    for width, height in SIZES:
        frames = max(2, min(49, (1 << 25) // (width * height)))
        surface = synthetic_surface(frames, width, height).to("cuda")
        figures = []
        for name in ("warp", "nvdiffrast"):
            try:
                rasterizer = create_rasterizer(name, "cuda", "research")
            except RasterizerUnavailableError:
                figures.append(f"{name} -")
                continue
            milliseconds = median_ms(lambda by=rasterizer, of=surface: _render(by, _fresh(of))) / frames
            figures.append(f"{name} {milliseconds:.3f}")
        yield Row(f"{width}x{height}", ", ".join(figures) + " ms/frame", f"{frames} frames, copies to the host")


def _long_clip() -> Iterator[Row]:
    """The same frame again and again, read from host memory batch by batch; no result is kept."""
    frames, width, height = LONG_CLIP
    one = synthetic_surface(1, width, height)
    surface = DepthSurface(
        one.depth.expand(frames, -1, -1), one.color.expand(frames, -1, -1, -1), one.intrinsics.expand(frames, 3, 3)
    )
    rasterizer = create_rasterizer("warp", "cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    _render(rasterizer, surface)
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 2**30
    yield Row(f"{frames} frames, {width}x{height}", f"{seconds:.1f} s", f"{peak:.2f} GB of GPU memory at most")


def _fresh(surface: DepthSurface) -> DepthSurface:
    """The same surface without any cached values, like a new clip."""
    return replace(surface)


def _render(rasterizer: Rasterizer, surface: DepthSurface, camera: CameraPath | None = None) -> None:
    for _ in render_in_batches(rasterizer, surface, camera or synthetic_camera(surface.frames, *surface.size)):
        pass
