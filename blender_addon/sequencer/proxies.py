"""Proxies of takes, where the user's preferences ask Blender to set them up by itself."""

from __future__ import annotations

import bpy

from .versions import all_strips_in

_SIZES = {"PROXY_25": "build_25", "PROXY_50": "build_50", "PROXY_75": "build_75", "PROXY_100": "build_100"}


def offer_proxies(strip: bpy.types.Strip) -> None:
    """Give a movie strip proxies as Blender does for movies added by hand: of the size that the preview shows.

    Without a sequencer that shows proxies there is nothing to do; they are built by Blender's own background job.
    """
    system = bpy.context.preferences.system
    if getattr(system, "sequencer_proxy_setup", "MANUAL") != "AUTOMATIC":
        return
    areas = [area for area in _preview_areas(strip.id_data) if area[1].spaces.active.proxy_render_size in _SIZES]
    if not areas:
        return
    sizes = {_SIZES[area.spaces.active.proxy_render_size] for _, area in areas}
    strip.use_proxy = True
    for name in _SIZES.values():
        setattr(strip.proxy, name, name in sizes)
    _build(strip, *areas[0])


def _preview_areas(scene: bpy.types.Scene) -> list[tuple[bpy.types.Window, bpy.types.Area]]:
    """The open sequencers that show proxies of a scene's strips."""
    return [
        (window, area)
        for window in bpy.context.window_manager.windows
        # From Blender 5.0 on a workspace chooses whose strips its sequencers show.
        if getattr(window.workspace, "sequencer_scene", window.scene) == scene
        for area in window.screen.areas
        if area.type == "SEQUENCE_EDITOR" and area.spaces.active.use_proxies
    ]


def _build(strip: bpy.types.Strip, window: bpy.types.Window, area: bpy.types.Area) -> None:
    """Start Blender's job for this strip alone; the job takes the selected ones."""
    scene = strip.id_data
    chosen = [other for other in all_strips_in(scene.sequence_editor) if other.select]
    for other in chosen:
        other.select = False
    strip.select = True
    region = next(region for region in area.regions if region.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=area, region=region):
        if bpy.ops.sequencer.rebuild_proxy.poll():
            bpy.ops.sequencer.rebuild_proxy("INVOKE_DEFAULT")
    strip.select = False
    for other in chosen:
        other.select = True
