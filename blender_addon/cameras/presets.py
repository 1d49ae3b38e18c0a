"""Cameras that make a named move through an imported scene, as keyframes that the artist can edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import bpy

from ex4d_core.cameras import CameraError
from ex4d_core.trajectories import PRESETS, Trajectory, shot_path

from ..scenes.link import collection_for, link_of, open_scene
from .keyframes import animate_with_few_keys, new_camera
from .moves import note_move

_OPPOSITES = {"zoom_in": "zoom_out", "zoom_out": "zoom_in", "dolly_in": "dolly_out", "dolly_out": "dolly_in"}


def camera_from_preset(
    scene_object: bpy.types.Object,
    trajectory: Trajectory,
    *,
    frame_start: int | None = None,
    frames: int | None = None,
    shown: Sequence[int] | None = None,
    name: str = "",
    collection: bpy.types.Collection | None = None,
) -> bpy.types.Object:
    """Add a camera that starts at the source camera's view and makes the move.

    Args:
        scene_object: the imported scene.
        trajectory: the move.
        frame_start: Blender frame at which the move starts; that of the footage by default.
        frames: how many frames it takes; by default all that the footage has from there on.
        shown: footage frames, from 0, that a retimed shot shows in place of those; the move takes as many, and starts
            at the source camera of the first one, whatever ``frames`` is.
        name: of the object; made from the preset by default.
        collection: where to put it; see `collection_for` for the default.

    Raises:
        SceneError: the scene package is missing or changed.
        CameraError: the move does not lie within the footage.
        RequestError: the amount cannot be made at the subject's distance.
    """
    scene = open_scene(scene_object)
    footage_start, footage_length = link_of(scene_object).frame_start, scene.manifest.frames
    start = footage_start if frame_start is None else frame_start
    if shown is None:
        first = start - footage_start
        frames = footage_length - first if frames is None else frames
    else:
        first, frames = shown[0], len(shown)
    if shown is None and (first < 0 or frames < 1 or first + frames > footage_length):
        raise CameraError(
            f"a move of {frames} frames from frame {start} leaves the footage; stay within frames {footage_start} to "
            f"{footage_start + footage_length - 1}"
        )
    path = shot_path(trajectory, scene, frames=frames, first_frame=first)
    name = name or _camera_name(trajectory.preset)
    camera = new_camera(name, scene_object, collection or collection_for(scene_object))
    animate_with_few_keys(camera, path, start)
    note_move(camera, trajectory, scene, frame_start=start, frames=frames, first_frame=first)
    return camera


def _camera_name(preset: str) -> str:
    """As the menu of moves calls it: "Camera arc 30", "Camera dolly zoom"."""
    return "Camera arc " + preset if preset.isdigit() else "Camera " + preset.replace("_", " ")


def reversed_move(trajectory: Trajectory) -> Trajectory:
    """The same move in the other direction: left instead of right, down instead of up, out instead of in."""
    if trajectory.preset in _OPPOSITES:
        return replace(trajectory, preset=_OPPOSITES[trajectory.preset])
    if trajectory.preset not in PRESETS or PRESETS[trajectory.preset][1] == "unused":
        return replace(trajectory, preset=f"{-float(trajectory.preset):g}")
    amount = PRESETS[trajectory.preset][2] if trajectory.amount is None else trajectory.amount
    return replace(trajectory, amount=-amount)
