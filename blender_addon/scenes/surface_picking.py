"""Finds the point of a scene under a ray: where the footage saw a surface, through the stretched faces before it."""

from __future__ import annotations

import math

import bpy
import mathutils

from .material import SOURCE_EYE, STRETCHED_DEGREES

# Stretched faces that a ray may pass; behind a fence there are many.
_MOST_FACES = 1000
# How far behind a face the ray starts again, as a share of its distance from the source camera.
_STEP = 1e-5


def seen_point(
    scene_object: bpy.types.Object,
    origin: mathutils.Vector,
    direction: mathutils.Vector,
    depsgraph: bpy.types.Depsgraph,
) -> mathutils.Vector | None:
    """The first point of the mesh on the current frame, as modifiers leave it, that is on no stretched face.

    Args:
        scene_object: the imported scene.
        origin: of the ray, in Blender's world.
        direction: of the ray, in Blender's world.
        depsgraph: the evaluated one.

    Returns:
        The point in Blender's world; None where the ray meets nothing that was seen.
    """
    evaluated = scene_object.evaluated_get(depsgraph)
    to_object = evaluated.matrix_world.inverted_safe()
    start, along = to_object @ origin, (to_object.to_3x3() @ direction).normalized()
    kept = evaluated.get(SOURCE_EYE)
    eye = None if kept is None else mathutils.Vector(kept)
    edge_on = math.sin(math.radians(STRETCHED_DEGREES))
    for _ in range(_MOST_FACES):
        hit, place, normal, _ = evaluated.ray_cast(start, along)
        if not hit:
            return None
        if eye is None or abs((place - eye).normalized().dot(normal)) >= edge_on:
            return evaluated.matrix_world @ place
        start = place + _STEP * (place - eye).length * along
    return None
