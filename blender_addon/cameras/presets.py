"""Cameras that make a named move through an imported scene, as keyframes to go on with."""

from __future__ import annotations

from dataclasses import replace

import bpy

from ex4d_core.cameras import CameraError
from ex4d_core.scene import Scene
from ex4d_core.trajectories import PRESETS, Trajectory, build_path

from ..scenes.link import collection_for, open_scene
from .keyframes import choreograph, new_camera


def camera_from_preset(
    scene_object: bpy.types.Object,
    trajectory: Trajectory,
    *,
    frame_start: int | None = None,
    frames: int | None = None,
    name: str = "",
    collection: bpy.types.Collection | None = None,
) -> bpy.types.Object:
    """A camera that starts at the source camera's view and makes the move.

    Args:
        frame_start: Blender frame at which the move starts; the scene's first by default.
        frames: how many frames it takes; by default all that the footage has from there on.
        name: of the object; made from the preset by default.
        collection: where to put it; see `collection_for` for the default.

    Raises:
        SceneError: the scene package is missing or changed.
        CameraError: the move does not lie within the footage.
        TrajectoryError: the amount cannot be made at the subject's distance.
    """
    scene = open_scene(scene_object)
    start, first, frames = move_frames(scene, scene_object, frame_start, frames)
    source = scene.source_camera().frames(first, first + frames)
    path = build_path(
        trajectory, frames, source.intrinsics[0], source.width, source.height, scene.manifest.subject_distance
    )
    # Moves are made from where the source camera stands when they start.
    path = replace(path, world_to_camera=path.world_to_camera @ source.world_to_camera[0])
    collection = collection or collection_for(scene_object)
    camera = new_camera(name or _camera_name(trajectory.preset), scene_object, collection)
    choreograph(camera, path, start)
    return camera


def _camera_name(preset: str) -> str:
    """As the menu of moves calls it: "Camera arc 30", "Camera dolly zoom"."""
    return "Camera arc " + preset if preset.isdigit() else "Camera " + preset.replace("_", " ")


def move_frames(
    scene: Scene, scene_object: bpy.types.Object, frame_start: int | None = None, frames: int | None = None
) -> tuple[int, int, int]:
    """Where a move lies: its first Blender frame, the footage frame shown there, and its number of frames.

    Args:
        frame_start: Blender frame at which it starts; that of the footage by default.
        frames: how many; by default all that the footage has from there on.

    Raises:
        CameraError: it does not lie within the footage.
    """
    link = scene_object.ex4d_scene
    start = link.frame_start if frame_start is None else frame_start
    first = start - link.frame_start
    frames = scene.manifest.frames - first if frames is None else frames
    if first < 0 or frames < 1 or first + frames > scene.manifest.frames:
        raise CameraError(
            f"a move from frame {start} over {frames} frames leaves the footage, which lies at frames "
            f"{link.frame_start} to {link.frame_start + scene.manifest.frames - 1}"
        )
    return start, first, frames


def turned_round(trajectory: Trajectory) -> Trajectory:
    """The same move the other way: left instead of right, down instead of up, out instead of in.

    Lens moves have no other way; their opposite is a preset of its own.
    """
    opposites = {"zoom_in": "zoom_out", "zoom_out": "zoom_in", "dolly_in": "dolly_out", "dolly_out": "dolly_in"}
    if trajectory.preset in opposites:
        return replace(trajectory, preset=opposites[trajectory.preset])
    if trajectory.preset not in PRESETS or PRESETS[trajectory.preset][1] == "unused":
        return replace(trajectory, preset=f"{-float(trajectory.preset):g}")
    amount = PRESETS[trajectory.preset][2] if trajectory.amount is None else trajectory.amount
    return replace(trajectory, amount=-amount)
