"""Moves, scales and resets an imported scene in Blender's world, and finds its ground.

Only the scene object moves. Its source camera and the shots' cameras are its children, so they move along; and since
cameras are sent relative to the scene object, requests to the backend stay the same.
"""

from __future__ import annotations

import bpy
import mathutils
import numpy as np

from ex4d_core.blender_cameras import BLENDER_FROM_SCENE
from ex4d_core.scene import Scene

from ..cameras.keyframes import curves_of
from .ground import PlacementError, Plane, ground_in
from .link import link_of, open_scene
from .mesh import positions_of_frame

# Enough to fit a plane, and fast.
_MAX_POINTS = 20_000
_TRANSFORMS = ("location", "rotation_euler", "rotation_quaternion", "rotation_axis_angle", "scale")


def require_movable(scene_object: bpy.types.Object) -> None:
    """Check that nothing else moves a scene object.

    Raises:
        PlacementError: it is linked, animated or constrained.
    """
    if scene_object.library is not None:
        raise PlacementError(
            f"{scene_object.name!r} is linked from another file; move it there, or make a library override"
        )
    animation = scene_object.animation_data
    paths = {curve.data_path for curve in curves_of(scene_object)}
    driven = {driver.data_path for driver in animation.drivers} if animation is not None else set()
    if (paths | driven).intersection(_TRANSFORMS):
        raise PlacementError(f"{scene_object.name!r} is animated; clear its keyframes, or move what it is parented to")
    if any(not constraint.mute for constraint in scene_object.constraints):
        raise PlacementError(f"{scene_object.name!r} has constraints; remove them, or move what they follow")


def move_scene(scene_object: bpy.types.Object, matrix: mathutils.Matrix) -> None:
    """Move a scene and its children by a matrix in Blender's world.

    Raises:
        PlacementError: see `require_movable`.
    """
    require_movable(scene_object)
    scene_object.matrix_world = matrix @ scene_object.matrix_world


def scale_scene(scene_object: bpy.types.Object, factor: float) -> None:
    """Scale a scene about Blender's origin, so that a ground at height 0 stays there.

    Raises:
        PlacementError: an invalid factor, or see `require_movable`.
    """
    if not np.isfinite(factor) or factor <= 0:
        raise PlacementError(f"invalid scale {factor:g}: expected a factor above 0")
    move_scene(scene_object, mathutils.Matrix.Diagonal((factor, factor, factor, 1.0)))
    _scale_cameras(scene_object, factor)


def reset_scene(scene_object: bpy.types.Object) -> None:
    """Put a scene back where it was imported.

    Raises:
        PlacementError: see `require_movable`.
    """
    require_movable(scene_object)
    size = scene_object.matrix_world.to_scale().x
    scene_object.matrix_world = mathutils.Matrix(BLENDER_FROM_SCENE.tolist())
    if size > 0.0:  # it may have been scaled to zero by hand
        _scale_cameras(scene_object, 1.0 / size)


def place_like(scene_object: bpy.types.Object, other: bpy.types.Object) -> None:
    """Put a scene that was just imported where another one is, at its size."""
    scene_object.matrix_world = other.matrix_world
    size = other.matrix_world.to_scale().x
    if size > 0.0:  # it may have been scaled to zero by hand
        _scale_cameras(scene_object, size)


def ground_of(scene_object: bpy.types.Object, frame: int, share: float) -> Plane:
    """The ground in the lower part of a frame of the footage, in Blender's world.

    Args:
        scene_object: the imported scene.
        frame: Blender frame; the nearest one with footage is used.
        share: of the image's height, from the bottom.

    Raises:
        SceneError: the scene package is missing or changed.
        PlacementError: no ground was found.
    """
    scene = open_scene(scene_object)
    index = min(max(frame - link_of(scene_object).frame_start, 0), scene.manifest.frames - 1)
    to_blender = np.array(scene_object.matrix_world, dtype=np.float64)
    points = _lower_points(scene, index, share) @ to_blender[:3, :3].T + to_blender[:3, 3]
    camera_to_blender = to_blender @ scene.source_camera().camera_to_world[index]
    up = -camera_to_blender[:3, 1]
    return ground_in(points, camera_to_blender[:3, 3], up / np.linalg.norm(up))


def eye_of(scene_object: bpy.types.Object) -> np.ndarray:
    """(3,) position of the source camera in Blender's world; that of the scene object if it has none."""
    camera = link_of(scene_object).source_camera
    return np.array((camera or scene_object).matrix_world.translation, dtype=np.float64)


def _lower_points(scene: Scene, index: int, share: float) -> np.ndarray:
    """(N, 3) float64 vertices of the lower part of a frame, in the scene's world, without the mesh's border."""
    _, uvs, _ = scene.topology()
    positions = positions_of_frame(scene, index, len(uvs)).reshape(-1, 3)
    half_a_pixel = 0.25 / np.array([scene.manifest.width, scene.manifest.height])
    inside = (uvs > half_a_pixel).all(axis=1) & (uvs < 1 - half_a_pixel).all(axis=1) & (uvs[:, 1] < share)
    found = np.flatnonzero(inside)
    return positions[found[:: max(1, len(found) // _MAX_POINTS)]].astype(np.float64)


def _scale_cameras(scene_object: bpy.types.Object, factor: float) -> None:
    """Scale clip range and drawn size of a scene's cameras along, so that they still see, and look, the same."""
    cameras = {child.data for child in scene_object.children_recursive if isinstance(child.data, bpy.types.Camera)}
    for camera in cameras:
        camera.clip_start, camera.clip_end = camera.clip_start * factor, camera.clip_end * factor
        camera.display_size *= factor
