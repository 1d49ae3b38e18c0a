"""Where an imported scene stands in Blender's world, and how large it is.

Only the scene object moves. Its source camera and the shots' cameras are its children, so they move along; and since
a shot's camera is sent relative to the scene object, what the backend is asked for stays the same.
"""

from __future__ import annotations

import bpy
import mathutils
import numpy as np

from ex4d_core.cameras import BLENDER_FROM_SCENE
from ex4d_core.errors import Ex4dError
from ex4d_core.scene import Scene

from ..cameras.keyframes import curves_of
from .ground import Plane, ground_in
from .link import open_scene
from .mesh import positions_of_frame

# Enough to find a plane in, and quick.
_MOST_POINTS = 20_000
_TRANSFORMS = ("location", "rotation_euler", "rotation_quaternion", "rotation_axis_angle", "scale")


class PlacementError(Ex4dError, ValueError):
    """A scene that cannot be moved like that; the text says what to do."""


def require_movable(scene_object: bpy.types.Object) -> None:
    """Check that a scene object stays where it is put.

    Raises:
        PlacementError: something else moves it.
    """
    if scene_object.library is not None:
        raise PlacementError(
            f"{scene_object.name!r} is linked from another file; move it there, or make a library override of it"
        )
    animation = scene_object.animation_data
    paths = {curve.data_path for curve in curves_of(scene_object)}
    driven = {driver.data_path for driver in animation.drivers} if animation is not None else set()
    if (paths | driven).intersection(_TRANSFORMS):
        raise PlacementError(f"{scene_object.name!r} is animated; clear its keyframes, or move what it is parented to")
    if any(not constraint.mute for constraint in scene_object.constraints):
        raise PlacementError(f"{scene_object.name!r} has constraints; remove them, or move what they follow")


def move_scene(scene_object: bpy.types.Object, matrix: mathutils.Matrix) -> None:
    """Move a scene and all that is parented to it by a matrix in Blender's world.

    Raises:
        PlacementError: something else moves it.
    """
    require_movable(scene_object)
    scene_object.matrix_world = matrix @ scene_object.matrix_world


def scale_scene(scene_object: bpy.types.Object, factor: float) -> None:
    """Make a scene larger or smaller about Blender's origin, so that a ground at height 0 stays there.

    Raises:
        PlacementError: a factor of nothing, or something else moves the scene.
    """
    if not np.isfinite(factor) or factor <= 0:
        raise PlacementError(f"a scene can be made larger or smaller by a factor above 0, not by {factor:g}")
    move_scene(scene_object, mathutils.Matrix.Diagonal((factor, factor, factor, 1.0)))
    _scale_clipping(scene_object, factor)


def reset_scene(scene_object: bpy.types.Object) -> None:
    """Put a scene back where it was imported.

    Raises:
        PlacementError: something else moves it.
    """
    require_movable(scene_object)
    size = scene_object.matrix_world.to_scale().x
    scene_object.matrix_world = mathutils.Matrix(BLENDER_FROM_SCENE)
    if size > 0.0:  # someone may have scaled it to nothing by hand
        _scale_clipping(scene_object, 1.0 / size)


def ground_of(scene_object: bpy.types.Object, frame: int, share: float) -> Plane:
    """The ground in the lower part of a frame of the footage, in Blender's world.

    Args:
        frame: Blender frame; the nearest one that has footage is taken.
        share: of the picture's height, counted from below.

    Raises:
        SceneError: the scene package is missing or changed.
        GroundError: there is none.
    """
    scene = open_scene(scene_object)
    index = min(max(frame - scene_object.ex4d_scene.frame_start, 0), scene.manifest.frames - 1)
    to_blender = np.array(scene_object.matrix_world, dtype=np.float64)
    points = _lower_points(scene, index, share) @ to_blender[:3, :3].T + to_blender[:3, 3]
    camera_to_blender = to_blender @ scene.source_camera().camera_to_world[index]
    up = -camera_to_blender[:3, 1]
    return ground_in(points, camera_to_blender[:3, 3], up / np.linalg.norm(up))


def eye_of(scene_object: bpy.types.Object) -> np.ndarray:
    """(3,) where the source camera is now, in Blender's world; the scene object's own place if it has none."""
    camera = scene_object.ex4d_scene.source_camera
    return np.array((camera or scene_object).matrix_world.translation, dtype=np.float64)


def _lower_points(scene: Scene, index: int, share: float) -> np.ndarray:
    """(N, 3) float64 vertices of the lower part of a frame, in the scene's world; the mesh's rim is left out."""
    _, uvs, _ = scene.topology()
    positions = positions_of_frame(scene, index, len(uvs)).reshape(-1, 3)
    half_a_pixel = 0.25 / np.array([scene.manifest.width, scene.manifest.height])
    inside = (uvs > half_a_pixel).all(axis=1) & (uvs < 1 - half_a_pixel).all(axis=1) & (uvs[:, 1] < share)
    found = np.flatnonzero(inside)
    return positions[found[:: max(1, len(found) // _MOST_POINTS)]].astype(np.float64)


def _scale_clipping(scene_object: bpy.types.Object, factor: float) -> None:
    """What the cameras of a scene could see, they shall see still."""
    for camera in {child.data for child in scene_object.children_recursive if child.type == "CAMERA"}:
        camera.clip_start, camera.clip_end = camera.clip_start * factor, camera.clip_end * factor
