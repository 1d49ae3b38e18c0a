"""The take and the other strip that tests of the sequencer start with."""

from __future__ import annotations

import bpy

from blender_addon.sequencer.strips import TakeStrip, strips_of

TAKE = TakeStrip("k1", "flower arc", 11, 9, {"engine": "preview", "label": "flower arc"})


def add_title(scene: bpy.types.Scene, channel: int, start: int, end: int) -> bpy.types.Strip:
    """Another strip; the argument for its length changed its name in Blender 5.0."""
    length = {"length": end - start} if bpy.app.version >= (5, 0, 0) else {"frame_end": end}
    return strips_of(scene).new_effect(name="title", type="COLOR", channel=channel, frame_start=start, **length)
