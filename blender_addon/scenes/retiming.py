"""Lets an imported scene show the moments of a curve in place of the current frame's: mesh, texture and source camera.

Mesh and texture have drivers, which Blender evaluates by itself, in renders too, and without trust in a file's scripts:
their expressions are simple ones. A driver cannot look up a curve at another frame, so the position of a source camera
that moves is set before each frame change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import bpy

from ..cameras.keyframes import curves_of
from .link import MESH_CACHE, link_of
from .material import SOURCE_EYE

_EYE_PATH = f'["{SOURCE_EYE}"]'


def retime(scene_object: bpy.types.Object, blender_scene: bpy.types.Scene, data_path: str) -> None:
    """Let a scene's mesh and texture follow a property.

    Args:
        scene_object: the imported scene; one that is linked from another file stays as it is.
        blender_scene: that has the property.
        data_path: of the property, the Blender frame at which the footage ordinarily shows the moment.
    """
    undo_retiming(scene_object)
    link = link_of(scene_object)
    # As `ex4d_core.source_frames.nearest_frames`: the nearest frame, halves the later one, held at the ends.
    shown = f"min(max(floor(moment - {link.frame_start} + 0.501), 0), {link.frames - 1})"
    cache = _positions_cache(scene_object)
    if cache is not None:
        cache.play_mode, cache.time_mode = "CUSTOM", "FRAME"
        _drive(cache, "eval_frame", shown, blender_scene, data_path)
    # Blender counts a movie's frames from 1, and stays within them before it adds the offset.
    played = f"min(max(floor(frame) - {link.frame_start} + 1, 0), {link.frames})"
    for user in _image_users(scene_object):
        _drive(user, "frame_offset", f"{shown} + 1 - {played}", blender_scene, data_path)
    for curve in _eye_curves(scene_object):
        curve.mute = True


def undo_retiming(scene_object: bpy.types.Object) -> None:
    """Show every moment at its own frame again."""
    cache = _positions_cache(scene_object)
    if cache is not None and cache.play_mode == "CUSTOM":
        cache.driver_remove("eval_frame")
        cache.play_mode = "SCENE"
    for user in _image_users(scene_object):
        if user.driver_remove("frame_offset"):
            user.frame_offset = 0
    for curve in _eye_curves(scene_object):
        curve.mute = False


def is_retimed(scene_object: bpy.types.Object) -> bool:
    """Whether a scene follows a curve."""
    cache = _positions_cache(scene_object)
    return cache is not None and cache.play_mode == "CUSTOM"


def move_source_eye(scene_object: bpy.types.Object, moment: Callable[[], float]) -> None:
    """Set where the source camera was at a moment, on which the marking of unseen areas depends.

    Args:
        scene_object: a retimed scene.
        moment: gives the Blender frame at which the footage ordinarily shows it; called for a source camera that moves.
    """
    curves = _eye_curves(scene_object)
    if not curves:
        return
    frame = moment()
    eye = list(scene_object[SOURCE_EYE])
    for curve in curves:
        eye[curve.array_index] = curve.evaluate(frame)
    scene_object[SOURCE_EYE] = eye
    scene_object.update_tag(refresh={"OBJECT"})


def _positions_cache(scene_object: bpy.types.Object) -> bpy.types.MeshCacheModifier | None:
    cache = scene_object.modifiers.get(MESH_CACHE)
    editable = scene_object.library is None and isinstance(cache, bpy.types.MeshCacheModifier)
    return cache if editable else None


def _image_users(scene_object: bpy.types.Object) -> Iterator[Any]:
    """Of the footage in the scene's materials."""
    for material in (slot.material for slot in scene_object.material_slots):
        if material is None or material.library is not None or material.node_tree is None:
            continue
        for node in material.node_tree.nodes:
            if isinstance(node, bpy.types.ShaderNodeTexImage) and node.image and node.image.source == "MOVIE":
                yield node.image_user


def _eye_curves(scene_object: bpy.types.Object) -> list[bpy.types.FCurve]:
    if scene_object.library is not None:
        return []
    return [curve for curve in curves_of(scene_object) if curve.data_path == _EYE_PATH]


def _drive(owner: Any, name: str, expression: str, blender_scene: bpy.types.Scene, data_path: str) -> None:
    """Drive a property by an expression of another one, "moment", and of Blender's current frame."""
    driver = owner.driver_add(name).driver
    driver.type = "SCRIPTED"
    variable = driver.variables.new()
    variable.name, variable.type = "moment", "SINGLE_PROP"
    target = variable.targets[0]
    target.id_type, target.id, target.data_path = "SCENE", blender_scene, data_path
    driver.expression = expression
