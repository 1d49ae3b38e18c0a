"""Tells a new, empty file from the artist's work, which nothing is changed in before she has agreed."""

from __future__ import annotations

from typing import Any

import bpy
import mathutils

from ..blender_types import BlenderScene
from ..sequencer.strip_api import all_strips_in

# Where the objects of Blender's start-up file stand: location and Euler angles.
_START_UP = {
    "Camera": ((7.3589, -6.9258, 4.9583), (1.1093, 0.0, 0.8149)),
    "Cube": ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    "Light": ((4.0762, 1.0055, 5.9039), (0.6503, 0.0552, 1.8664)),
}
# Frame rate and its base, size and percentage, pixel aspect, frame range, view transform.
_FACTORY = (24, 1.0, 1920, 1080, 100, 1.0, 1.0, 1, 250, "AgX")
_NEAR = 1e-3

# The settings of the start-up file as it was opened, which may be the artist's own.
_as_opened: list[tuple[Any, ...]] = []


def is_new_file(blender_scene: BlenderScene) -> bool:
    """Whether the open file is as Blender's start-up file opens, cube, light and camera untouched, or empty."""
    editor = blender_scene.sequence_editor
    return (
        len(bpy.data.scenes) == 1
        and not bpy.data.actions
        and not blender_scene.timeline_markers
        and (editor is None or not all_strips_in(editor))
        and _settings_of(blender_scene) in (_FACTORY, *_as_opened)
        and all(_is_untouched(one) for one in bpy.data.objects)
    )


def _settings_of(blender_scene: BlenderScene) -> tuple[Any, ...]:
    render = blender_scene.render
    return (
        *(render.fps, round(render.fps_base, 6), render.resolution_x, render.resolution_y),
        *(render.resolution_percentage, round(render.pixel_aspect_x, 6), round(render.pixel_aspect_y, 6)),
        *(blender_scene.frame_start, blender_scene.frame_end, blender_scene.view_settings.view_transform),
    )


def _is_untouched(candidate: bpy.types.Object) -> bool:
    """Whether an object is one of the start-up file's, as it was there."""
    if candidate.name not in _START_UP or candidate.parent or candidate.modifiers or candidate.constraints:
        return False
    location, angles = _START_UP[candidate.name]
    stands = (
        (candidate.location - mathutils.Vector(location)).length < _NEAR
        and (mathutils.Vector(candidate.rotation_euler) - mathutils.Vector(angles)).length < _NEAR
        and (candidate.scale - mathutils.Vector((1.0, 1.0, 1.0))).length < _NEAR
    )
    data = candidate.data
    if isinstance(data, bpy.types.Mesh):
        values = [value for one in data.vertices for value in one.co]
        looks = len(values) == 24 and all(abs(abs(value) - 1.0) < _NEAR for value in values)
    elif isinstance(data, bpy.types.Light):
        looks = data.type == "POINT" and data.energy == 1000.0
    else:
        looks = isinstance(data, bpy.types.Camera) and data.type == "PERSP" and data.lens == 50.0
    return stands and looks


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    _as_opened.clear()
    if not bpy.data.filepath and bpy.data.scenes:
        _as_opened.append(_settings_of(bpy.data.scenes[0]))


HANDLERS = (("load_post", _after_load),)
