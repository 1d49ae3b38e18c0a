"""Measures masks and colours of new views against the truth: occlusion models, errors of depth, zooms, planes, time.

Prints the tables of docs/measured/rendering.md, on the committed scenes and on those of a folder (`true_scenes.py`
says what a scene file holds). Depth with an error is aligned and refined before it is drawn, as an estimate is.

    python scripts/measure_masks.py [--scenes FOLDER] [--only street] [--sheet masks.png]
    python scripts/measure_masks.py --footage FOLDER/input.mp4 --depth FOLDER/depth.npz
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from ex4d.depth.depth_files import DepthFiles  # noqa: E402
from ex4d.depth.depth_settings import EdgeSettings  # noqa: E402
from ex4d.depth.edges import refined_depth  # noqa: E402
from ex4d.depth.temporal_alignment import TemporalAligner  # noqa: E402
from ex4d.media import probe, read_frames  # noqa: E402
from ex4d.mesh import DepthSurface  # noqa: E402
from ex4d.raster import Rasterizer, RenderedBatch, create_rasterizer  # noqa: E402
from ex4d_core.cameras import CameraPath, look_at  # noqa: E402
from ex4d_core.shot import OCCLUSION_MODELS, OcclusionModel  # noqa: E402
from true_scenes import (  # noqa: E402
    DepthError,
    Score,
    TrueScene,
    TrueView,
    blurred,
    flickering,
    load_scenes,
    noisy,
    score,
)

ERRORS: dict[str, DepthError | None] = {
    "exact": None,
    "blur of 2 px, flicker of 2 %": lambda depth: flickering(0.02)(blurred(2)(depth)),
    "noise of 1 %": noisy(0.01),
}


def repaired(scene: TrueScene, error: DepthError | None) -> np.ndarray:
    """A scene's depth with an error, aligned over time and refined along edges; exact depth stays as it is."""
    if error is None:
        return scene.depth
    aligner = TemporalAligner(with_offset=True)
    disparities = [1 / torch.from_numpy(depth) for depth in error(scene.depth)]
    for image, disparity in zip(scene.color, disparities, strict=True):
        aligner.observe(torch.from_numpy(image).permute(2, 0, 1).float() / 255, disparity)
    aligned = [1 / disparity.clamp_min(1e-3) for disparity in aligner.aligned(disparities)]
    needed = {view.frame for view in scene.views}
    return np.stack(
        [
            refined_depth(depth.float(), image, EdgeSettings()) if frame in needed else depth.float().numpy()
            for frame, (depth, image) in enumerate(zip(aligned, scene.color, strict=True))
        ]
    )


def view_scores(
    scene: TrueScene, depth: np.ndarray, model: OcclusionModel, rasterizer: Rasterizer, **surface
) -> list[tuple[TrueView, Score]]:
    """Each view's score, where the truth has anything that the footage saw."""
    scores = []
    for view in scene.views:
        if view.visible.any():
            drawn = rasterizer.render(replace(scene.surface([view.frame], model, depth), **surface), view.camera)
            scores.append((view, score(view, drawn.mask[0].numpy(), drawn.color[0].numpy())))
    return scores
