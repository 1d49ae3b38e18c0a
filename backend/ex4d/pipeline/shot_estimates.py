"""Estimates of what renders and takes need, by making a few frames of them or from the size of their footage."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ex4d.devices import Devices
from ex4d.pipeline.deep_estimates import DEEP_BYTES_PER_PIXEL, deep_frame_bytes, deep_take_memory
from ex4d.pipeline.estimate import BASE_BYTES, CUDA_BYTES, MOVIE_BYTES, TWO_CORES, Estimate, on_gpu
from ex4d.pipeline.final_cards import card_here, wan_basis
from ex4d_core.cards import Card
from ex4d_core.final_estimates import estimate_final
from ex4d_core.source_frames import shown_frames
from ex4d_core.wan_settings import WanSettings

if TYPE_CHECKING:
    from ex4d.machine import MachineSettings
    from ex4d.media import FootageInfo
    from ex4d_core.cameras import CameraPath
    from ex4d_core.output_settings import OutputSettings
    from ex4d_core.render_settings import RenderSettings
    from ex4d_core.scene import PlacedFootage, Scene
    from ex4d_core.shot import ShotRequest
    from ex4d_core.stereo import StereoSettings

# Measured on two processor cores (x86_64), 512x512 to 1920x1080, in nanoseconds a pixel and frame.
_RENDER_NS = 290  # rasterizing with nine samples of each pixel, and encoding two movies
_TAKE_NS = 540  # that, filling holes, a PNG and a third movie
# Of one frame, measured at 1920x1080: 200 B a pixel for a render, 300 for a take.
_RENDER_BYTES_PER_PIXEL, _TAKE_BYTES_PER_PIXEL = 300, 450
# As in `ex4d.pipeline.render`, which draws several frames at once; with the default's nine samples of each pixel.
_BATCH_BYTES, _BATCH_BYTES_PER_PIXEL = 300 * 2**20, 40 + 9 * 8
_CALIBRATION_FRAMES = 8
# The engine wan: from a fast disk; and host memory, where all weights lie in 16 bits.
_WAN_LOADING_SECONDS = 120.0
_WAN_HOST_BYTES = 60e9


def estimate_render(
    scene: PlacedFootage,
    camera: CameraPath,
    settings: RenderSettings,
    *,
    arrays: bool,
    output: OutputSettings | None = None,
    stereo: StereoSettings,
    first_frame: int = 0,
    source_frames: Sequence[int] | None = None,
    device: str = "auto",
    machine: MachineSettings | None = None,
) -> Estimate:
    """What the movies of a render need, or its .npz (``arrays``), by making a few frames of it.

    Args:
        output: of more than 8 bits, of an opened scene; None for 8 bits.

    Raises:
        Ex4dError: the render itself would fail.
    """
    from ex4d.pipeline.deep_outputs import render_deep
    from ex4d.pipeline.outputs import render_movies, render_views

    def make(folder: Path, start: int, part: CameraPath) -> None:
        shown = shown_frames(len(camera), first_frame, source_frames)[start : start + len(part)]
        how = {"source_frames": shown, "device": device, "machine": machine}
        how |= {"stereo": stereo.part(start, start + len(part))}
        if output is not None:
            render_deep(cast("Scene", scene), part, settings, output, folder, "view", **how)
            return
        if arrays:
            render_views(scene, part, settings, **how).save(folder / "arrays.npz")
        else:
            render_movies(scene, part, settings, folder, "view", **how)

    each, size, basis = _measured(make, camera)
    pixels, rays = _pixels(stereo, camera), _ray_bytes(stereo, camera, settings.samples)
    memory = _drawing_bytes(scene, camera, device) + _RENDER_BYTES_PER_PIXEL * pixels + rays
    if output is not None:
        memory += DEEP_BYTES_PER_PIXEL * pixels
    elif arrays:
        memory += 12 * len(camera) * pixels  # colour, mask, depth, and one of them compressed
    return Estimate(each * len(camera), round(size * len(camera)), memory, basis=(basis,))


def estimate_take(
    scene: Scene,
    request: ShotRequest,
    device: str,
    machine: MachineSettings | None = None,
    card: Card | None = None,
) -> Estimate:
    """What a take needs, by making a few frames of it as a preview; see `add_wan` for the engine wan.

    A final whose files of more than 8 bits no preview can make has these from stated figures.

    Raises:
        Ex4dError: the take itself would fail.
    """
    from ex4d.pipeline.deep_take import draws_deep_colors, require_deep_take
    from ex4d.pipeline.shot_start import shot_start, start_notes
    from ex4d.pipeline.take_folder import take_into_folder
    from ex4d_core.output_settings import OutputSettings
    from ex4d_core.shot import PreviewSettings

    def make(folder: Path, start: int, part: CameraPath) -> None:
        how = {"engine": "preview", "output": output, "preview": preview}
        sample = replace(request.part(start, start + len(part)), **how)
        take_into_folder(scene, sample, folder, device=Devices.parse(device).first, machine=machine)

    require_deep_take(scene, request)
    output = request.output if draws_deep_colors(scene, request) else OutputSettings()
    # How a preview would show holes says nothing about a final.
    preview = PreviewSettings() if request.engine == "wan" else request.preview
    each, size, basis = _measured(make, request.camera)
    camera, start = request.camera, shot_start(scene, request)
    rays = _ray_bytes(request.stereo, camera, request.render.samples)
    pixels = _pixels(request.stereo, camera)
    memory = _drawing_bytes(scene, camera, device) + _TAKE_BYTES_PER_PIXEL * pixels + rays
    if request.output.is_deep:
        memory += deep_take_memory(request, start.hidden)
    if request.output.is_deep and not output.is_deep:
        size += deep_frame_bytes(request)
    notes = (basis, *start_notes(scene, request, Devices.parse(device).first, machine))
    drawn = Estimate(each * len(camera), round(size * len(camera)), memory, basis=notes)
    return add_wan(drawn, request.wan, len(camera), *camera.size, device, request.engine, start.hidden, card)


def estimate_take_of_footage(
    footage: FootageInfo,
    frames: int,
    width: int,
    height: int,
    wan: WanSettings,
    device: str,
    engine: str,
    *,
    own_camera: bool = False,
) -> Estimate:
    """What a take of a scene needs that is not there yet, by the size of one frame of its footage as a PNG.

    Args:
        own_camera: whether the camera comes from a file: only there a shot may start elsewhere than at the source view,
            and is taken to have its lead-in.
    """
    pixels = frames * width * height
    disk = round(pixels * (_png_bytes_per_pixel(footage) + 3 * MOVIE_BYTES))
    drawing = min(_BATCH_BYTES, _BATCH_BYTES_PER_PIXEL * pixels) + (CUDA_BYTES if on_gpu(device) else 0)
    memory = BASE_BYTES + drawing + _TAKE_BYTES_PER_PIXEL * width * height
    preview = Estimate(pixels * _TAKE_NS * 1e-9, disk, memory, basis=(f"time {TWO_CORES}",))
    hidden = wan.lead_in if own_camera and wan.conditioning == "known" else 0
    return add_wan(preview, wan, frames, width, height, device, engine, hidden)


def estimate_render_of_footage(frames: int, width: int, height: int, device: str) -> Estimate:
    """What the movies of a render need of a scene that is not there yet."""
    pixels = frames * width * height
    drawing = min(_BATCH_BYTES, _BATCH_BYTES_PER_PIXEL * pixels) + (CUDA_BYTES if on_gpu(device) else 0)
    memory = BASE_BYTES + drawing + _RENDER_BYTES_PER_PIXEL * width * height
    disk = round(pixels * 2 * MOVIE_BYTES)
    return Estimate(pixels * _RENDER_NS * 1e-9, disk, memory, basis=(f"time {TWO_CORES}",))


def add_wan(
    preview: Estimate,
    wan: WanSettings,
    frames: int,
    width: int,
    height: int,
    device: str,
    engine: str,
    hidden: int = 0,
    card: Card | None = None,
) -> Estimate:
    """What the engine wan needs on top of a preview of the same take; the preview itself for any other engine.

    Args:
        hidden: frames of a lead-in.
        card: that generates; the one of this machine by default.
    """
    if engine != "wan":
        return preview
    wan, shortfalls = _as_run(wan, device) if card is None else (wan, [])
    card = card or card_here(device)
    final = estimate_final(wan, frames, width, height, card, hidden=hidden)
    seconds = None if final.seconds is None else (preview.seconds or 0) + final.seconds + _WAN_LOADING_SECONDS
    # Footage's pixels are laid over frames of a window that are complete when all of it is generated.
    kept = 4 * width * height * min(frames, (wan.window + hidden) * wan.stride) if wan.keep_seen else 0
    return Estimate(
        seconds,
        preview.disk_bytes,
        preview.memory_bytes + int(_WAN_HOST_BYTES) + kept,
        final.gpu_bytes,
        final.gpu_least_bytes,
        (*preview.basis, wan_basis(final, card), *shortfalls),
    )


def _as_run(wan: WanSettings, device: str) -> tuple[WanSettings, list[str]]:
    """Settings with the arithmetic that this machine's GPU has for them, and a sentence for what it has not."""
    if not on_gpu(device):
        return wan, []
    from ex4d.generation.wan.arithmetic import settings_as_run

    return settings_as_run(wan, Devices.parse(device).resolve().first)


