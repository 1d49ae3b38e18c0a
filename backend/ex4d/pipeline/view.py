"""`SceneViews`: one frame from one camera, at once, for an artist who is dragging a keyframe.

The viewer of the service keeps one `SceneViews` for each scene it has open. Rendering, the filling of holes and their
blending stay on the device that draws; only the finished image is copied from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from cachetools import LRUCache

from ex4d.generation.preview import HoleFiller, marked
from ex4d.machine import MachineSettings
from ex4d.mesh import DepthSurface
from ex4d.pipeline.clip_memory import ClipMemory
from ex4d.pipeline.render import source_centres
from ex4d.pipeline.surfaces import scene_surface
from ex4d.raster import Rasterizer, RenderedBatch, RenderMemoryError, create_rasterizer
from ex4d.raster.batches import is_out_of_memory
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import PlacedFootage
from ex4d_core.shot import PreviewSettings, ShotRequest
from ex4d_core.source_frames import require_footage

# The current frame, and a few before and after it.
_KEPT_FRAMES = 4


@dataclass(frozen=True)
class ShownFrame:
    """A finished image.

    Attributes:
        image: (H, W, 3) uint8 sRGB.
        seen: the share of it that the footage saw.
        remembered: the share that other frames of the clip saw, and that the image shows.
    """

    image: np.ndarray
    seen: float
    remembered: float = 0.0


class SceneViews:
    """Views of one scene; keeps the footage of the last few frames where it is drawn."""

    def __init__(self, scene: PlacedFootage, *, device: str = "auto", machine: MachineSettings | None = None):
        self._scene = scene
        self._source = scene.source_camera()
        self._device, self._machine = device, machine
        self._rasterizers: dict[RenderSettings, Rasterizer] = {}
        self._memories: dict[RenderSettings, ClipMemory] = {}
        self._surfaces: LRUCache[tuple[RenderSettings, int], DepthSurface] = LRUCache(_KEPT_FRAMES)

    def look(self, request: ShotRequest) -> ShownFrame:
        """What a request's one camera sees, holes treated as its preview settings say.

        Raises:
            RequestError: the scene has no such frame.
            RasterizerUnavailableError: see `ex4d.raster.create_rasterizer`.
            RenderMemoryError: the device's memory is too small for this frame.
        """
        camera, settings = request.camera, request.settled_render
        require_footage(request.footage_frames, self._scene.manifest.frames)
        if settings not in self._rasterizers:
            self._rasterizers[settings] = create_rasterizer(
                settings.rasterizer, self._device, settings.licence, self._machine
            )
        rasterizer = self._rasterizers[settings]
        try:
            surface = self._surface(settings, request.footage_frames[0], rasterizer.device)
            (centre,) = source_centres(camera, surface)
            rendered = rasterizer.render(surface, camera, with_depth=True)
            if settings.remember:
                rendered = self._memory(settings).recall(rendered, surface, camera, request.footage_frames)
            return _shown(rendered, request.preview, centre)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise RenderMemoryError(
                f"{rasterizer.device} has too little memory for a view of {camera.width} x {camera.height} pixels: "
                f"close other programs that use it, or ask for a smaller view ({error})"
            ) from error

    def _memory(self, settings: RenderSettings) -> ClipMemory:
        if settings not in self._memories:
            self._memories[settings] = ClipMemory(self._scene, settings, device=self._device, machine=self._machine)
        return self._memories[settings]

    def _surface(self, settings: RenderSettings, frame: int, device: torch.device) -> DepthSurface:
        key = settings, frame
        if key not in self._surfaces:
            surface = scene_surface(self._scene, self._source, settings, range(frame, frame + 1))
            self._surfaces[key] = surface.to(device)
        return self._surfaces[key]


def _shown(rendered: RenderedBatch, settings: PreviewSettings, source_centre: np.ndarray) -> ShownFrame:
    assert rendered.depth is not None, "rendered with depth"
    color, mask, depth = rendered.color[0], rendered.mask[0], rendered.depth[0]
    seen, remembered = _share(mask), 0.0
    if rendered.remembered is not None:
        remembered = _share(rendered.remembered[0])
        mask = mask | rendered.remembered[0]
    if settings.holes == "mark":
        filling = torch.tensor(settings.hole_color, dtype=torch.uint8, device=color.device)
        if rendered.remembered is not None:
            color = marked(color, rendered.remembered[0])
    else:
        filling = HoleFiller().fill(color, mask, depth, source_centre)
    image = torch.where(mask[..., None], color, filling)
    return ShownFrame(image.cpu().numpy(), seen, remembered)


def _share(mask: torch.Tensor) -> float:
    return float(mask.sum(dtype=torch.int64)) / mask.numel()
