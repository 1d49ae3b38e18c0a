"""Selects a new camera, so that its keys show in Timeline, Dope Sheet and Graph Editor."""

from __future__ import annotations

import bpy

from ..blender_types import Context, ops


def select_alone(context: Context, target: bpy.types.Object) -> None:
    """Make an object the only selected and the active one, if the view layer has it; edit modes are left for that."""
    layer = context.view_layer
    if context.mode != "OBJECT":
        ops.object.mode_set(mode="OBJECT")
    try:
        target.select_set(True)
    except RuntimeError:  # its collection is excluded from the view layer
        return
    for other in list(layer.objects.selected):
        if other != target:
            other.select_set(False)
    layer.objects.active = target