def _measured(make: Callable[[Path, int, CameraPath], None], camera: CameraPath) -> tuple[float, float, str]:
    """Make a few frames from the middle of a move, which see about as much as the average.

    Args:
        make: called with a folder, the number of the first frame, and the frames.

    Returns:
        Seconds and bytes a frame, and the basis of an estimate.
    """
    frames = min(_CALIBRATION_FRAMES, len(camera))
    start = (len(camera) - frames) // 2
    with tempfile.TemporaryDirectory(prefix="ex4d-estimate-") as folder:
        warm, measured = Path(folder) / "warm", Path(folder) / "measured"
        for place in (warm, measured):
            place.mkdir()
        make(warm, start, camera.frames(start, start + 1))  # compiles kernels
        began = time.perf_counter()
        make(measured, start, camera.frames(start, start + frames))
        seconds = time.perf_counter() - began
        size = sum(path.stat().st_size for path in measured.rglob("*") if path.is_file())
    basis = f"time and disk measured on {frames} of its frames, on this machine as busy as it is now"
    return seconds / frames, size / frames, basis


def _drawing_bytes(scene: PlacedFootage, camera: CameraPath, device: str) -> int:
    pixels = max(scene.manifest.width * scene.manifest.height, camera.width * camera.height)
    batch = min(_BATCH_BYTES, _BATCH_BYTES_PER_PIXEL * pixels * len(camera))
    return BASE_BYTES + batch + (CUDA_BYTES if on_gpu(device) else 0)


def _pixels(stereo: StereoSettings, camera: CameraPath) -> int:
    width, height = stereo.frame_size(camera)
    return width * height


def _ray_bytes(stereo: StereoSettings, camera: CameraPath, samples: int) -> int:
    """What an equirectangular image takes besides: where its rays meet tiles, and six of these (`HalfSphere`)."""
    if stereo.layout != "vr180":
        return 0
    rays = (samples * stereo.eye_size(camera)[0]) ** 2
    return 4 * rays + 10 * round(6 * 2 * rays / math.pi**2)


def _png_bytes_per_pixel(footage: FootageInfo) -> float:
    from ex4d.media import read_frames, write_png

    with tempfile.TemporaryDirectory(prefix="ex4d-estimate-") as folder:
        path = Path(folder) / "frame.png"
        write_png(path, next(iter(read_frames(footage.path, footage.frames // 2, 1))))
        return path.stat().st_size / (footage.width * footage.height)
