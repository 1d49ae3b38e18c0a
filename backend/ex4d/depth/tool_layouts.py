"""The .npz files of known tools, recognised by their arrays: what the values are, and which arrays are the camera.

As the tools' own programs write them: DepthCrafter `run.py --save_npz True`, Video Depth Anything `run.py --save_npz`,
MegaSaM's `*_sgd_cvd_hr.npz` and `*_droid.npz`, Depth Anything 3's exports `npz` and `mini_npz`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

PoseDirection = Literal["world to camera", "camera to world"]

_EXACTLY = 1e-3  # half floats have no exact range of 0 to 1 after a resize


@dataclass(frozen=True)
class ToolLayout:
    """The arrays of a tool's file.

    Attributes:
        title: the tool, for people.
        key: of the depth.
        values: "depth" along z, or "disparity", 1 / depth up to a factor and an offset.
        intrinsics, poses: arrays of the camera, for images of the depth's size; "" where there are none.
        direction: of the poses.
        note: for the artist, where the file does not tell everything.
    """

    title: str
    key: str
    values: Literal["depth", "disparity"]
    intrinsics: str = ""
    poses: str = ""
    direction: PoseDirection = "world to camera"
    note: str = ""


DEPTHCRAFTER = ToolLayout("DepthCrafter", "depth", "disparity")
VIDEO_DEPTH_ANYTHING = ToolLayout(
    "Video Depth Anything",
    "depths",
    "disparity",
    note="if it ran with --metric, its files hold depth: say so with --depth-values depth",
)
MEGASAM = ToolLayout("MegaSaM", "depths", "depth", "intrinsic", "cam_c2w", "camera to world")
DEPTH_ANYTHING_3 = ToolLayout("Depth Anything 3", "depth", "depth", "intrinsics", "extrinsics")
# What every file has that stores depth and intrinsics as this project documents it.
PLAIN = ToolLayout("", "depth", "depth", "intrinsics")


def layout_of_keys(keys: Iterable[str]) -> ToolLayout:
    """The layout of an .npz with these arrays; DepthCrafter's cannot be told from `PLAIN` by its keys."""
    held = set(keys)
    for tool in (MEGASAM, DEPTH_ANYTHING_3):
        if {tool.key, tool.intrinsics, tool.poses} <= held:
            return tool
    return VIDEO_DEPTH_ANYTHING if held == {VIDEO_DEPTH_ANYTHING.key} else PLAIN


def is_normalised(frames: Iterator[np.ndarray]) -> bool:
    """Whether the values of a whole clip run from exactly 0 to 1, as DepthCrafter's do and depth in a scene never does.

    Stops at the first frame with a value outside, so that other files are hardly read.
    """
    low, high = np.inf, -np.inf
    for frame in frames:
        if frame.dtype.kind != "f":
            return False
        low, high = min(low, float(frame.min())), max(high, float(frame.max()))
        if not (low >= 0 and high <= 1 + _EXACTLY):  # also NaN
            return False
    return low == 0 and abs(high - 1) <= _EXACTLY
