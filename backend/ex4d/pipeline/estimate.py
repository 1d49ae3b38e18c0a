"""Estimates of the time, memory and disk that a scene, a render or a take needs, before any of it is made.

Disk and memory are counted: bytes of arrays, and a bound on what is held at once. Time is measured where something can
be: a few frames are made in a temporary folder, and removed. Otherwise it follows from stated figures, which each
estimate names. Nothing here imports torch before it is needed.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ex4d.devices import Devices
from ex4d.pipeline.deep_estimates import DEEP_BYTES_PER_PIXEL, deep_frame_bytes, deep_take_memory
from ex4d.pipeline.final_cards import card_here, wan_basis
from ex4d_core.cards import Card
from ex4d_core.errors import Ex4dError
from ex4d_core.final_estimates import estimate_final
from ex4d_core.mesh_cache import grid_vertices, positions_bytes
from ex4d_core.sizes import size_text
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
    from ex4d_core.sources import DepthSettings
    from ex4d_core.stereo import StereoSettings

# As `ex4d.media.video_writer.LARGE_PIXELS`, which imports PyAV.
LARGE_PIXELS = 4096 * 2304
# Until the first frame: Python, torch and the kernels, with warm caches.
START_SECONDS = 2.0
# Measured on two processor cores (x86_64), 512x512 to 1920x1080, in nanoseconds a pixel and frame.
_RECONSTRUCT_NS = 75  # decoding, checking, encoding footage.mp4, hashing
_RENDER_NS = 290  # rasterizing with nine samples of each pixel, and encoding two movies
_TAKE_NS = 540  # that, filling holes, a PNG and a third movie
_TWO_CORES = "from figures measured on two processor cores; decoding, disk and other programs may double it"

# Host memory that the system cannot take back; measured: 320 to 370 MB with torch and Warp imported.
_BASE_BYTES = 500_000_000
_CUDA_BYTES = 4_000_000_000  # CUDA's libraries keep copies of their code in the host's memory
# Of one frame, measured at 1920x1080: 200 B a pixel for a scene and a render, 300 for a take.
_SCENE_BYTES_PER_PIXEL, _RENDER_BYTES_PER_PIXEL, _TAKE_BYTES_PER_PIXEL = 300, 300, 450
# Of large footage one frame is held at a time, and fewer by the encoder; measured at 4000x4000: 71 B a pixel.
_LARGE_SCENE_BYTES_PER_PIXEL = 120
# And for half floats: a frame in float32, converted twice, and the halves of four frames, twice while they are stacked.
_DEEP_BYTES_PER_PIXEL = 90
# As in `ex4d.pipeline.render`, which draws several frames at once; with the default's nine samples of each pixel.
_BATCH_BYTES, _BATCH_BYTES_PER_PIXEL = 300 * 2**20, 40 + 9 * 8

# Bytes a pixel of a frame in movies, of which noise takes more and a title card nothing; and what else a folder has.
_MOVIE_BYTES = 0.1
_CAMERA_BYTES, _MANIFEST_BYTES = 208, 5_000
_CALIBRATION_FRAMES = 8

# Seconds a frame on one H200, networks alone (docs/measured/depth.md).
_ESTIMATOR_SECONDS = {
    "depthcrafter": 0.175,
    "video-depth-anything": 0.0012,
    "depth-pro": 0.073,
    "depth-anything-v2": 0.0029,
}
# The engine wan: from a fast disk; and host memory, where all weights lie in 16 bits.
_WAN_LOADING_SECONDS = 120.0
_WAN_HOST_BYTES = 60e9


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

    if _on_gpu(device):
        return _CUDA_BYTES
    # In float32, where a GPU has half precision.
    return int(2e9 * depth_model(estimator).gpu_gigabytes[0])


class DiskRoomError(Ex4dError):
    """The disk has no room for what is about to be made; the message says how much is needed, and where."""


@dataclass(frozen=True)
class Estimate:
    """What some work needs.

    Attributes:
        seconds: about, without `START_SECONDS`; None where no figure is known.
        disk_bytes: that stay, about.
        memory_bytes: of the host, at most; without footage that is mapped from disk, which the system may drop.
        gpu_bytes: of GPU memory for full speed, about; 0 if none is needed.
        gpu_least_bytes: below which it does not work.
        basis: where the figures come from, for people.
    """

    seconds: float | None
    disk_bytes: int
    memory_bytes: int
    gpu_bytes: int = 0
    gpu_least_bytes: int = 0
    basis: tuple[str, ...] = ()


def total(estimates: Iterable[Estimate]) -> Estimate:
    """Of work that is done one after the other."""
    result = Estimate(0.0, 0, 0)
    for one in estimates:
        unknown = result.seconds is None or one.seconds is None
        result = Estimate(
            None if unknown else (result.seconds or 0) + (one.seconds or 0),
            result.disk_bytes + one.disk_bytes,
            max(result.memory_bytes, one.memory_bytes),
            max(result.gpu_bytes, one.gpu_bytes),
            max(result.gpu_least_bytes, one.gpu_least_bytes),
            tuple(dict.fromkeys((*result.basis, *one.basis))),
        )
    return result


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
    arrays = frames * width * height * (3 + 4 + mask + 6 * deep + _MOVIE_BYTES)
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
    memory = _BASE_BYTES + scene_memory_bytes(footage.width, footage.height, deep=deep)
    known = Estimate(seconds, disk, memory, basis=(f"time {_TWO_CORES}",))
    if estimator is None:
        return known
    from ex4d.depth.depth_models import depth_model

    fixed, per_megapixel = depth_model(estimator).gpu_gigabytes
    network = int(1e9 * (fixed + per_megapixel * pixels / 1e6))
    if not _on_gpu(device):
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
        memory_bytes=memory + _CUDA_BYTES,
        gpu_bytes=network,
        gpu_least_bytes=network,
        basis=(*known.basis, why),
    )


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

    A final in more than 8 bits of a scene of 8 has its files from stated figures: no preview can make them.

    Raises:
        Ex4dError: the take itself would fail.
    """
    from ex4d.pipeline.shot_start import shot_start, start_notes
    from ex4d.pipeline.take_folder import take_into_folder
    from ex4d_core.output_settings import OutputSettings

    def make(folder: Path, start: int, part: CameraPath) -> None:
        sample = replace(request.part(start, start + len(part)), engine="preview", output=output)
        take_into_folder(scene, sample, folder, device=Devices.parse(device).first, machine=machine)

    output = request.output if scene.manifest.is_deep or request.engine != "wan" else OutputSettings()
    each, size, basis = _measured(make, request.camera)
    camera, start = request.camera, shot_start(scene, request)
    rays = _ray_bytes(request.stereo, camera, request.render.samples)
    pixels = _pixels(request.stereo, camera)
    memory = _drawing_bytes(scene, camera, device) + _TAKE_BYTES_PER_PIXEL * pixels + rays
    if request.output.is_deep:
        memory += deep_take_memory(request, start.hidden)
    if request.output != output:
        size += deep_frame_bytes(request)
    notes = (basis, *start_notes(scene, request, Devices.parse(device).first, machine))
    preview = Estimate(each * len(camera), round(size * len(camera)), memory, basis=notes)
    return add_wan(preview, request.wan, len(camera), *camera.size, device, request.engine, start.hidden, card)


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
    disk = round(pixels * (_png_bytes_per_pixel(footage) + 3 * _MOVIE_BYTES))
    drawing = min(_BATCH_BYTES, _BATCH_BYTES_PER_PIXEL * pixels) + (_CUDA_BYTES if _on_gpu(device) else 0)
    memory = _BASE_BYTES + drawing + _TAKE_BYTES_PER_PIXEL * width * height
    preview = Estimate(pixels * _TAKE_NS * 1e-9, disk, memory, basis=(f"time {_TWO_CORES}",))
    hidden = wan.lead_in if own_camera and wan.conditioning == "known" else 0
    return add_wan(preview, wan, frames, width, height, device, engine, hidden)


