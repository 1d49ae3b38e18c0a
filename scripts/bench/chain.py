"""Benchmarks the whole chain on this machine: time of each step, memory, and how both grow with the clip's length.

Every row is measured when it is printed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil

from bench import bench_environment
from bench.measuring import Row, median_ms
from ex4d.generation import PreviewEngine
from ex4d.media import FootageInfo, VideoWriter, probe, write_png
from ex4d.mesh import build_surface_mesh
from ex4d.pipeline.render import render_shot
from ex4d.raster import RenderedBatch, RenderedFrame, create_rasterizer
from ex4d.raster.speed import synthetic_frame, synthetic_surface
from ex4d.subprocesses import module_command
from ex4d_core.cameras import intrinsics_matrix
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene
from ex4d_core.trajectories import Trajectory, build_path


def measure(frames: int, width: int, height: int) -> Iterator[Row]:
    """Measure clips of ``frames`` frames, and of four times as many."""
    yield from _one_frame(width, height)
    with tempfile.TemporaryDirectory(prefix="ex4d-bench-") as folder:
        short = _chain(Path(folder) / "short", frames, width, height)
        long = _chain(Path(folder) / "long", 4 * frames, width, height)
    for step in ("reconstruct", "render and preview"):
        ratio = long.seconds[step] / short.seconds[step]
        yield Row(
            step, f"{1000 * short.seconds[step] / frames:.1f} ms/frame", f"{ratio:.2f} x the time for 4 x the frames"
        )
    ratio = long.peak_mb / short.peak_mb
    yield Row("peak memory", f"{long.peak_mb:.0f} MB", f"{ratio:.2f} x the memory for 4 x the frames")


def _one_frame(width: int, height: int) -> Iterator[Row]:
    """Steps on a single frame, medians of several runs."""
    rasterizer = create_rasterizer()
    surface = synthetic_surface(1, width, height).to(rasterizer.device)
    intrinsics = surface.intrinsics[0].numpy()
    camera = build_path(Trajectory("orbit", 20), 2, intrinsics, width, height, 2.0).frames(1, 2)

    def render() -> RenderedBatch:
        return rasterizer.render(surface, camera, with_depth=True).to("cpu")

    out = render()
    assert out.depth is not None
    frame = RenderedFrame(0, out.color[0].numpy(), out.mask[0].numpy(), out.depth[0].numpy())
    mesh_ms = median_ms(lambda: build_surface_mesh(surface))
    yield Row("DW-Mesh", f"{mesh_ms:.1f} ms/frame", f"{len(build_surface_mesh(surface).faces):,} faces")
    yield Row("mask and colour", f"{median_ms(render):.1f} ms/frame", f"{rasterizer.name} on {rasterizer.device}")
    yield Row("fill of holes", f"{median_ms(lambda: list(PreviewEngine().generate([frame]))):.1f} ms/frame")
    with tempfile.TemporaryDirectory(prefix="ex4d-bench-") as folder:
        path = Path(folder) / "frame.png"
        yield Row("PNG of a frame", f"{median_ms(lambda: write_png(path, frame.color)):.1f} ms/frame")


@dataclass(frozen=True)
class _Chain:
    seconds: dict[str, float]
    peak_mb: float


def _chain(folder: Path, frames: int, width: int, height: int) -> _Chain:
    """Run reconstruct, render and preview on a synthetic clip in a process of its own, whose memory we can read."""
    command = module_command("bench.chain", str(folder), str(frames), str(width), str(height))
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=bench_environment()).stdout
    reconstructing, rendering, peak_mb = map(float, output.splitlines()[-1].split())
    return _Chain({"reconstruct": reconstructing, "render and preview": rendering}, peak_mb)


def _run_chain(folder: Path, frames: int, width: int, height: int) -> None:
    from ex4d.depth import DepthClip
    from ex4d.pipeline.scene_building import build_scene

    folder.mkdir()
    with VideoWriter(folder / "footage.mp4", width, height, Fraction(24)) as movie:
        for index in range(frames):
            movie.write(synthetic_frame(index, width, height)[0])
    footage: FootageInfo = probe(folder / "footage.mp4")

    def depths() -> Iterator[np.ndarray]:
        return (synthetic_frame(index, width, height)[1] for index in range(frames))

    depth = DepthClip(footage, None, "metric", "synthetic", "", depths)
    intrinsics = intrinsics_matrix(width, width, width / 2, height / 2)
    start = time.perf_counter()
    scene: Scene = build_scene(footage, depth, intrinsics, folder / "scene", name="bench")
    reconstructed = time.perf_counter() - start
    camera = build_path(Trajectory("orbit", 20), frames, intrinsics, width, height, scene.manifest.subject_distance)
    start = time.perf_counter()
    for _ in PreviewEngine().generate(render_shot(scene, camera, RenderSettings())):
        pass
    rendered = time.perf_counter() - start
    print(reconstructed, rendered, _peak_memory_mb())


def _peak_memory_mb() -> float:
    """The largest amount of memory that this process has used."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    # Linux counts in kilobytes, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    _run_chain(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
