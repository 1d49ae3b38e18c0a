"""Opens a take where the artist can play it: a sequencer that is open, or one in a new window."""

from __future__ import annotations

from typing import Any

import bpy

from ..blender_types import Context, ops
from ..sequencer.edit_scenes import strip_in_file
from ..sequencer.strip_api import end_of, start_of
from .properties import EX4D_Take
from .versions import show_version

_PREVIEW = ("PREVIEW", "SEQUENCER_PREVIEW")


def show_take(context: Context, take: EX4D_Take) -> bool:
    """Show a take in a sequencer with a preview, on its first frame, instead of its shot's other versions.

    Returns:
        False where it has no strip, so that there is nothing to show.
    """
    strip = strip_in_file(take.key)
    if strip is None:
        return False
    show_version(take)
    scene: Any = strip.id_data
    area = _open_sequencer(context, scene) or _new_sequencer(context, scene)
    if area.spaces.active.view_type not in _PREVIEW:
        area.spaces.active.view_type = "SEQUENCER_PREVIEW"
    if not start_of(strip) <= scene.frame_current < end_of(strip):
        scene.frame_current = start_of(strip)
    area.tag_redraw()
    return True


def _open_sequencer(context: Context, scene: bpy.types.Scene) -> Any:
    """A sequencer of an open window that shows the scene, one with a preview first; None if there is none."""
    areas = [
        area
        for window in context.window_manager.windows
        if _shows(window, scene)
        for area in window.screen.areas
        if area.type == "SEQUENCE_EDITOR"
    ]
    return min(areas, key=lambda area: area.spaces.active.view_type not in _PREVIEW, default=None)


def _shows(window: Any, scene: bpy.types.Scene) -> bool:
    """Whether a window's sequencers show the scene; from Blender 5.0 on they are made to if they show nothing."""
    if not hasattr(window.workspace, "sequencer_scene"):
        return window.scene == scene
    if window.workspace.sequencer_scene is None:
        window.workspace.sequencer_scene = scene
    return window.workspace.sequencer_scene == scene


def _new_sequencer(context: Context, scene: bpy.types.Scene) -> Any:
    """A sequencer in a new window."""
    pins = hasattr(context.workspace, "sequencer_scene")
    # Windows that belong to another one share its scene, which before Blender 5.0 is what their sequencers show.
    (ops.wm.window_new if pins else ops.wm.window_new_main)()
    window = context.window_manager.windows[-1]
    if pins:
        window.workspace.sequencer_scene = scene
    else:
        window.scene = scene
    area = max(window.screen.areas, key=lambda one: one.width * one.height)
    area.type = "SEQUENCE_EDITOR"
    return area
