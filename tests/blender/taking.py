"""How tests make takes and look at them: as the panel's buttons do, in the open file."""

from __future__ import annotations

import bpy

from blender_addon.jobs.tracker import tracker
from blender_addon.sequencer.edit_scenes import strip_in_file
from blender_addon.sequencer.strip_api import all_strips_in, container_of, strips_in

from .conftest import tick_until


def send() -> bpy.types.PropertyGroup:
    assert bpy.ops.ex4d.send_take() == {"FINISHED"}
    return take()


def take() -> bpy.types.PropertyGroup:
    """The newest take of the open file."""
    return bpy.context.scene.ex4d_takes[-1]


def strip_of(entry: bpy.types.PropertyGroup) -> bpy.types.Strip | None:
    return strip_in_file(entry.key)


def edit_scene() -> bpy.types.Scene:
    """The scene that takes of the open one go to."""
    return bpy.context.scene.ex4d_edit_scene


def shown_strips() -> list[bpy.types.Strip]:
    """All strips of the edit scene, without the shots' meta strips."""
    editor = edit_scene().sequence_editor if edit_scene() else None
    return [one for one in all_strips_in(editor) if one.type != "META"] if editor else []


def remove_strip(strip: bpy.types.Strip) -> None:
    """Remove a strip as the artist does."""
    strips_in(container_of(strip)).remove(strip)


def tick_until_over() -> None:
    tick_until(lambda: take().state in ("done", "failed", "cancelled", "stopped"), "the take")


def muted() -> dict[str, bool]:
    return {one.key: strip_of(one).mute for one in bpy.context.scene.ex4d_takes}


def is_followed(record: bpy.types.PropertyGroup) -> bool:
    return tracker.is_followed(record)
