"""Errors of depth as estimators make them, and the steps that estimated depth goes through to be rid of them.

`evaluate_scenes.py` and `measure_masks.py` add the errors to exact depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ex4d.depth.depth_settings import EdgeSettings
from ex4d.depth.edges import refined_depth
from ex4d.depth.noise import depth_without_noise
from ex4d.depth.temporal_alignment import TemporalAligner
from true_scenes import DepthError, TrueScene, blurred, drifting, flickering, grown, noisy

# Depth (T, H, W) of a scene to cleaner depth; only frames that views need have to be right.
Step = Callable[[TrueScene, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class GradedError:
    """An error, and the steps whose gain is shown.

    Attributes:
        name: of the error.
        add: adds it to depth (T, H, W).
        steps: names, as in `STEPS`; the depth as it is comes first in any case.
    """

    name: str
    add: DepthError
    steps: tuple[str, ...]


def aligned(scene: TrueScene, depth: np.ndarray) -> np.ndarray:
    """Aligned over time, in scale and offset."""
    aligner = TemporalAligner(with_offset=True)
    disparities = [1 / torch.from_numpy(z) for z in depth]
    for image, disparity in zip(scene.color, disparities, strict=True):
        aligner.observe(torch.from_numpy(image).permute(2, 0, 1).float() / 255, disparity)
    found = [1 / disparity.clamp_min(1e-3).numpy() for disparity in aligner.aligned(disparities)]
    return np.stack(found).astype(np.float32)


def smoothed(scene: TrueScene, depth: np.ndarray) -> np.ndarray:
    """Without noise, in the frames that views need."""
    return _in_needed_frames(scene, depth, lambda z, image: depth_without_noise(z, torch.device("cpu")))


def refined(scene: TrueScene, depth: np.ndarray) -> np.ndarray:
    """Refined along edges, in the frames that views need."""
    return _in_needed_frames(scene, depth, lambda z, image: refined_depth(torch.from_numpy(z), image, EdgeSettings()))


def _in_needed_frames(
    scene: TrueScene, depth: np.ndarray, change: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    changed = depth.copy()
    for frame in {near for view in scene.views for near in around(view.frame, len(depth))}:
        changed[frame] = change(depth[frame], scene.color[frame])
    return changed


def around(frame: int, frames: int) -> list[int]:
    """The frame before, the frame itself and the one after; at a clip's ends the frame stands in."""
    return [max(frame - 1, 0), frame, min(frame + 1, frames - 1)]


ALL = "all"
STEPS: dict[str, tuple[Step, ...]] = {
    "alignment": (aligned,),
    "noise filter": (smoothed,),
    "edges": (refined,),
    "noise filter, edges": (smoothed, refined),
    ALL: (aligned, smoothed, refined),
}
GRADED_ERRORS = (
    GradedError("none (exact depth)", lambda depth: depth, ("alignment", "noise filter", "edges", ALL)),
    GradedError("blur of 1 px", blurred(1), ("edges",)),
    GradedError("blur of 2 px", blurred(2), ("edges",)),
    GradedError("blur of 4 px", blurred(4), ("edges",)),
    GradedError("near things 2 px too large", grown(2), ("edges",)),
    GradedError("noise of 1 %", noisy(0.01), ("noise filter", "noise filter, edges")),
    GradedError("noise of 3 %", noisy(0.03), ("noise filter", "noise filter, edges")),
    GradedError("blur of 2 px, noise of 1 %", lambda depth: noisy(0.01)(blurred(2)(depth)), ("noise filter, edges",)),
    GradedError("drift of 5 %", drifting(0.05), ("alignment",)),
    GradedError("flicker of 2 %", flickering(0.02), ("alignment",)),
    GradedError("flicker of 5 %", flickering(0.05), ("alignment",)),
    GradedError("blur of 2 px, flicker of 2 %", lambda depth: flickering(0.02)(blurred(2)(depth)), (ALL,)),
)


def cleaned(scene: TrueScene, depth: np.ndarray, steps: str) -> np.ndarray:
    """Depth after the steps of a name in `STEPS`."""
    for step in STEPS[steps]:
        depth = step(scene, depth)
    return depth


def repaired(scene: TrueScene, error: DepthError | None) -> np.ndarray:
    """A scene's depth with an error, aligned, freed from noise and refined along edges; exact depth stays as it is."""
    return scene.depth if error is None else cleaned(scene, error(scene.depth), ALL)
