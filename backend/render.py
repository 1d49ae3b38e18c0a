"""A scene and a camera path to colour and mask, frame by frame: where mesh and rasterizer meet.

Works through the clip in batches that fit a fixed share of memory, so a thousand frames cost no more than ten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from backend.mesh import DepthSurface
from backend.raster import Rasterizer, create_rasterizer, force_first_frame
from ex4d_core.cameras import CameraPath
from ex4d_core.scene import Scene
from ex4d_core.shot import RenderSettings, RequestError

# A DW-Mesh and what its construction needs take about 100 bytes a pixel; this keeps a batch under 300 MB.
_BYTES_PER_PIXEL = 100
_BATCH_BYTES = 300 * 1024**2


@dataclass(frozen=True)
class RenderedFrame:
    """One frame of a shot as the footage shows it.

    Attributes:
        index: from 0, of the shot.
        color: (H, W, 3) uint8 sRGB, black where nothing was seen.
        mask: (H, W) bool, true = seen.
        depth: (H, W) float32 along the new camera's z, scene units; infinite where there is no surface at all.
    """

    index: int
    color: np.ndarray
    mask: np.ndarray
    depth: np.ndarray


def render_shot(
    scene: Scene, camera: CameraPath, settings: RenderSettings, *, first_frame: int = 0, device: str = "auto"
) -> Iterator[RenderedFrame]:
    """Render a camera path through a scene.

    Args:
        scene: the opened scene package.
        camera: frame k sees footage frame ``first_frame + k``.
        device: "auto", "cpu", or "cuda" with an optional number.

    Raises:
        RequestError: the camera runs past the footage, or starts before it.
    """
    manifest = scene.manifest
    stop = first_frame + len(camera)
    if first_frame < 0 or stop > manifest.frames:
        raise RequestError(
            f"the camera needs footage frames {first_frame} to {stop - 1}, but the scene has frames 0 to "
            f"{manifest.frames - 1}; shorten the shot or start it earlier"
        )
    rasterizer = create_rasterizer(settings.rasterizer, device)
    batch = max(1, _BATCH_BYTES // (_BYTES_PER_PIXEL * manifest.width * manifest.height))
    for start in range(0, len(camera), batch):
        part = camera.frames(start, start + batch)
        yield from _render_batch(scene, part, settings, rasterizer, first_frame + start, start)


def _render_batch(
    scene: Scene, camera: CameraPath, settings: RenderSettings, rasterizer: Rasterizer, footage_frame: int, index: int
) -> Iterator[RenderedFrame]:
    footage = slice(footage_frame, footage_frame + len(camera))
    source = scene.source_camera()
    color = np.array(scene.color()[footage])
    surface = DepthSurface(
        torch.from_numpy(np.array(scene.depth()[footage])).to(rasterizer.device),
        torch.from_numpy(color).to(rasterizer.device),
        torch.from_numpy(np.array(source.intrinsics[footage])),
        convention=settings.convention,
        occlusion_rule=settings.occlusion_rule,
        camera_to_world=torch.from_numpy(source.camera_to_world[footage]),
    )
    rendered = rasterizer.render(
        surface, camera.world_to_camera, camera.intrinsics, camera.width, camera.height, with_depth=True
    )
    if settings.convention == "reference" and index == 0 and color.shape[1:3] == (camera.height, camera.width):
        rendered = force_first_frame(rendered, torch.from_numpy(color[0]))
    rendered = rendered.to("cpu")
    for offset in range(len(camera)):
        yield RenderedFrame(
            index + offset,
            rendered.color[offset].numpy(),
            rendered.mask[offset].numpy(),
            rendered.depth[offset].numpy(),
        )
