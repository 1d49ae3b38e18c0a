"""Checks stored depth: which values are invalid, how they are reported, and how they may be replaced."""

from __future__ import annotations

import numpy as np

from ex4d.depth.depth_clip import DepthError
from ex4d_core.sources import InvalidDepth

# Renderers write a huge depth where a ray hit nothing (Blender: 1e10); no real scene reaches that far.
NOTHING_HIT = 1e9


def depth_along_z(stored: np.ndarray, scale: float, inverse: bool) -> np.ndarray:
    """Depth (H, W) float32 from stored values of any numeric type: scale x stored, or scale / stored if `inverse`.

    May be NaN, infinite, zero or negative where the stored values are; "nothing hit" becomes infinite.
    """
    values = stored.astype(np.float32)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        if inverse:
            return np.float32(scale) / values
        if stored.dtype.kind == "f":
            values[values >= NOTHING_HIT] = np.inf
        return np.float32(scale) * values


def checked_disparity(disparity: np.ndarray, what: str, invalid: InvalidDepth) -> np.ndarray:
    """A frame of disparity (H, W) float32, in which any finite value is valid; larger is nearer.

    Args:
        disparity: changed in place.
        what: file and frame, for messages.
        invalid: "error" refuses NaN and infinity; "far" replaces them by the smallest disparity of the frame.

    Raises:
        DepthError: invalid values with "error", or a frame without any finite value.
    """
    valid = np.isfinite(disparity)
    if valid.all():
        return disparity
    found = f"{int((~valid).sum())} of {disparity.size} values of disparity are NaN or infinite"
    if not valid.any():
        raise DepthError(f"{what}: {found}. Export this frame again.")
    if invalid == "error":
        raise DepthError(
            f"{what}: {found}. Export it again, or replace them by the farthest depth of the frame (Fill Gaps in "
            "Blender, or --invalid-depth far)."
        )
    disparity[~valid] = disparity[valid].min()
    return disparity


def checked_depth(depth: np.ndarray, what: str, invalid: InvalidDepth, *, may_be_disparity: bool = False) -> np.ndarray:
    """A frame of depth with only finite values above 0.

    Args:
        depth: (H, W) float32, changed in place.
        what: file and frame, for messages.
        invalid: "error" refuses invalid values; "far" replaces them by the farthest valid depth of the frame.
        may_be_disparity: nobody said that the values are depth, and not relative disparity.

    Raises:
        DepthError: invalid values with "error", a frame without any valid depth, or one that looks like disparity: its
            zeros are the farthest points, which "far" would turn into the nearest.
    """
    valid = (depth > 0) & (depth < np.inf)  # false for NaN, too
    if valid.all():
        return depth
    counts = {
        "NaN": np.isnan(depth).sum(),
        "infinite": np.isinf(depth).sum(),
        "zero": (depth == 0).sum(),
        "negative": ((depth < 0) & ~np.isinf(depth)).sum(),
    }
    found = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    if not valid.any():
        raise DepthError(f"{what}: has no valid depth ({found} of {depth.size} pixels). Export this frame again.")
    row, column = np.argwhere(~valid)[0].tolist()
    if may_be_disparity and counts["zero"] and depth[valid].max() <= 1:
        raise DepthError(
            f"{what}: {found} of {depth.size} values, the first at pixel x={column} y={row}, and none above "
            f"{depth[valid].max():g}: this may be disparity, in which near is large and 0 is far. Say what it is "
            "(Values in Blender): --depth-values disparity, or --depth-values depth, where --invalid-depth far fills "
            "the gaps."
        )
    if invalid == "error":
        raise DepthError(
            f"{what}: {found} of {depth.size} depth values, the first at pixel x={column} y={row} "
            f"({depth[row, column]:g}). Export it again, or replace them by the farthest depth of the frame "
            "(Fill Gaps in Blender, or --invalid-depth far)."
        )
    depth[~valid] = depth[valid].max()
    return depth
