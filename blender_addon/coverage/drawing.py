"""The coverage strip: a thin band above the timeline's frame numbers, coloured by each frame's visible fraction."""

from __future__ import annotations

from typing import Any

import bpy
import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader

from .live_coverage import LITTLE_KNOWN, live_coverage

# In pixels of an interface at scale 1. The strip lies at the upper edge, above the frame numbers: in Blender's own
# layouts a large interface leaves only a few pixels of the timeline, and the scroll bar covers what is lower.
_STRIP_HEIGHT = 4
# Values that are being asked for again are drawn this faintly.
_DIMMED = 0.3
_WELL, _HALF, _LITTLE = (0.20, 0.72, 0.35), (0.95, 0.75, 0.15), (0.90, 0.20, 0.20)
_SPACES = ("SpaceDopeSheetEditor", "SpaceGraphEditor")

_handlers: list[tuple[Any, str, Any]] = []


def colors_of(seen: np.ndarray, fresh: np.ndarray | None = None) -> np.ndarray:
    """(T, 4) float32: green where all is visible, yellow on the way, red from `live_coverage.LITTLE_KNOWN` down.

    Args:
        seen: (T,) visible fraction of each frame.
        fresh: (T,) bool, false where that is out of date; such frames are dimmed.
    """
    known = np.clip((seen - LITTLE_KNOWN) / (1.0 - LITTLE_KNOWN), 0.0, 1.0)
    table = np.array([_LITTLE, _HALF, _WELL], dtype=np.float32)
    colors = np.ones((len(seen), 4), dtype=np.float32)
    for channel in range(3):
        colors[:, channel] = np.interp(known, [0.0, 0.5, 1.0], table[:, channel])
    if fresh is not None:
        colors[~fresh, 3] = _DIMMED
    return colors


def strip_band(height: int, scale: float) -> tuple[float, float]:
    """Lower and upper edge of the strip, in pixels, in a region of so many pixels and an interface of that scale."""
    return max(0.0, height - _STRIP_HEIGHT * scale), float(height)


def strip_is_in_header(height: int, scale: float) -> bool:
    """Whether so few pixels of the timeline are left that Blender does not draw them; its header has the strip then."""
    return height < _STRIP_HEIGHT * scale


def _draw() -> None:
    region, scale = bpy.context.region, bpy.context.preferences.system.ui_scale
    if not strip_is_in_header(region.height, scale):
        _draw_strip(region, *strip_band(region.height, scale))


def _draw_in_header() -> None:
    """At the lower edge of the header, with the frames where the timeline would have them."""
    region, scale = bpy.context.region, bpy.context.preferences.system.ui_scale
    timeline = next((one for one in bpy.context.area.regions if one.type == "WINDOW"), None)
    if timeline is not None and strip_is_in_header(timeline.height, scale):
        _draw_strip(timeline, 0.0, min(region.height, _STRIP_HEIGHT * scale))


def _draw_strip(timeline: bpy.types.Region, bottom: float, top: float) -> None:
    """Draw the strip between two heights of the region that is drawn, where a timeline has its frames."""
    context = bpy.context
    shown = live_coverage.of(context.scene).shown
    if shown is None or not context.scene.ex4d_coverage.live:
        return
    # Two frames far apart, since the answer comes in whole pixels.
    zero, far = (timeline.view2d.view_to_region(frame, 0.0, clip=False)[0] for frame in (0.0, 1000.0))
    frames = shown.frame_start + np.arange(len(shown.seen) + 1) - 0.5
    edges = zero + frames * (far - zero) / 1000.0
    left, right = edges[:-1], edges[1:]
    corners = [(left, bottom), (right, bottom), (right, top), (left, bottom), (right, top), (left, top)]
    positions = np.stack([np.stack([x, np.full_like(x, y)], axis=1) for x, y in corners], axis=1)
    shader = gpu.shader.from_builtin("FLAT_COLOR")
    batch = batch_for_shader(
        shader,
        "TRIS",
        {
            "pos": positions.reshape(-1, 2).astype(np.float32),
            "color": np.repeat(colors_of(shown.seen, shown.fresh), 6, axis=0),
        },
    )
    gpu.state.blend_set("ALPHA")
    batch.draw(shader)
    gpu.state.blend_set("NONE")


def register() -> None:
    """Draw into the open timelines."""
    if bpy.app.background:
        return  # nothing is drawn there
    for name in _SPACES:
        space = getattr(bpy.types, name)
        for draw, region in ((_draw, "WINDOW"), (_draw_in_header, "HEADER")):
            _handlers.append((space, region, space.draw_handler_add(draw, (), region, "POST_PIXEL")))


def unregister() -> None:
    """Stop drawing."""
    while _handlers:
        space, region, handler = _handlers.pop()
        space.draw_handler_remove(handler, region)
