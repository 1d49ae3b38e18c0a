"""Finds what encloses a scene's source camera, such as the default cube, so that the camera sees no footage."""

from __future__ import annotations

import bpy
import mathutils
import numpy as np

from ..blender_types import Context
from .link import is_scene_object, link_of
from .mesh import mesh_data
from .placement import eye_of

_SOLID_TYPES = ("MESH", "CURVE", "SURFACE", "META", "FONT")
_DIRECTIONS = tuple(mathutils.Vector(one) for one in np.vstack([np.eye(3), -np.eye(3)]).tolist())
_CUBE_CORNERS = 8

# The newest test of each object, by its session_uid: all that the answer depends on, and the answer. Casting rays at a
# large mesh is too slow for a panel, which is drawn again and again.
_tested: dict[int, tuple[object, bool]] = {}


def enclosing_objects(context: Context, scene_object: bpy.types.Object) -> list[bpy.types.Object]:
    """The visible objects of the view layer that have a surface on each of six sides of the scene's source camera."""
    eye = mathutils.Vector(eye_of(scene_object).tolist())
    return [
        one
        for one in context.view_layer.objects
        if one.type in _SOLID_TYPES
        and one.display_type in ("SOLID", "TEXTURED")
        and not is_scene_object(one)
        and one.visible_get()
        and _encloses(one, one.matrix_world.inverted_safe() @ eye, context)
    ]


def hide_default_cube(context: Context, scene_object: bpy.types.Object) -> None:
    """Hide the cube of Blender's start-up file if it is untouched and encloses the source camera; the panel says so."""
    for one in enclosing_objects(context, scene_object):
        untouched = one.matrix_world == mathutils.Matrix() and not one.modifiers and one.animation_data is None
        if one.type == "MESH" and one.name == "Cube" and len(mesh_data(one).vertices) == _CUBE_CORNERS and untouched:
            one.hide_set(True)
            link_of(scene_object).hidden_object = one


def _encloses(candidate: bpy.types.Object, eye: mathutils.Vector, context: Context) -> bool:
    """Whether an object has a place in its own space inside."""
    corners = np.array(candidate.bound_box)
    if (np.array(eye) < corners.min(axis=0)).any() or (np.array(eye) > corners.max(axis=0)).any():
        return False
    if candidate.type != "MESH":
        return True  # no rays can be cast at other types
    state = eye.to_tuple(5), len(mesh_data(candidate).vertices), corners.tobytes()
    known, answer = _tested.get(candidate.session_uid, (None, False))
    if known != state:
        depsgraph = context.evaluated_depsgraph_get()
        answer = all(candidate.ray_cast(eye, one, depsgraph=depsgraph)[0] for one in _DIRECTIONS)
        _tested[candidate.session_uid] = state, answer
    return answer


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    _tested.clear()


HANDLERS = (("load_post", _after_load),)


def unregister() -> None:
    """Forget what was tested."""
    _tested.clear()
