"""`scene_surface`: frames of a scene as the surface that rasterizers draw."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster.batches import is_out_of_memory
from ex4d_core.cameras import CameraPath
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import PlacedFootage
from ex4d_core.source_frames import consecutive_from, is_consecutive


def scene_surface(
    scene: PlacedFootage,
    source: CameraPath,
    settings: RenderSettings,
    shown: Sequence[int],
    *,
    copy: bool = True,
    deep: bool = False,
) -> DepthSurface:
    """What some frames of the footage show; consecutive ones without a copy are the scene's files, mapped.

    Args:
        source: the scene's source camera, which takes a moment to read.
        shown: numbers of the frames, in any order.
        deep: with the scene's deep colours.
    """
    if is_consecutive(shown):
        shown = consecutive_from(shown[0], len(shown))
    seen_by = source.at(shown)
    depth, color = (_frames_of(stored, shown, copy) for stored in (scene.depth(), scene.color()))
    return DepthSurface(
        _as_tensor(depth),
        _as_tensor(color),
        torch.tensor(seen_by.intrinsics),
        torch.from_numpy(seen_by.camera_to_world),
        settings.convention,
        settings.occlusion_rule,
        settings.occlusion,
        settings.cleans,
        _as_tensor(_frames_of(scene.deep_color(), shown, copy)) if deep else None,
    )


def measured(surface: DepthSurface, device: torch.device) -> DepthSurface:
    """The surface on a device, with depth range and silhouettes of its frames measured, to be drawn several times.

    As it is where nothing is to be measured, or the device has no room for all of its frames at once.
    """
    if surface.occlusion != "thickness":
        return surface
    try:
        moved = surface.to(device)
        moved.depth_range, moved.edge_shares  # noqa: B018 - measured once, with back limits
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return surface
    return moved


def _frames_of(stored: np.ndarray, shown: Sequence[int], copy: bool) -> np.ndarray:
    """Frames of a mapped array; in any order each of them is read once, however often it is shown."""
    if isinstance(shown, range):
        part = stored[shown.start : shown.stop]
        return np.array(part) if copy else part
    read, places = np.unique(np.asarray(shown), return_inverse=True)
    return np.asarray(stored[read])[places]


def _as_tensor(values: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nobody writes to footage
        return torch.from_numpy(values)
