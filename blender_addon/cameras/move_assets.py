"""Moves as action assets: any camera's motion, saved for the Asset Browser, and put into another scene.

The action holds the motion relative to the source camera's view at its first frame: locations as shares of the
subject's distance, in the source camera's axes, rotations, and the factor on the focal length. It fits any scene.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import bpy
import mathutils
import numpy as np

from ex4d_core.cameras import CameraPath, invert_rigid
from ex4d_core.errors import RequestError

from .keyframes import animate, curves_of

# Custom properties of the action, or of the object that plays it: kept in .blend files.
FRAMES, LENS_FACTOR = "ex4d_frames", "ex4d_lens_factor"
_LENS_PATH = f'["{LENS_FACTOR}"]'
_TAG = "EX-4D"


@dataclass(frozen=True)
class RelativeMove:
    """A camera's motion relative to the view that it starts from.

    Attributes:
        location: (T, 3) in the axes of the start view (x right, y down, z forward), in shares of the subject's distance
        rotation: (T, 3) Euler angles XYZ in radians, from the camera's axes to those of the start view.
        lens: (T,) factor on the focal length.
    """

    location: np.ndarray
    rotation: np.ndarray
    lens: np.ndarray

    def __len__(self) -> int:
        return len(self.location)


def relative_move(path: CameraPath, source: CameraPath, first_frame: int, distance: float) -> RelativeMove:
    """A path as seen from the source camera.

    Args:
        path: in the scene's world.
        source: the camera that filmed the footage.
        first_frame: of the footage, at which the path starts.
        distance: of the pivot in scene units.
    """
    poses = source.world_to_camera[first_frame] @ path.camera_to_world
    turns = [mathutils.Matrix(pose.tolist()).to_euler("XYZ") for pose in poses[:, :3, :3]]
    for before, turn in pairwise(turns):
        turn.make_compatible(before)  # without jumps of a whole turn
    lens = path.intrinsics[:, 0, 0] / path.width / (source.intrinsics[first_frame, 0, 0] / source.width)
    return RelativeMove(poses[:, :3, 3] / distance, np.array([tuple(turn) for turn in turns]), lens)


def placed_move(move: RelativeMove, source: CameraPath, first_frame: int, distance: float) -> CameraPath:
    """The inverse of `relative_move`, with the source camera's images and principal point."""
    poses = np.tile(np.eye(4), (len(move), 1, 1))
    poses[:, :3, :3] = [mathutils.Euler(turn.tolist(), "XYZ").to_matrix() for turn in move.rotation]
    poses[:, :3, 3] = move.location * distance
    intrinsics = np.tile(source.intrinsics[first_frame], (len(move), 1, 1))
    intrinsics[:, (0, 1), (0, 1)] *= move.lens[:, None]
    world_to_camera = invert_rigid(poses) @ source.world_to_camera[first_frame]
    return replace(source, world_to_camera=world_to_camera, intrinsics=intrinsics)


def save_action(move: RelativeMove, name: str) -> bpy.types.Action:
    """An action of a move, marked as an asset; its first frame is 1."""
    player = bpy.data.objects.new(name, None)
    try:
        player.rotation_mode = "XYZ"
        channels = (("location", move.location), ("rotation_euler", move.rotation), (_LENS_PATH, move.lens[:, None]))
        for data_path, values in channels:
            animate(player, data_path, 1, values)
            if not any(curve.data_path == data_path for curve in curves_of(player)):
                player.keyframe_insert(data_path, frame=1)  # constants, too, are part of the action
        assert player.animation_data is not None  # now that it has keys
        action: Any = player.animation_data.action
        action.name, action[FRAMES] = name, len(move)
        action.asset_mark()
        action.asset_data.tags.new(_TAG, skip_if_exists=True)
        action.asset_data.description = "Camera move: add it to an EX-4D scene from the Asset Browser's menu"
    finally:
        bpy.data.objects.remove(player)
    return action


def load_action(action: bpy.types.Action, frames: int) -> RelativeMove:
    """The move of an action, stretched to another number of frames.

    Args:
        action: was made by `save_action`, and perhaps edited.
        frames: T of the move that is returned.

    Raises:
        RequestError: another action.
    """
    if not is_move(action):
        raise RequestError(f"the action {action.name!r} is no camera move; choose one that Save Move as Asset made")
    values = {name: np.zeros((frames, 3)) for name in ("location", "rotation_euler")}
    values[_LENS_PATH] = np.ones((frames, 1))
    times = np.linspace(1.0, float(action[FRAMES]), frames)
    player = bpy.data.objects.new(action.name, None)
    try:
        player.animation_data_create().action = action
        if hasattr(player.animation_data, "action_slot") and action.slots:
            player.animation_data.action_slot = action.slots[0]
        for curve in curves_of(player):
            if curve.data_path in values:
                values[curve.data_path][:, curve.array_index] = [curve.evaluate(time) for time in times]
    finally:
        bpy.data.objects.remove(player)
    return RelativeMove(values["location"], values["rotation_euler"], values[_LENS_PATH][:, 0])


def is_move(action: Any) -> bool:
    """Whether an action was made by `save_action`."""
    return isinstance(action, bpy.types.Action) and isinstance(action.get(FRAMES), int) and action[FRAMES] > 0
