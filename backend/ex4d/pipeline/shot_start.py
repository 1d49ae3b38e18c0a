"""How a take starts: its frames as they are generated, hidden ones first where its start is not the source view."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from ex4d.machine import MachineSettings
from ex4d.pipeline.render import render_shot
from ex4d.raster import RenderedFrame
from ex4d_core.cameras import CameraPath
from ex4d_core.final_sizes import generated_frames, lead_in_cost, with_lead_in
from ex4d_core.lead_in import AT_SOURCE, lead_in, shows_first_frame, source_view, start_distance
from ex4d_core.scene import PlacedFootage
from ex4d_core.shot import ShotRequest
from ex4d_core.wan_settings import LEAD_INS, WanSettings

_SHORTEST = min(frames for frames in LEAD_INS if frames)


@dataclass(frozen=True)
class ShotStart:
    """A shot with its hidden frames.

    Attributes:
        camera: of all frames that are rendered.
        shown: the footage frame that each of them shows.
        hidden: how many of the first ones are hidden.
        at_source: whether the first one is the source view, and so the source frame.
        distance: of the shot's own first frame from the source view, pixels; 0 where it does not matter.
    """

    camera: CameraPath
    shown: Sequence[int]
    hidden: int = 0
    at_source: bool = False
    distance: float = 0.0


def shot_start(scene: PlacedFootage, request: ShotRequest) -> ShotStart:
    """What is rendered of a shot, and whether it starts at the source view: see `WanSettings.conditioning`."""
    camera, shown, wan = request.camera, request.footage_frames, request.wan
    start = ShotStart(camera, shown)
    starts_from_frame_0 = request.engine == "wan" and wan.conditioning == "known"
    if not starts_from_frame_0 or shows_first_frame(scene.manifest, camera, request.settled_render.convention):
        return start
    sources = scene.source_camera()
    distance = start_distance(sources.at([shown[0]]), camera, scene.manifest.depth_range)
    if distance <= AT_SOURCE or not wan.lead_in:
        return replace(start, at_source=distance <= AT_SOURCE, distance=distance)
    # Hidden frames are as far apart in time as the generated ones.
    led = lead_in(sources, camera, shown[:: wan.stride], wan.lead_in)
    path = CameraPath(
        np.concatenate([led.camera.world_to_camera, camera.world_to_camera]),
        np.concatenate([led.camera.intrinsics, camera.intrinsics]),
        *camera.size,
    )
    return ShotStart(path, (*led.source_frames, *shown), wan.lead_in, True, distance)


def settings_of_start(settings: WanSettings, start: ShotStart, frames: int) -> WanSettings:
    """The engine's settings for a shot of ``frames`` frames that are generated, without the hidden ones."""
    return with_lead_in(settings, frames, start.hidden)


def start_note(start: ShotStart, settings: WanSettings, frames: int, visible_fraction: float) -> str:
    """What the user should know of a shot's start; "" where it starts at the source view.

    Args:
        frames: that are generated, without the hidden ones.
        visible_fraction: of the shot's own first frame.
    """
    if start.distance <= AT_SOURCE:
        return ""
    far = "frame 0 looks another way than the source view"
    if math.isfinite(start.distance):
        far = f"frame 0 shows the footage up to {start.distance:.0f} pixels away from the source view"
    more = lead_in_cost(settings, frames, start.hidden or _SHORTEST)
    if start.hidden:
        return f"{far}: {start.hidden} hidden frames lead in, {more:.0%} more to generate; --lead-in 0 leaves them out"
    return (
        f"{far}, and {visible_fraction:.1%} of it is seen, from which the engine starts; --lead-in {_SHORTEST} lets it "
        f"start from the source frame, {more:.0%} more to generate"
    )


def start_notes(scene: PlacedFootage, request: ShotRequest, device: str, machine: MachineSettings | None) -> list[str]:
    """`start_note` of a shot before it is made, if there is one."""
    start = shot_start(scene, request)
    if start.distance <= AT_SOURCE:
        return []
    seen = 0.0
    if not start.hidden:  # or else nobody reads it
        shown, settings = request.footage_frames[:1], request.settled_render
        first = request.camera.frames(0, 1)
        frames = render_shot(scene, first, settings, source_frames=shown, device=device, machine=machine)
        seen = next(iter(frames)).visible_fraction
    return [start_note(start, request.wan, generated_frames(len(request.camera), request.wan.stride), seen)]


def from_source_frame(
    frames: Iterable[RenderedFrame], scene: PlacedFootage, start: ShotStart
) -> Iterator[RenderedFrame]:
    """Pass frames on; the first one is the source frame, all of it seen, where the shot starts at the source view."""
    for frame in frames:
        if frame.index == 0 and start.at_source:
            yield replace(
                frame,
                color=source_image(scene, start),
                deep_color=None if frame.deep_color is None else source_image(scene, start, deep=True),
                mask=np.ones_like(frame.mask),
                alpha=None if frame.alpha is None else np.full_like(frame.alpha, 255),
                remembered=None if frame.remembered is None else np.zeros_like(frame.remembered),
            )
        else:
            yield frame


def source_image(scene: PlacedFootage, start: ShotStart, *, deep: bool = False) -> np.ndarray:
    """(H, W, 3) uint8: the footage frame of a shot's start, at the shot's size; cut where its aspect is another.

    Args:
        deep: the scene's deep colours instead, float16.
    """
    image = np.array((scene.deep_color() if deep else scene.color())[start.shown[0]])
    source = scene.source_camera().at([start.shown[0]])
    view = source_view(source, start.camera)
    across, down = (float(view.intrinsics[0, axis, axis] / source.intrinsics[0, axis, axis]) for axis in range(2))
    size = max(view.height, round(image.shape[0] * down)), max(view.width, round(image.shape[1] * across))
    if size != image.shape[:2]:
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        scaled = functional.interpolate(tensor, size, mode="bicubic", antialias=True)
        scaled = scaled[0].permute(1, 2, 0)
        image = (scaled.half() if deep else scaled.round().clamp(0, 255).to(torch.uint8)).numpy()
    top, left = (size[0] - view.height) // 2, (size[1] - view.width) // 2
    return np.ascontiguousarray(image[top : top + view.height, left : left + view.width])
