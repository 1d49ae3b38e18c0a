"""How true a method's own masks are: what it calls seen, against what the footage saw by the data set's truth."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ex4d.evaluation.inputs import NotMeasuredError, ResultInputs
from ex4d.evaluation.pixel_measures import BEST_PSNR

# Connected regions of a mask up to this size are specks, seen or unseen.
SPECK_PIXELS = 4
_SEEN = 127  # a pixel of a mask's file is seen above it: at least half of it was


def measure_masks(inputs: ResultInputs, wanted: frozenset[str]) -> dict[str, float]:
    """Falsely seen, missed, intersection over union, PSNR of what both call seen, and specks: those that are wanted.

    Means over the frames in which a figure is defined.

    Raises:
        NotMeasuredError: there is no mask of the result, no true one or no true view, or no frame has the figure.
    """
    if inputs.masks is None:
        raise NotMeasuredError("the result has no masks: add NAME.mask.mp4 or a folder NAME.mask of images")
    if inputs.seen is None or inputs.task.clip.seen is None:
        raise NotMeasuredError("the data set has no masks of what the footage saw")
    if len(inputs.masks) < len(inputs.result):
        raise NotMeasuredError(f"there are {len(inputs.masks)} masks of {len(inputs.result)} frames")
    figures: dict[str, list[float]] = {name: [] for name in wanted}
    for mask, seen, made, true in zip(inputs.masks, inputs.seen, inputs.result, inputs.true_view(), strict=False):
        found = mask_figures(mask[..., 0] > _SEEN, seen, made, true)
        for name in wanted & set(found):
            figures[name].append(found[name])
    for name, values in figures.items():
        if not values:
            raise NotMeasuredError(f"{name}: the mask and the truth have no pixel that both call seen")
    return {name: float(np.mean(values)) for name, values in figures.items()}


def mask_figures(mask: np.ndarray, seen: np.ndarray, made: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """The figures of one frame that are defined for it, by the names of the metrics.

    Args:
        mask: (H, W) bool, what the method calls seen.
        seen: (H, W) bool, what was seen.
        made: (H, W, 3) uint8, the method's picture.
        true: (H, W, 3) uint8, the true view.
    """
    both, either = mask & seen, mask | seen
    figures = {
        "mask_false": 100 * float((mask & ~seen).mean()),
        "mask_missed": 100 * float((seen & ~mask).mean()),
        "mask_specks": 1e6 * speck_count(mask) / mask.size,
    }
    if either.any():
        figures["mask_iou"] = float(both.sum() / either.sum())
    if both.any():
        error = float(np.mean((made[both].astype(np.float64) - true[both]) ** 2))
        figures["mask_psnr"] = min(BEST_PSNR, 10 * float(np.log10(255**2 / max(error, 1e-9))))
    return figures


def speck_count(mask: np.ndarray) -> int:
    """Regions of at most `SPECK_PIXELS` pixels, seen or unseen, connected by edges and corners: of (H, W) bool."""
    count = 0
    for state in (mask, ~mask):
        labels = np.empty(state.shape, np.int32)
        ndimage.label(state, np.ones((3, 3)), output=labels)
        sizes = np.bincount(labels.ravel())[1:]
        count += int(((sizes > 0) & (sizes <= SPECK_PIXELS)).sum())
    return count
