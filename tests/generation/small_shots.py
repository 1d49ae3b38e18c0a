"""A few small rendered frames, and settings of the engine wan that a CPU can run."""

from __future__ import annotations

import numpy as np

from ex4d.raster import RenderedFrame

WIDTH, HEIGHT = 48, 32
# Enough steps for guidance and the schedule to matter, few enough for a CPU.
FEW = {"steps": 2, "precision": "float32", "prompt": "a wide street", "negative_prompt": "blurred"}


def shot(count: int = 5, width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> list[RenderedFrame]:
    """Coloured blocks with an unseen strip at the left that grows, from frame 1 on."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    frames = []
    for index, coarse in enumerate(blocks):
        mask = np.ones((height, width), bool)
        mask[:, : min(3 * index, width // 2)] = False
        color = np.zeros((height, width, 3), np.uint8)
        fine = coarse.repeat(8, 0).repeat(8, 1)
        color[: fine.shape[0], : fine.shape[1]] = fine
        frames.append(RenderedFrame(index, color * mask[..., None], mask, np.ones((height, width), np.float32)))
    return frames
