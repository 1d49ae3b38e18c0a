"""The camera as Blender sees it on every frame, whatever moves it, as a `CameraPath` in the scene's world."""

from __future__ import annotations

import bpy
import numpy as np

from ex4d_core.cameras import CameraError, CameraPath, intrinsics_from_blender, world_to_camera_from_blender

from ..scenes.link import MESH_CACHE
from .optics import read_lens, render_size, require_even_time


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
        CameraError: no camera, not in the view layer, not perspective, sheared, an empty range, or stretched time.
    """
    if camera is None or camera.type != "CAMERA":
        raise CameraError("choose a camera object to shoot with")
    if frame_end < frame_start:
        raise CameraError(f"the shot ends at frame {frame_end}, before it starts at {frame_start}")
    scene = bpy.context.scene
    # Refused before any frame is computed.
    require_even_time(scene.render)
    read_lens(camera.data, scene.render)
    frame_before, subframe_before = scene.frame_current, scene.frame_subframe
    world_to_camera, intrinsics = [], []
    muted = [] if _may_follow_a_surface(camera) else _shown_caches(scene)
    try:
        for cache in muted:
            cache.show_viewport = False
        for frame in range(frame_start, frame_end + 1):
            scene.frame_set(frame)
            pose, lens = camera_now(camera, scene_object)
            world_to_camera.append(pose)
            intrinsics.append(lens)
    finally:
        for cache in muted:
            cache.show_viewport = True
        scene.frame_set(frame_before, subframe=subframe_before)
    width, height = render_size(scene.render)
    return CameraPath(np.stack(world_to_camera), np.stack(intrinsics), width, height)


def camera_now(camera: bpy.types.Object, scene_object: bpy.types.Object) -> tuple[np.ndarray, np.ndarray]:
    """The evaluated camera on the current frame: (4, 4) world-to-camera in the scene's world, and (3, 3) intrinsics.

    Raises:
        CameraError: not in the view layer, not perspective, or sheared.
    """
    depsgraph = bpy.context.evaluated_depsgraph_get()
    seen_camera, seen_scene = camera.evaluated_get(depsgraph), scene_object.evaluated_get(depsgraph)
    for one in (seen_camera, seen_scene):
        if not one.is_evaluated:
            raise CameraError(
                f"{one.name!r} is not in the current view layer; enable its collection there, and see that neither of "
                "them is disabled in viewports (the screens in the Outliner)"
            )
    pose = world_to_camera_from_blender(
        np.array(seen_camera.matrix_world, dtype=np.float64)[None], np.array(seen_scene.matrix_world, dtype=np.float64)
    )[0]
    return pose, intrinsics_from_blender(read_lens(seen_camera.data, bpy.context.scene.render))


def _shown_caches(scene: bpy.types.Scene) -> list[bpy.types.Modifier]:
    """The imported scenes' mesh caches, which cost most of a frame change and do not move cameras."""
    caches = (candidate.modifiers.get(MESH_CACHE) for candidate in scene.objects if candidate.type == "MESH")
    return [cache for cache in caches if cache is not None and cache.show_viewport]


def _may_follow_a_surface(camera: bpy.types.Object) -> bool:
    """Whether anything that moves the camera may in turn follow the vertices of a mesh."""
    pending, known = [camera], set()
    while pending:
        one = pending.pop()
        if one.name_full in known:
            continue
        known.add(one.name_full)
        if one.parent is not None:
            if one.parent_type in ("VERTEX", "VERTEX_3"):
                return True
            pending.append(one.parent)
        for constraint in one.constraints:
            target = getattr(constraint, "target", None)
            on_vertices = target is not None and target.type != "ARMATURE" and getattr(constraint, "subtarget", "")
            # Armature constraints, and whatever else has several targets, may reach anywhere.
            if constraint.type == "SHRINKWRAP" or hasattr(constraint, "targets") or on_vertices:
                return True
            if target is not None:
                pending.append(target)
        if one.type == "ARMATURE" and any(bone.constraints for bone in one.pose.bones):
            return True
    return False
