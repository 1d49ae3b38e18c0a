"""Camera paths to Blender keyframes: plain location, rotation and lens curves, exact on every frame.

What moves evenly gets two keys with a straight line between them; everything else one key per frame, since a few
Bezier keys would only come near the path.
"""

from __future__ import annotations

from collections.abc import Iterable

import bpy
import mathutils
import numpy as np

from ex4d_core.cameras import (
    BLENDER_FROM_SCENE,
    CameraPath,
    blender_from_intrinsics,
    blender_from_world_to_camera,
)

from .optics import write_sensor

# Values this close (relative to the largest) are the same number in Blender's float32.
_SAME = 2e-7


def new_camera(
    name: str, path: CameraPath, scene_object: bpy.types.Object, frame_start: int, collection: bpy.types.Collection
) -> bpy.types.Object:
    """A camera object that follows ``path``, tied to the scene object so that it moves along when that is moved.

    Its own location and rotation are in Blender's axes, as if the scene object stood where it was imported.

    Args:
        path: in the scene's world.
        frame_start: Blender frame of the path's frame 0.
        collection: where the object is linked.
    """
    camera = bpy.data.objects.new(name, bpy.data.cameras.new(name))
    collection.objects.link(camera)
    camera.parent = scene_object
    camera.matrix_parent_inverse = mathutils.Matrix(BLENDER_FROM_SCENE).inverted()
    apply_path(camera, path, frame_start)
    return camera


def apply_path(camera: bpy.types.Object, path: CameraPath, frame_start: int) -> None:
    """Animate a camera made by `new_camera`; what stays the same on every frame is set without keys."""
    matrices = [mathutils.Matrix(matrix) for matrix in blender_from_world_to_camera(path.world_to_camera)]
    rotations = [matrices[0].to_euler("XYZ")]
    for matrix in matrices[1:]:
        rotations.append(matrix.to_euler("XYZ", rotations[-1]))  # without jumps of a whole turn
    lenses = [blender_from_intrinsics(one, path.width, path.height) for one in path.intrinsics]
    write_sensor(camera.data, lenses[0])
    camera.rotation_mode = "XYZ"
    frames = np.arange(frame_start, frame_start + len(path), dtype=np.float64)
    animate(camera, "location", frames, [matrix.translation for matrix in matrices])
    animate(camera, "rotation_euler", frames, rotations)
    animate(camera.data, "lens", frames, [optics.lens for optics in lenses])
    animate(camera.data, "shift_x", frames, [optics.shift_x for optics in lenses])
    animate(camera.data, "shift_y", frames, [optics.shift_y for optics in lenses])


def animate(owner: bpy.types.ID, data_path: str, frames: np.ndarray, values: Iterable) -> None:
    """Give a property its value on every frame.

    Args:
        owner: the object or data whose property it is.
        data_path: the property: a number, or a vector of K numbers.
        frames: (T,) Blender frames, rising.
        values: T numbers, or T vectors of K numbers.
    """
    table = np.array([np.atleast_1d(value) for value in values], dtype=np.float64)
    first = table[0].tolist()
    if data_path.startswith("["):  # a custom property: ["name"]
        owner[data_path[2:-2]] = first
    else:
        setattr(owner, data_path, first if table.shape[1] > 1 else first[0])
    tolerance = _SAME * max(1.0, float(np.abs(table).max()))
    if (np.abs(table - table[0]) <= tolerance).all():
        return
    time = (frames - frames[0]) / (frames[-1] - frames[0])
    line = table[0] + (table[-1] - table[0]) * time[:, None]
    if (np.abs(table - line) <= tolerance).all():
        frames, table = frames[[0, -1]], table[[0, -1]]
    # Inserting the first key makes the curves, wherever this version of Blender keeps them; the rest is set at once.
    owner.keyframe_insert(data_path, frame=frames[0])
    curves = {curve.array_index: curve for curve in curves_of(owner) if curve.data_path == data_path}
    linear = bpy.types.Keyframe.bl_rna.properties["interpolation"].enum_items["LINEAR"].value
    for index in range(table.shape[1]):
        points = curves[index].keyframe_points
        points.add(len(frames) - len(points))
        points.foreach_set("co", np.stack([frames, table[:, index]], axis=1).astype(np.float32).ravel())
        points.foreach_set("interpolation", np.full(len(frames), linear, dtype=np.int32))
        curves[index].update()


def curves_of(owner: bpy.types.ID) -> list[bpy.types.FCurve]:
    """The F-curves that animate an object or its data; from Blender 4.4 on they belong to a slot of the action."""
    animation = owner.animation_data
    if animation is None or animation.action is None:
        return []
    if bpy.app.version < (4, 4, 0):
        return list(animation.action.fcurves)
    bags = (
        strip.channelbag(animation.action_slot)
        for layer in animation.action.layers
        for strip in layer.strips
        if animation.action_slot is not None
    )
    return [curve for bag in bags if bag is not None for curve in bag.fcurves]
