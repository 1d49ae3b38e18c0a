"""Sets up proxies of takes if the preferences let Blender do so automatically."""

from __future__ import annotations

from typing import Any

import bpy

from ..blender_types import current_context, ops
from .strip_api import Strip, all_strips_in

_SIZES = {"PROXY_25": "build_25", "PROXY_50": "build_50", "PROXY_75": "build_75", "PROXY_100": "build_100"}


def set_up_proxies(strip: Strip) -> None:
    """Give a movie strip proxies as Blender does for movies added by hand: of the size that the preview shows.

    Does nothing without a sequencer that shows proxies. Blender's own background job builds them.
    """
    system = current_context().preferences.system
    if getattr(system, "sequencer_proxy_setup", "MANUAL") != "AUTOMATIC":
        return
    areas = _preview_areas(strip.id_data)
    if not areas:
        return
    sizes = {size for _, _, size in areas}
    strip.use_proxy = True
    for name in _SIZES.values():
        setattr(strip.proxy, name, name in sizes)
    window, area, _ = areas[0]
    _build(strip, window, area)


def _preview_areas(scene: bpy.types.ID | None) -> list[tuple[bpy.types.Window, bpy.types.Area, str]]:
    """The open sequencers that show proxies of a scene's strips, and the size that they show."""
    return [
        (window, area, _SIZES[space.proxy_render_size])
        for window in current_context().window_manager.windows
        # From Blender 5.0 on a workspace chooses whose strips its sequencers show.
        if getattr(window.workspace, "sequencer_scene", window.scene) == scene
        for area in window.screen.areas
        if isinstance(space := area.spaces.active, bpy.types.SpaceSequenceEditor)
        and space.use_proxies
        and space.proxy_render_size in _SIZES
    ]


def _build(strip: Strip, window: bpy.types.Window, area: bpy.types.Area) -> None:
    """Start Blender's job for this strip alone; the job builds the selected strips."""
    scene: Any = strip.id_data
    chosen = [other for other in all_strips_in(scene.sequence_editor) if other.select]
    for other in chosen:
        other.select = False
    strip.select = True
    region = next(region for region in area.regions if region.type == "WINDOW")
    with current_context().temp_override(window=window, area=area, region=region):
        if ops.sequencer.rebuild_proxy.poll():
            ops.sequencer.rebuild_proxy("INVOKE_DEFAULT")
    strip.select = False
    for other in chosen:
        other.select = True
