"""Renders colour and mask of a scene along a camera path, frame by frame.

It works in batches of a fixed size, so memory does not grow with the number of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ex4d.machine import MachineSettings
from ex4d.mesh import DepthSurface
from ex4d.pipeline.clip_memory import ClipMemory
from ex4d.pipeline.surfaces import measured, scene_surface
from ex4d.raster import (
    STRIP_SAMPLES,
    Rasterizer,
    RenderedBatch,
    RenderedFrame,
    can_be_cleaned,
    create_rasterizer,
    force_first_frame,
    render_in_batches,
)
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.lead_in import shows_first_frame
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import PlacedFootage
from ex4d_core.source_frames import is_consecutive, require_footage, shown_frames

# Footage and images of a batch take about 20 bytes a pixel, and the drawing of it as much again on a CPU; this keeps
# a batch under 300 MB.
_BYTES_PER_PIXEL, _BYTES_PER_DEEP_PIXEL = 40, 18
_BATCH_BYTES = 300 * 1024**2
# And with several samples of each pixel the key of each sample, of as many as are drawn at once.
_BYTES_PER_SAMPLE = 8
# Less than this share of a frame is shown as 0.0 %.
_NOTHING_SEEN = 0.0005


def render_shot(
    scene: PlacedFootage,
    camera: CameraPath,
    settings: RenderSettings,
    *,
    first_frame: int = 0,
    source_frames: Sequence[int] | None = None,
    device: str = "auto",
    machine: MachineSettings | None = None,
    deep: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[RenderedFrame]:
    """Render a camera path through a scene.

    Args:
        scene: the opened scene package, or a clip of arrays.
        camera: frame k sees footage frame ``first_frame + k``, or ``source_frames[k]``.
        source_frames: a footage frame for each new one, in any order.
        device: "auto", "cpu", or "cuda" with an optional number.
        machine: as the environment says by default.
        deep: also render the scene's deep colours.
        note: called with sentences about what the user should know of the clip's memory.

    Raises:
        SceneError: the scene has no deep colours.
        RequestError: deep colours with settings that have 8 bits only; the camera runs past the footage or starts
            before it, or there is not a source frame for each.
        LicenceError, DeviceError, RasterizerUnavailableError: see `ex4d.raster.create_rasterizer`.
        RenderMemoryError: the device's memory is too small for a single frame.
    """
    manifest = scene.manifest
    shown = shown_frames(len(camera), first_frame, source_frames)
    require_footage(shown, manifest.frames)
    if deep:
        settings = settings_for_deep_colors(settings)
    rasterizer = create_rasterizer(settings.rasterizer, device, settings.licence, machine)
    memory = None
    if settings.remember:
        memory = ClipMemory(scene, settings, device=device, machine=machine, deep=deep, note=note)
    pixels = max(manifest.width * manifest.height, camera.width * camera.height)
    drawn = min(STRIP_SAMPLES, camera.width * camera.height * settings.samples**2)
    per_pixel = _BYTES_PER_PIXEL + (_BYTES_PER_DEEP_PIXEL if deep else 0)
    batch = max(1, _BATCH_BYTES // (per_pixel * pixels + _BYTES_PER_SAMPLE * drawn))
    for start in range(0, len(camera), batch):
        part = camera.frames(start, start + batch)
        yield from _render_batch(scene, part, settings, rasterizer, shown[start : start + batch], start, memory, deep)


def settings_for_deep_colors(settings: RenderSettings) -> RenderSettings:
    """How deep colours are rendered: as asked for, by the rasterizer that knows them.

    Raises:
        RequestError: settings that have 8 bits only.
    """
    for name, value in (("convention", "reference"), ("rasterizer", "nvdiffrast")):
        if getattr(settings, name) == value:
            raise RequestError(f"{name} {str(value).lower()} renders 8 bits: leave it out for more")
    return replace(settings, rasterizer="warp")


def _render_batch(
    scene: PlacedFootage,
    camera: CameraPath,
    settings: RenderSettings,
    rasterizer: Rasterizer,
    shown: Sequence[int],
    index: int,
    memory: ClipMemory | None,
    deep: bool,
) -> Iterator[RenderedFrame]:
    source = scene.source_camera()
    surface, around = _with_neighbours(scene, source, settings, shown, camera, rasterizer, deep)
    first_is_source = index == 0 and shows_first_frame(scene.manifest, camera, settings.convention)
    centres, first = source_centres(camera, surface), index
    how = {"with_depth": True, "samples": settings.samples, "around": around}
    for rendered in render_in_batches(rasterizer, surface, camera, **how):
        part = slice(index - first, index - first + len(rendered.mask))
        if first_is_source:
            rendered, first_is_source = force_first_frame(rendered, surface.color[0]), False
        if memory is not None:
            views = surface.frame_range(part.start, part.stop), camera.frames(part.start, part.stop)
            rendered = _recalled(memory, rendered, *views, shown[part])
        yield from _each_frame(rendered, index, centres[index - first :], camera.frames(index - first, len(camera)))
        index += len(rendered.mask)


def _recalled(
    memory: ClipMemory,
    held: RenderedBatch,
    surface: DepthSurface,
    camera: CameraPath,
    shown: Sequence[int],
) -> RenderedBatch:
    """Fill what frames do not see as `ClipMemory.recall` does.

    Pixels that are seen only since masks are held steady stay so; where the clip knows them, their colour is its own.

    Args:
        held: the frames, held steady or as they were drawn.
    """
    drawn = held.mask if held.drawn is None else held.mask & held.drawn
    filled = memory.recall(replace(held, mask=drawn), surface, camera, shown)
    assert filled.remembered is not None, "filled from memory"
    return replace(filled, mask=held.mask, remembered=filled.remembered & ~held.mask)


def _with_neighbours(
    scene: PlacedFootage,
    source: CameraPath,
    settings: RenderSettings,
    shown: Sequence[int],
    camera: CameraPath,
    rasterizer: Rasterizer,
    deep: bool,
) -> tuple[DepthSurface, tuple[DepthSurface, DepthSurface] | None]:
    """What the frames of a shot show, and what the footage's frames before and after each of them do.

    Those frames and not the shot's own neighbours, so that a frame does not depend on the part of the path, or on the
    batch, that it is rendered in. At the footage's ends the frame itself stands in. None where masks are not cleaned.
    """
    count, last = len(shown), scene.manifest.frames - 1
    if not settings.cleans or not can_be_cleaned((scene.manifest.width, scene.manifest.height), camera.size):
        return scene_surface(scene, source, settings, shown, deep=deep), None
    before, after = ([min(max(frame + step, 0), last) for frame in shown] for step in (-1, 1))
    if not is_consecutive(shown):
        surface = scene_surface(scene, source, settings, [*before, *shown, *after], deep=deep)
        starts = 0, count, 2 * count
    else:
        # Each frame is read, and its silhouettes are measured, once for the three that it is drawn for.
        surface = scene_surface(scene, source, settings, [before[0], *shown, after[-1]], deep=deep)
        surface, starts = measured(surface, rasterizer.device), (0, 1, 2)
    earlier, own, later = (surface.frame_range(start, start + count) for start in starts)
    return own, (earlier, later)


def shows_nothing(visible_fraction: float) -> bool:
    """Whether a frame shows nothing of the footage, or so little that it rounds to 0.0 %."""
    return visible_fraction < _NOTHING_SEEN


def nothing_seen_note() -> str:
    """For the user, about a shot whose frame 0 shows nothing: most often its camera file was read the wrong way."""
    return (
        "frame 0 shows nothing of the footage (0 % seen). If the camera came from a file, read it in the other "
        "convention: --camera-convention original for files of EX-4D, opencv for those of ex4d "
        '(CameraPath.load(path, convention="original"))'
    )


def source_centres(camera: CameraPath, surface: DepthSurface) -> np.ndarray:
    """Where T cameras show the centre of the camera that saw each frame of a surface; (T, 3), homogeneous, pixels."""
    seen_from = np.zeros((len(camera), 3))
    if surface.camera_to_world is not None:
        seen_from = surface.camera_to_world[:, :3, 3].cpu().numpy()
    rotation, move = camera.world_to_camera[:, :3, :3], camera.world_to_camera[:, :3, 3]
    return np.einsum("tij,tj->ti", camera.intrinsics, np.einsum("tij,tj->ti", rotation, seen_from) + move)


def _each_frame(
    rendered: RenderedBatch, index: int, centres: np.ndarray, camera: CameraPath
) -> Iterator[RenderedFrame]:
    assert rendered.depth is not None, "rendered with depth"
    aspects = camera.intrinsics[:, 1, 1] / camera.intrinsics[:, 0, 0]
    for offset in range(len(rendered.mask)):
        yield RenderedFrame(
            index + offset,
            rendered.color[offset].numpy(),
            rendered.mask[offset].numpy(),
            rendered.depth[offset].numpy(),
            centres[offset],
            None if rendered.alpha is None else rendered.alpha[offset].numpy(),
            None if rendered.remembered is None else rendered.remembered[offset].numpy(),
            float(aspects[offset]),
            None if rendered.deep_color is None else rendered.deep_color[offset].numpy(),
        )
