"""`simulate_mask`: one simulated mask for a clip, rendered or tracked, from a seed."""

from __future__ import annotations

import numpy as np

from ex4d.mesh import DepthSurface
from ex4d.mesh.surface import MeshDepthError
from ex4d.raster import Rasterizer
from ex4d.training.mask_settings import MoveSettings, RegionSettings
from ex4d.training.rendered_masks import SimulatedMask, simulate_rendered
from ex4d.training.tracked_masks import simulate_tracked
from ex4d_core.cameras import CameraError
from ex4d_core.errors import RequestError

# What may be wrong with one mask that was drawn; another one of the same clip may be usable.
UNUSABLE_MASK_ERRORS = (MeshDepthError, CameraError, RequestError)


def simulate_mask(
    surface: DepthSurface,
    moves: MoveSettings,
    regions: RegionSettings,
    tracked_share: float,
    seed: int,
    rasterizer: Rasterizer,
    *,
    camera_known: bool = False,
) -> SimulatedMask | None:
    """Simulate a mask; the same clip, settings and seed give the same one on the same device.

    Args:
        surface: T frames of the clip, best on the rasterizer's device; with poses where its camera is known and moves.
        tracked_share: how often the mask is a tracking mask, 0 to 1.
        camera_known: whether the source camera is known, be it one that stands still.

    Returns:
        None if no mask has an unseen share within the limits of ``moves``.

    Raises:
        MeshDepthError, CameraError, RequestError: the mask that was drawn cannot be used; see `UNUSABLE_MASK_ERRORS`.
    """
    random = np.random.default_rng([seed, 1])
    if random.random() >= tracked_share:
        return simulate_rendered(surface, moves, seed, rasterizer)
    return simulate_tracked(surface, regions, moves.unseen, moves.tries, seed, rasterizer, camera_known=camera_known)
