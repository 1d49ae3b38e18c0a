"""A scene whose depth and camera are known exactly: a wall, and a card before it, seen by a camera that slides."""

from __future__ import annotations

import numpy as np
import torch

from ex4d.mesh import DepthSurface
from ex4d_core.cameras import intrinsics_matrix

WIDTH, HEIGHT, FOCAL = 64, 48, 64.0
WALL, CARD = 4.0, 2.0
# The wall moves by a pixel in the image for each frame, and the card by two.
STEP = WALL / FOCAL


def sliding_scene(frames: int, card: bool = True) -> DepthSurface:
    """The camera slides to the right, so that what stands still moves to the left in the image."""
    texture = np.random.default_rng(0).integers(0, 256, (HEIGHT // 4, 256 // 4), dtype=np.uint8)
    texture = texture.repeat(4, 0).repeat(4, 1)
    depth = np.full((frames, HEIGHT, WIDTH), WALL, np.float32)
    color = np.stack([texture[:, frame : frame + WIDTH] for frame in range(frames)])
    for frame in range(frames if card else 0):
        left = max(0, card_left(frame))
        depth[frame, 12:36, left : card_left(frame) + 16] = CARD
        color[frame, 12:36, left : card_left(frame) + 16] = 255
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 0, 3] = STEP * np.arange(frames)
    intrinsics = intrinsics_matrix(FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)
    return DepthSurface(
        torch.from_numpy(depth),
        torch.from_numpy(color[..., None].repeat(3, -1)),
        torch.from_numpy(intrinsics).expand(frames, 3, 3),
        torch.from_numpy(poses),
    )


def card_left(frame: int) -> int:
    """The column at which the card begins."""
    return 24 - 2 * frame
