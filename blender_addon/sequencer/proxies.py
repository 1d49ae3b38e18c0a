"""Proxies of takes, where the user's preferences ask Blender to set them up by itself."""

from __future__ import annotations

import bpy

_SIZES = {"PROXY_25": "build_25", "PROXY_50": "build_50", "PROXY_75": "build_75", "PROXY_100": "build_100"}


def offer_proxies(strip: bpy.types.Strip) -> None:
    """Give a movie strip proxies as Blender does for movies added by hand: of the size that the preview shows.

    Without a sequencer that shows proxies there is nothing to do; they are built by Blender's own background job.
    """
    system = bpy.context.preferences.system
    if getattr(system, "sequencer_proxy_setup", "MANUAL") != "AUTOMATIC":
        return
    sizes = {_SIZES[size] for size in _preview_sizes() if size in _SIZES}
    if not sizes:
        return
    strip.use_proxy = True
    for name in _SIZES.values():
        setattr(strip.proxy, name, name in sizes)


def _preview_sizes() -> set[str]:
    """Proxy sizes that the open sequencers' previews ask for."""
    return {
        area.spaces.active.proxy_render_size
        for window in bpy.context.window_manager.windows
        for area in window.screen.areas
        if area.type == "SEQUENCE_EDITOR" and area.spaces.active.use_proxies
    }
