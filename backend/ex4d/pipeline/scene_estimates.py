"""Estimates of what a scene needs: its size on disk, and the time and memory of a reconstruction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ex4d.pipeline.estimate import BASE_BYTES, CUDA_BYTES, MOVIE_BYTES, TWO_CORES, Estimate, on_gpu
from ex4d_core.mesh_cache import grid_vertices, positions_bytes

if TYPE_CHECKING:
    from ex4d.machine import MachineSettings
    from ex4d.media import FootageInfo
    from ex4d_core.sources import DepthSettings

# As `ex4d.media.video_writer.LARGE_PIXELS`, which imports PyAV.
LARGE_PIXELS = 4096 * 2304
# Measured on two processor cores (x86_64), 512x512 to 1920x1080, in nanoseconds a pixel and frame.
_RECONSTRUCT_NS = 75  # decoding, checking, encoding footage.mp4, hashing
# Of one frame, measured at 1920x1080: 200 B a pixel.
_SCENE_BYTES_PER_PIXEL = 300
# Of large footage one frame is held at a time, and fewer by the encoder; measured at 4000x4000: 71 B a pixel.
_LARGE_SCENE_BYTES_PER_PIXEL = 120
# And for half floats: a frame in float32, converted twice, and the halves of four frames, twice while they are stacked.
_DEEP_BYTES_PER_PIXEL = 90
# What else a scene's folder has, for each frame and in all.
_CAMERA_BYTES, _MANIFEST_BYTES = 208, 5_000
# Seconds a frame on one H200, networks alone (docs/measured/depth.md).
_ESTIMATOR_SECONDS = {
    "depthcrafter": 0.175,
    "video-depth-anything": 0.0012,
    "depth-pro": 0.073,
    "depth-anything-v2": 0.0029,
}


def scene_memory_bytes(width: int, height: int, *, deep: bool = False) -> int:
    """Memory that a reconstruction takes for footage of this size, at most, besides an estimator's; for any length.

    Args:
        deep: with colours as half floats.
    """
    pixels = width * height
    per_pixel = _LARGE_SCENE_BYTES_PER_PIXEL if pixels > LARGE_PIXELS else _SCENE_BYTES_PER_PIXEL
    return pixels * (per_pixel + _DEEP_BYTES_PER_PIXEL * deep)


def estimator_memory_bytes(estimator: str, device: str) -> int:
    """Memory that a depth estimator takes at least, besides the scene's: its network, or the libraries of its GPU."""
    from ex4d.depth.depth_models import depth_model

    if on_gpu(device):
        return CUDA_BYTES
    # In float32, where a GPU has half precision.
    return int(2e9 * depth_model(estimator).gpu_gigabytes[0])


def scene_bytes(
    frames: int,
    width: int,
    height: int,
    convention: str = "centered",
    *,
    mesh: bool = False,
    mask: bool = False,
    deep: bool = False,
) -> int:
    """Size of a scene package: exact, except for its movie of the footage.

    Args:
        mesh: with the vertex positions of every frame.
        mask: with a mask of what moves.
        deep: with colours as half floats.
    """
    vertices = grid_vertices(width, height, convention)
    rows, columns = (height + 1, width + 1) if convention == "centered" else (height - 1, width - 1)
    arrays = frames * width * height * (3 + 4 + mask + 6 * deep + MOVIE_BYTES)
    topology = 12 * (2 * rows * columns + 2) + 8 * vertices
    positions = positions_bytes(vertices, frames) if mesh else 0
    return round(arrays + topology + positions + frames * _CAMERA_BYTES + _MANIFEST_BYTES)


def chosen_estimator(depth: DepthSettings, device: str, machine: MachineSettings) -> str | None:
    """The name of the estimator that a reconstruction would use; None for known depth.

    Raises:
        WeightsMissingError: with "auto", if none is ready.
    """
    if depth.layout != "estimator":
        return None
    from ex4d.depth import AUTO, EstimatorSettings, create_estimator, verdicts

    if depth.estimator != AUTO:
        return depth.estimator
    settings = EstimatorSettings(name=AUTO, machine=machine, licence=depth.licence, device=device)
    ready = next((verdict.model.name for verdict in verdicts(settings) if verdict.usable), None)
    return ready or create_estimator(settings).name  # which says what is missing


def estimate_scene(
    footage: FootageInfo,
    convention: str = "centered",
    *,
    estimator: str | None = None,
    device: str = "auto",
    mesh: bool = False,
    mask: bool = False,
    deep: bool = False,
) -> Estimate:
    """What a reconstruction needs.

    Args:
        estimator: of depth, by its name; None for known depth.
        device: for the estimator.
    """
    pixels, frames = footage.width * footage.height, footage.frames
    disk = scene_bytes(frames, footage.width, footage.height, convention, mesh=mesh, mask=mask, deep=deep)
    seconds = frames * pixels * _RECONSTRUCT_NS * 1e-9
    memory = BASE_BYTES + scene_memory_bytes(footage.width, footage.height, deep=deep)
    known = Estimate(seconds, disk, memory, basis=(f"time {TWO_CORES}",))
    if estimator is None:
        return known
    from ex4d.depth.depth_models import depth_model

    fixed, per_megapixel = depth_model(estimator).gpu_gigabytes
    network = int(1e9 * (fixed + per_megapixel * pixels / 1e6))
    if not on_gpu(device):
        why = f"no figure is known for the time of {estimator} on a processor"
        # In float32, where a GPU has half precision.
        return replace(known, seconds=None, memory_bytes=memory + 2 * network, basis=(why,))
    each = _ESTIMATOR_SECONDS.get(estimator)
    why = f"time of {estimator} from figures measured on one H200; other GPUs are slower"
    if each is None:
        why = f"no figure is known for the time of {estimator}"
    return replace(
        known,
        seconds=None if each is None else 2 * seconds + each * frames,  # the footage is decoded twice
        memory_bytes=memory + CUDA_BYTES,
        gpu_bytes=network,
        gpu_least_bytes=network,
        basis=(*known.basis, why),
    )
