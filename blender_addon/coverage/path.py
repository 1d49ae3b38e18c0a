"""Reads the camera path of keyframes from the F-curves, without changing the frame, in slices of a tick.

Only for cameras that keyframes alone move; anything else (constraints, drivers, rigs) needs Blender's
own evaluation of every frame, see `cameras.sampling`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

import bpy
import mathutils
import numpy as np

from ex4d_core.blender_cameras import intrinsics_from_blender, world_to_camera_from_blender
from ex4d_core.cameras import CameraPath

from ..cameras.cuts import Cut, join
from ..cameras.keyframes import curves_of
from ..cameras.optics import crop_intrinsics, read_lens, render_size, require_even_time

_POSE = ("location", "rotation_euler", "rotation_quaternion", "scale")
_LENS = ("lens", "shift_x", "shift_y")


def is_keyframed_only(camera: bpy.types.Object, scene_object: bpy.types.Object) -> bool:
    """Whether F-curves alone determine where this camera is, relative to the scene object."""
    for owner, known in ((camera, _POSE), (camera.data, _LENS)):
        animation = owner.animation_data
        if animation is not None and (animation.drivers or animation.nla_tracks or animation.use_tweak_mode):
            return False
        if any(curve.data_path not in known for curve in curves_of(owner)):
            return False
    still = camera.parent is scene_object or not (
        scene_object.parent or scene_object.constraints or _moves(scene_object)
    )
    turned = camera.delta_rotation_quaternion != mathutils.Quaternion() or any(camera.delta_rotation_euler)
    has_deltas = turned or any(camera.delta_location)
    return (
        still
        and camera.parent in (None, scene_object)
        and camera.parent_type == "OBJECT"
        and not camera.constraints
        and not has_deltas
        and camera.rotation_mode != "AXIS_ANGLE"
    )


def cuts_in_slices(cuts: Sequence[Cut], scene_object: bpy.types.Object) -> Generator[None, None, CameraPath]:
    """The path of a shot of one or more cuts, one after the other, as `path_in_slices` reads one."""
    paths = []
    for cut in cuts:
        path = yield from path_in_slices(cut.camera, scene_object, cut.frame_start, cut.frame_end)
        paths.append(path)
    return join(paths)


def path_in_slices(
    camera: bpy.types.Object, scene_object: bpy.types.Object, frame_start: int, frame_end: int
) -> Generator[None, None, CameraPath]:
    """Evaluate the curves, one frame between two yields; returns the path in the scene's world.

    Between two frames the artist may do anything, so no curve is held on to: Blender frees curves that are deleted.

    Raises:
        CameraError: not a perspective camera, or stretched time.
        ReferenceError: camera or scene object were deleted meanwhile.
    """
    scene = bpy.context.scene
    require_even_time(scene.render)
    optics = read_lens(camera.data, scene.render)
    scene_world = np.array(scene_object.matrix_world, dtype=np.float64)
    root = mathutils.Matrix()
    if camera.parent is not None:
        root = scene_object.matrix_world @ camera.matrix_parent_inverse
    rotation_path = "rotation_quaternion" if camera.rotation_mode == "QUATERNION" else "rotation_euler"

    poses, intrinsics = [], []
    for frame in range(frame_start, frame_end + 1):
        pose = _values(camera, ("location", rotation_path, "scale"), frame)
        turn = pose[rotation_path]
        rotation = mathutils.Quaternion(turn) if len(turn) == 4 else mathutils.Euler(turn, camera.rotation_mode)
        basis = mathutils.Matrix.LocRotScale(
            mathutils.Vector(pose["location"]), rotation, mathutils.Vector(pose["scale"])
        )
        poses.append(np.array(root @ basis, dtype=np.float64))
        lens = {name: value for name, (value,) in _values(camera.data, _LENS, frame).items()}
        intrinsics.append(intrinsics_from_blender(replace(optics, **lens)))
        yield
    width, height = render_size(scene.render)
    seen = crop_intrinsics(np.stack(intrinsics), scene.render)
    return CameraPath(world_to_camera_from_blender(np.stack(poses), scene_world), seen, width, height)


def _values(owner: bpy.types.ID, names: tuple[str, ...], frame: int) -> dict[str, list[float]]:
    """Properties on a frame, by name: what their curves say, and what they are now where there is no curve."""
    found = {}
    for name in names:
        now = getattr(owner, name)
        found[name] = [now] if isinstance(now, float) else list(now)
    for curve in curves_of(owner):
        if curve.data_path in found and not curve.mute:
            found[curve.data_path][curve.array_index] = curve.evaluate(frame)
    return found


def _moves(scene_object: bpy.types.Object) -> bool:
    animation = scene_object.animation_data
    if animation is None:
        return False
    # A custom property may be animated: the source camera's eye is.
    moving = any(not curve.data_path.startswith("[") for curve in curves_of(scene_object))
    return bool(animation.drivers or animation.nla_tracks or moving)