def estimate_render_of_footage(frames: int, width: int, height: int, device: str) -> Estimate:
    """What the movies of a render need of a scene that is not there yet."""
    pixels = frames * width * height
    drawing = min(_BATCH_BYTES, _BATCH_BYTES_PER_PIXEL * pixels) + (_CUDA_BYTES if _on_gpu(device) else 0)
    memory = _BASE_BYTES + drawing + _RENDER_BYTES_PER_PIXEL * width * height
    disk = round(pixels * 2 * _MOVIE_BYTES)
    return Estimate(pixels * _RENDER_NS * 1e-9, disk, memory, basis=(f"time {_TWO_CORES}",))


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
    if not _on_gpu(device):
        return wan, []
    from ex4d.generation.wan.arithmetic import settings_as_run

    return settings_as_run(wan, Devices.parse(device).resolve().first)


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder, which need not exist yet."""
    folder = folder.absolute()
    return shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free


def require_room(folder: Path, needed: int, what: str) -> None:
    """Check that the disk has room.

    Args:
        what: needs it, for people: "a scene of 49 frames".

    Raises:
        DiskRoomError: it has not.
    """
    free = free_bytes(folder)
    if needed > free:
        raise DiskRoomError(
            f"{what} needs about {size_text(needed)}, and {size_text(free)} are free where {folder} is: free some "
            "space, choose another folder, or take fewer frames"
        )


def time_text(seconds: float | None) -> str:
    """A time that is not known exactly, for people: "about 12 s"."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


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
    return _BASE_BYTES + batch + (_CUDA_BYTES if _on_gpu(device) else 0)


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


def _on_gpu(device: str) -> bool:
    return Devices.parse(device).first != "cpu" and Devices.parse(device).resolve().is_cuda
