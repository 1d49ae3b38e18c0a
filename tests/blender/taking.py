"""How tests make takes and look at them: as the panel's buttons do, in the open file."""

from __future__ import annotations

import bpy

from blender_addon.jobs.tracker import tracker
from blender_addon.sequencer.strips import find_strip

from .conftest import tick_until


def send() -> bpy.types.PropertyGroup:
    assert bpy.ops.ex4d.send_take() == {"FINISHED"}
    return take()


def take() -> bpy.types.PropertyGroup:
    """The newest take of the open file."""
    return bpy.context.scene.ex4d_takes[-1]


def strip_of(entry: bpy.types.PropertyGroup) -> bpy.types.Strip | None:
    return find_strip(bpy.context.scene, entry.key)


def tick_until_over() -> None:
    tick_until(lambda: take().state in ("done", "failed", "cancelled", "stopped"), "the take")


def muted() -> dict[str, bool]:
    return {one.key: strip_of(one).mute for one in bpy.context.scene.ex4d_takes}


def is_followed(record: bpy.types.PropertyGroup) -> bool:
    return tracker.is_followed(record)
