"""Finds the depth channel of an EXR, and places it in the display window: the picture that the footage shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ex4d.depth.depth_clip import DepthError
from ex4d.depth.validity import NOTHING_HIT
from ex4d.media import ExrWindow, read_exr_channels, read_exr_windows


def read_exr_depth(
    file: Path, key: str | None, size: tuple[int, int], *, mist: bool, near_is_large: bool
) -> tuple[np.ndarray, str]:
    """The stored depth of the display window (H, W), and a sentence for the artist if the data window differs.

    Renderers leave out of the data window what nothing was rendered in, so the farthest value of the frame is taken
    there.

    Args:
        key: name of the channel; None finds it.
        size: (width, height) of the footage. Where only the data window has it, the display window is not used.
        mist: the mist pass is wanted.
        near_is_large: the values are 1 / depth or disparity.

    Raises:
        DepthError: no such channel, or several.
        MediaError: not an EXR, or damaged.
    """
    channels = read_exr_channels(file)
    name = depth_channel(list(channels), key, file, mist=mist)
    stored = channels[name]
    data, display = read_exr_windows(file)[name]
    if data == display or ((data.width, data.height) == size != (display.width, display.height)):
        return stored, ""
    placed = _in_display_window(stored, data, display, _farthest(stored, near_is_large))
    return placed, (
        f"the depth's data window ({data.width}x{data.height} at {data.left}, {data.top}) is placed in its display "
        f"window ({display.width}x{display.height}); where there is no data, the farthest depth of the frame is taken"
    )


def _farthest(stored: np.ndarray, near_is_large: bool) -> float:
    valid = stored[np.isfinite(stored) & (stored > 0) & (stored < NOTHING_HIT)]
    if valid.size == 0:
        return 0.0
    return float(valid.min() if near_is_large else valid.max())


def _in_display_window(stored: np.ndarray, data: ExrWindow, display: ExrWindow, outside: float) -> np.ndarray:
    placed = np.full((display.height, display.width), outside, stored.dtype)
    left, top = data.left - display.left, data.top - display.top
    target = placed[max(top, 0) : max(top + data.height, 0), max(left, 0) : max(left + data.width, 0)]
    height, width = target.shape
    target[:] = stored[max(-top, 0) : max(-top, 0) + height, max(-left, 0) : max(-left, 0) + width]
    return placed


def depth_channel(names: list[str], key: str | None, file: Path, mist: bool = False) -> str:
    """Which EXR channel holds depth: `key`, or one named as renderers name it.

    In order of trust: Depth or Z; a layer's Z or V (Blender's `ViewLayer.Depth.Z` / `.V`); anything in a layer Depth;
    V, Y or R alone.

    Args:
        names: of all channels.
        key: the one to take; None finds it.
        file: for messages.
        mist: a mist pass is wanted instead: anything in a layer Mist, or V, Y or R alone.

    Raises:
        DepthError: none, or several that are equally likely.
    """
    if key is not None:
        if key in names:
            return key
        raise DepthError(
            f"{file}: has no channel {key!r}; it holds {', '.join(names)}. Name the right one with --depth-key."
        )
    parts = {name: [part.lower() for part in name.split(".")] for name in names}
    in_mist = [name for name in names if "mist" in parts[name]]
    rules = (
        (lambda p: "mist" in p, lambda p: p in (["v"], ["y"]), lambda p: p == ["r"])
        if mist
        else (
            lambda p: p in (["depth"], ["z"]),
            lambda p: len(p) > 1 and "depth" in p[:-1] and p[-1] in ("z", "v", "y", "r"),
            lambda p: (
                len(p) > 1 and p[-1] in ("z", "v", "depth") and not {"mist", "normal", "position", "vector"} & set(p)
            ),
            lambda p: p in (["v"], ["y"]),
            lambda p: p == ["r"],
        )
    )
    for rule in rules:
        found = [name for name in names if rule(parts[name])]
        if len(found) == 1:
            return found[0]
        if found:
            raise DepthError(f"{file}: has several depth channels: {', '.join(found)}. Name one with --depth-key.")
    held = ", ".join(names) or "none"
    if in_mist and not mist:
        raise DepthError(
            f"{file}: has a mist pass ({in_mist[0]}) and no depth pass. Say what the world's mist was set to (Mist "
            "Pass in Blender, or --mist START DEPTH), or render the depth (Z) pass."
        )
    raise DepthError(
        f"{file}: has no {'mist' if mist else 'depth'} channel among {held}. Name it with --depth-key, or "
        "render that pass."
    )
