"""Samples a Blender camera on every frame, whatever animates it, as a `CameraPath` in the scene's world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TypeVar

import bpy
import numpy as np

from ex4d_core.blender_cameras import intrinsics_from_blender, world_to_camera_from_blender
from ex4d_core.cameras import CameraError, CameraPath

from ..blender_types import current_context
from ..scenes.link import MESH_CACHE
from .keyframes import camera_data
from .optics import crop_intrinsics, read_lens, render_size, require_even_time

T = TypeVar("T")


def sample_camera(
    camera: bpy.types.Object | None, scene_object: bpy.types.Object, frame_start: int, frame_end: int
) -> CameraPath:
    """Sample the evaluated camera: keyframes, constraints, parents, drivers, lens and shift, render format.

    Blender's current frame is restored afterwards. Subframes (motion blur) are not sampled.

    Args:
        camera: a perspective camera object of the current scene.
        scene_object: the imported scene, which may itself be moved, rotated, scaled evenly and animated.
        frame_start: first Blender frame.
        frame_end: last Blender frame, included.

    Raises:
        CameraError: no camera, not in the view layer, not perspective, sheared, an empty range, or stretched time.
    """
    if camera is None or camera.type != "CAMERA":
        raise CameraError("the shot has no camera; choose a camera object")
    if frame_end < frame_start:
        raise CameraError(f"the shot ends at frame {frame_end}, before it starts at {frame_start}; set a later end")
    render = current_context().scene.render
    # Refused before any frame is computed.
    require_even_time(render)
    read_lens(camera_data(camera), render)
    samples = sample_frames(camera, frame_start, frame_end, lambda: current_camera(camera, scene_object))
    return replace(
        samples[0],
        world_to_camera=np.concatenate([sample.world_to_camera for sample in samples]),
        intrinsics=np.concatenate([sample.intrinsics for sample in samples]),
    )


def sample_frames(camera: bpy.types.Object, frame_start: int, frame_end: int, read: Callable[[], T]) -> list[T]:
    """What ``read`` finds of a camera on each frame; Blender's current frame is restored afterwards."""
    scene = current_context().scene
    frame_before, subframe_before = scene.frame_current, scene.frame_subframe
    samples = []
    try:
        with nullcontext() if _may_follow_a_surface(camera) else without_mesh_caches(scene):
            for frame in range(frame_start, frame_end + 1):
                scene.frame_set(frame)
                samples.append(read())
    finally:
        scene.frame_set(frame_before, subframe=subframe_before)
    return samples


def current_camera(camera: bpy.types.Object, scene_object: bpy.types.Object) -> CameraPath:
    """The evaluated camera on the current frame, as a path of one frame in the scene's world.

    Raises:
        CameraError: not in the view layer, not perspective, or sheared.
    """
    context = current_context()
    depsgraph = context.evaluated_depsgraph_get()
    evaluated_camera, evaluated_scene = camera.evaluated_get(depsgraph), scene_object.evaluated_get(depsgraph)
    for one in (evaluated_camera, evaluated_scene):
        if not one.is_evaluated:
            raise CameraError(
                f"{one.name!r} is not in the current view layer; enable its collection there, and do not disable "
                "either in viewports (the screen icons in the Outliner)"
            )
    world_to_camera = world_to_camera_from_blender(
        np.array(evaluated_camera.matrix_world, dtype=np.float64)[None],
        np.array(evaluated_scene.matrix_world, dtype=np.float64),
    )
    render = context.scene.render
    intrinsics = intrinsics_from_blender(read_lens(camera_data(evaluated_camera), render))
    return CameraPath(world_to_camera, crop_intrinsics(intrinsics, render), *render_size(render))


@contextmanager
def without_mesh_caches(scene: bpy.types.Scene) -> Iterator[None]:
    """Change frames without the imported scenes' mesh caches, which cost most of it and do not move cameras."""
    muted = _enabled_caches(scene)
    try:
        for cache in muted:
            cache.show_viewport = False
        yield
    finally:
        for cache in muted:
            cache.show_viewport = True


def _enabled_caches(scene: bpy.types.Scene) -> list[bpy.types.Modifier]:
    """The imported scenes' mesh caches that are enabled."""
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
            # Armature constraints, and whatever else has several targets, may refer to anything.
            if constraint.type == "SHRINKWRAP" or hasattr(constraint, "targets") or on_vertices:
                return True
            if target is not None:
                pending.append(target)
        if one.pose is not None and any(bone.constraints for bone in one.pose.bones):
            return True
    return False
