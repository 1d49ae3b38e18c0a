"""A camera move from the source camera's view to the view of a 3D viewport."""

from __future__ import annotations

from dataclasses import replace

import bpy
import mathutils
import numpy as np

from ex4d_core.cameras import CameraError, CameraPath, world_to_camera_from_blender
from ex4d_core.trajectories import ease

from ..scenes.link import collection_for, open_scene
from .keyframes import choreograph, new_camera
from .presets import move_frames


def camera_to_view(
    scene_object: bpy.types.Object, view_to_world: mathutils.Matrix, easing: str = "ease_in_out", name: str = ""
) -> bpy.types.Object:
    """A camera that starts at the source camera's view and ends at another, over all of the footage.

    Args:
        view_to_world: of the view, in Blender's world; a viewport has its inverse (``view_matrix``).
        easing: one of `ex4d_core.trajectories.EASINGS`.

    Raises:
        SceneError: the scene package is missing or changed.
        CameraError: the scene object is sheared.
    """
    scene = open_scene(scene_object)
    start, first, frames = move_frames(scene, scene_object)
    source = scene.source_camera().frames(first, first + frames)
    end = world_to_camera_from_blender(
        np.array(view_to_world, dtype=np.float64)[None], np.array(scene_object.matrix_world, dtype=np.float64)
    )[0]
    path = path_between(source, end, easing)
    camera = new_camera(name or "Camera to View", scene_object, collection_for(scene_object))
    choreograph(camera, path, start)
    return camera


def path_between(source: CameraPath, end: np.ndarray, easing: str) -> CameraPath:
    """A path from a source camera's first view, with its first lens, to another view.

    The eye goes straight, the rotation the shortest way round.

    Args:
        source: gives the number of frames, too.
        end: (4, 4) world-to-camera of the last frame.

    Raises:
        CameraError: there is only one frame to move in.
    """
    if len(source) < 2:
        raise CameraError("the footage has one frame only, which leaves no time to move in")
    time = ease(np.linspace(0.0, 1.0, len(source)), easing)
    begin_to_world = mathutils.Matrix(np.linalg.inv(source.world_to_camera[0]).tolist())
    end_to_world = mathutils.Matrix(np.linalg.inv(end).tolist())
    first, last = begin_to_world.to_quaternion(), end_to_world.to_quaternion()
    matrices = [
        mathutils.Matrix.LocRotScale(
            begin_to_world.translation.lerp(end_to_world.translation, t), first.slerp(last, t), None
        )
        for t in time
    ]
    world_to_camera = np.stack([np.linalg.inv(np.array(matrix, dtype=np.float64)) for matrix in matrices])
    intrinsics = np.repeat(source.intrinsics[:1], len(source), axis=0)
    return replace(source, world_to_camera=world_to_camera, intrinsics=intrinsics)
