"""Hidden regions of tracking masks on one frame of a clip: where they begin, and in which order their points go unseen.

A region opens from its middle outwards, as the hole behind a foreground does while a camera moves: each of its pixels
has a level, and goes unseen when the mask has opened that far. So a point that is hidden once stays hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ex4d.training.mask_settings import RegionSettings
from ex4d_core.trajectories import EASINGS, ease

# Borders of regions deviate from a circle by this share, in this many waves around it.
_RAGGED, _WAVES = 0.35, 5
# The step in disparity between neighbours, of the larger one, from which there is a hole behind the nearer one.
_STEP = 0.1
LEVELS = 255
NEVER = LEVELS + 1


@dataclass(frozen=True, eq=False)
class HiddenRegions:
    """Regions on one frame.

    Attributes:
        frame: of the clip.
        levels: (H, W) int32, 1 to `LEVELS` in regions, by when a pixel goes unseen; `NEVER` elsewhere.
        opened: (T,) the level that each frame of the clip has opened; 0 at frame 0, which a shot sees whole.
        words: for people.
    """

    frame: int
    levels: torch.Tensor
    opened: np.ndarray
    words: str


def draw_regions(
    depth: torch.Tensor, frames: int, frame: int, settings: RegionSettings, random: np.random.Generator
) -> HiddenRegions:
    """Draw regions on a frame.

    Args:
        depth: (H, W) float32 of the frame.
        frames: T of the clip.
    """
    height, width = depth.shape
    count = int(random.integers(settings.regions[0], settings.regions[1] + 1))
    edges = _behind_edges(depth)
    rows, columns = np.mgrid[:height, :width] + 0.5
    nearest = np.full((height, width), np.inf)
    behind = 0
    for _ in range(count):
        middle = random.uniform(0, height), random.uniform(0, width)
        if random.random() < settings.at_edges and len(edges):
            middle = tuple(edges[random.integers(len(edges))] + 0.5)
            behind += 1
        radius = random.uniform(*settings.region_size) * min(height, width)
        stretch, angle = np.exp(random.uniform(-0.7, 0.7)), random.uniform(0, np.pi)
        down, right = rows - middle[0], columns - middle[1]
        along, across = np.cos(angle) * right + np.sin(angle) * down, np.cos(angle) * down - np.sin(angle) * right
        around = np.arctan2(across, along)
        border = np.ones_like(around)
        for wave, phase in enumerate(random.uniform(0, 2 * np.pi, _WAVES), 1):
            border += _RAGGED / _WAVES * np.sin(wave * around + phase)
        distance = np.hypot(along / stretch, across * stretch) / max(radius, 1e-6) / border
        nearest = np.minimum(nearest, distance)
    levels = np.where(nearest < 1, 1 + np.floor(nearest * LEVELS).clip(max=LEVELS - 1), NEVER).astype(np.int32)
    easing = EASINGS[random.integers(len(EASINGS))]
    opened = LEVELS * ease(np.linspace(0, 1, frames), easing)
    words = f"{count} region{'s' if count > 1 else ''} of frame {frame}, {behind} behind edges in depth"
    return HiddenRegions(frame, torch.from_numpy(levels).to(depth.device), opened, words)


def _behind_edges(depth: torch.Tensor) -> np.ndarray:
    """(N, 2) rows and columns of pixels that lie just behind a discontinuity."""
    disparity = 1 / depth.float()
    found = torch.zeros_like(disparity, dtype=torch.bool)
    for axis in (0, 1):
        first, second = (
            disparity.narrow(axis, 0, disparity.shape[axis] - 1),
            disparity.narrow(axis, 1, disparity.shape[axis] - 1),
        )
        step = (first - second) / torch.maximum(first, second)
        # The farther of two neighbours is the one behind.
        found.narrow(axis, 1, disparity.shape[axis] - 1).logical_or_(step > _STEP)
        found.narrow(axis, 0, disparity.shape[axis] - 1).logical_or_(step < -_STEP)
    return found.nonzero().cpu().numpy()
