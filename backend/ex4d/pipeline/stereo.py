"""Renders shots with two eyes: each frame twice, side by side, or as the equirectangular halves of VR180."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from ex4d.machine import MachineSettings
from ex4d.pipeline.render import render_shot
from ex4d.raster import RenderedFrame
from ex4d.raster.half_sphere import TILES, HalfSphere
from ex4d.raster.stereo_frames import side_by_side
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import PlacedFootage
from ex4d_core.shot import require_stereo
from ex4d_core.source_frames import shown_frames
from ex4d_core.stereo import StereoSettings


def render_eyes(
    scene: PlacedFootage,
    camera: CameraPath,
    settings: RenderSettings,
    stereo: StereoSettings,
    *,
    first_frame: int = 0,
    source_frames: Sequence[int] | None = None,
    device: str = "auto",
    machine: MachineSettings | None = None,
    deep: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[RenderedFrame]:
    """Render a camera path through a scene with as many eyes as ``stereo`` says; each frame has all of them.

    Args:
        stereo: of layout "side-by-side" or "vr180", which yield `StereoFrame`s; "off" renders as `render_shot` does.
        deep: also render the scene's deep colours.

    Raises:
        RequestError: the settings do not fit each other or the camera; and all that `render_shot` raises.
    """
    shown = shown_frames(len(camera), first_frame, source_frames)
    how = {"device": device, "machine": machine, "deep": deep, "note": note}
    if not stereo.is_on:
        yield from render_shot(scene, camera, settings, source_frames=shown, **how)
        return
    require_stereo(stereo, settings)
    if stereo.layout == "files":
        raise RequestError("stereo files are two renders: render each of the cameras that `eyes` gives")
    eyes, sphere = stereo.eyes(camera), None
    if stereo.layout == "vr180":
        sphere = HalfSphere(stereo.eye_size(camera)[0], settings.samples)
        eyes, settings = tuple(sphere.tiles(eye) for eye in eyes), replace(settings, samples=1)
    # All views of a frame after each other, so that one pass draws them all and reads the footage once.
    of_eye = 1 if sphere is None else TILES
    views = _interleaved(eyes, of_eye)
    shown_in_views = [frame for frame in shown for _ in range(2 * of_eye)]
    rendered = render_shot(scene, views, settings, source_frames=shown_in_views, **how)
    for index in range(len(camera)):
        left, right = (_eye(list(islice(rendered, of_eye)), index, sphere) for _ in range(2))
        yield side_by_side(left, right)


def _eye(views: list[RenderedFrame], index: int, sphere: HalfSphere | None) -> RenderedFrame:
    """One eye's image of a frame."""
    return replace(views[0], index=index) if sphere is None else sphere.assembled(index, views)


def _interleaved(eyes: Sequence[CameraPath], of_eye: int) -> CameraPath:
    """One path of the eyes', each of which has so many views of a frame after each other."""
    arrays = {
        name: np.stack([getattr(eye, name).reshape(-1, of_eye, side, side) for eye in eyes], axis=1).reshape(
            -1, side, side
        )
        for name, side in (("world_to_camera", 4), ("intrinsics", 3))
    }
    return replace(eyes[0], **arrays)
