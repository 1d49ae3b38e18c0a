"""The camera as Blender sees it on every frame, whatever moves it, as a `CameraPath` in the scene's world."""

from __future__ import annotations

import bpy
import numpy as np

from ex4d_core.cameras import CameraError, CameraPath, intrinsics_from_blender, world_to_camera_from_blender

from .optics import read_lens, render_size


def sample_camera(
    camera: bpy.types.Object, scene_object: bpy.types.Object, frame_start: int, frame_end: int
) -> CameraPath:
    """Sample the evaluated camera: keyframes, constraints, parents, drivers, lens and shift, render format.

    Blender's current frame is the same afterwards. Frames in between (motion blur) are not sampled.

    Args:
        camera: a perspective camera object of the current scene.
        scene_object: the imported scene, which may itself be moved, turned, scaled evenly and animated.
        frame_start, frame_end: Blender frames, both included.

    Raises:
        CameraError: no camera, not in the view layer, not perspective, sheared, or an empty range.
    """
    if camera is None or camera.type != "CAMERA":
        raise CameraError("choose a camera object to shoot with")
    if frame_end < frame_start:
        raise CameraError(f"the shot ends at frame {frame_end}, before it starts at {frame_start}")
    scene = bpy.context.scene
    read_lens(camera.data, scene.render)  # refused before any frame is computed
    frame_before, subframe_before = scene.frame_current, scene.frame_subframe
    world_to_camera, intrinsics = [], []
    try:
        for frame in range(frame_start, frame_end + 1):
            scene.frame_set(frame)
            depsgraph = bpy.context.evaluated_depsgraph_get()
            seen_camera, seen_scene = camera.evaluated_get(depsgraph), scene_object.evaluated_get(depsgraph)
            for one in (seen_camera, seen_scene):
                if not one.is_evaluated:
                    raise CameraError(f"{one.name!r} is not in the current view layer; enable its collection there")
            matrix = np.array(seen_camera.matrix_world, dtype=np.float64)
            world_to_camera.append(
                world_to_camera_from_blender(matrix[None], np.array(seen_scene.matrix_world, dtype=np.float64))[0]
            )
            intrinsics.append(intrinsics_from_blender(read_lens(seen_camera.data, scene.render)))
    finally:
        scene.frame_set(frame_before, subframe=subframe_before)
    width, height = render_size(scene.render)
    return CameraPath(np.stack(world_to_camera), np.stack(intrinsics), width, height)
