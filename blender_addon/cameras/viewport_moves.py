"""A camera move from the source camera's view to the view of a 3D viewport."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import bpy
import mathutils
import numpy as np

from ex4d_core.blender_cameras import world_to_camera_from_blender
from ex4d_core.cameras import CameraError, CameraPath, invert_rigid
from ex4d_core.trajectories import ease

from ..scenes.link import collection_for, link_of, open_scene
from .keyframes import animate_with_few_keys, new_camera


def camera_to_view(
    scene_object: bpy.types.Object,
    view_to_world: mathutils.Matrix,
    easing: str = "ease_in_out",
    name: str = "",
    *,
    frame_start: int | None = None,
    shown: Sequence[int] | None = None,
) -> bpy.types.Object:
    """Add a camera that starts at the source camera's view and ends at another, over all of the footage.

    Args:
        scene_object: the imported scene.
        view_to_world: of the final view, in Blender's world; a viewport has its inverse (``view_matrix``).
        easing: one of `ex4d_core.trajectories.EASINGS`.
        name: of the object; "Camera to View" by default.
        frame_start: Blender frame at which the move starts; that of the footage by default.
        shown: footage frames, from 0, that a retimed shot shows in place of all; the move takes as many frames.

    Raises:
        SceneError: the scene package is missing or changed.
        CameraError: the scene object is sheared, or there is one frame only.
    """
    source = open_scene(scene_object).source_camera()
    if shown is not None:
        source = source.at(shown)
    end = world_to_camera_from_blender(
        np.array(view_to_world, dtype=np.float64)[None], np.array(scene_object.matrix_world, dtype=np.float64)
    )[0]
    path = path_between(source, end, easing)
    camera = new_camera(name or "Camera to View", scene_object, collection_for(scene_object))
    animate_with_few_keys(camera, path, link_of(scene_object).frame_start if frame_start is None else frame_start)
    return camera


def path_between(source: CameraPath, end: np.ndarray, easing: str) -> CameraPath:
    """A path from a source camera's first view, with its first focal length, to another view.

    The position moves in a straight line, the rotation takes the shortest way.

    Args:
        source: gives the number of frames, too.
        end: (4, 4) world-to-camera of the last frame.
        easing: one of `ex4d_core.trajectories.EASINGS`.

    Raises:
        CameraError: there is only one frame to move in.
    """
    if len(source) < 2:
        raise CameraError("a camera move needs at least 2 frames, and the footage has 1; use longer footage")
    first, last = source.camera_to_world[0], invert_rigid(end)
    first_rotation, last_rotation = (mathutils.Matrix(pose.tolist()).to_quaternion() for pose in (first, last))
    camera_to_world = [
        mathutils.Matrix.LocRotScale(
            (first + t * (last - first))[:3, 3].tolist(), first_rotation.slerp(last_rotation, t), None
        )
        for t in ease(np.linspace(0.0, 1.0, len(source)), easing)
    ]
    return replace(
        source,
        world_to_camera=np.linalg.inv(np.array(camera_to_world, dtype=np.float64)),
        intrinsics=source.intrinsics[0],
    )
