"""Camera paths to Blender keyframes: plain location, rotation and lens curves.

What a camera did when it filmed is kept on every frame. A new move gets as few keys as possible, since an artist is to
edit it: two linear ones where it is even, else Bezier keys on common frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bpy
import mathutils
import numpy as np

from ex4d_core.blender_cameras import BLENDER_FROM_SCENE, blender_from_intrinsics, blender_from_world_to_camera
from ex4d_core.cameras import CameraPath

from ..blender_types import enum_items
from ..scenes.link import link_of
from .keyframe_reduction import reduce_keyframes
from .optics import write_sensor

# Values this close (relative to the largest) are the same number in Blender's float32.
_FLOAT32_ROUNDING = 2e-7
# The largest error of a move with few keys: radians of each angle, and a share of the focal length and of the distance
# that the camera travels. Together about a hundredth of a pixel at a focal length of 1,000 pixels.
_TOLERANCE = 5e-6


@dataclass(frozen=True)
class _Channel:
    """A property of a camera on every frame.

    Attributes:
        owner: the camera object, or its data.
        data_path: the property.
        values: (T, K).
        bound: the largest error of a curve with few keys.
    """

    owner: bpy.types.Object | bpy.types.Camera
    data_path: str
    values: np.ndarray
    bound: float


def new_camera(name: str, scene_object: bpy.types.Object, collection: bpy.types.Collection) -> bpy.types.Object:
    """A camera object that is parented to the scene object, with the clip range of its source camera.

    Its own location and rotation are in Blender's axes, as if the scene object stood where it was imported.

    Args:
        name: of the object and its data.
        scene_object: the imported scene.
        collection: where the object is linked.
    """
    camera = bpy.data.objects.new(name, bpy.data.cameras.new(name))
    source = link_of(scene_object).source_camera
    if source is not None:
        data, filmed = camera_data(camera), camera_data(source)
        data.clip_start, data.clip_end = filmed.clip_start, filmed.clip_end
        data.display_size = filmed.display_size
    collection.objects.link(camera)
    camera.parent = scene_object
    camera.matrix_parent_inverse = mathutils.Matrix(BLENDER_FROM_SCENE.tolist()).inverted()
    return camera


def camera_data(camera: bpy.types.Object) -> bpy.types.Camera:
    """The data of a camera object."""
    assert isinstance(camera.data, bpy.types.Camera)
    return camera.data


def bake_path(camera: bpy.types.Object, path: CameraPath, frame_start: int) -> None:
    """Animate a camera made by `new_camera` exactly: with a key on every frame, except for what moves evenly.

    Args:
        camera: the camera object.
        path: in the scene's world.
        frame_start: Blender frame of the path's frame 0.
    """
    for channel in _channels(camera, path):
        animate(channel.owner, channel.data_path, frame_start, channel.values)


def animate_with_few_keys(camera: bpy.types.Object, path: CameraPath, frame_start: int) -> None:
    """As `bake_path`, but with few keys where the move stays close enough with them; see `_TOLERANCE`.

    All that does not move evenly has its keys on the same frames.
    """
    bake_path(camera, path, frame_start)
    bent = [channel for channel in _channels(camera, path) if not _is_even(channel.values)]
    if not bent:
        return
    values = np.hstack([channel.values for channel in bent])
    bounds = np.concatenate([np.full(channel.values.shape[1], channel.bound) for channel in bent])
    keys = reduce_keyframes(values, bounds)
    if keys is None:
        return
    curves = [curve for channel in bent for curve in _curves_at(channel.owner, channel.data_path)]
    for index, curve in enumerate(curves):
        _set_smooth_keys(curve, frame_start + keys.at, values[keys.at, index], keys.slopes[:, index])
    frames = range(frame_start, frame_start + len(path))
    shown = np.array([[curve.evaluate(frame) for curve in curves] for frame in frames])
    # Blender keeps the places of handles as 32-bit numbers, which is too coarse for a shot at frame 90,000.
    if (np.abs(shown - values) > 2 * bounds).any():
        bake_path(camera, path, frame_start)


def animate(owner: bpy.types.ID, data_path: str, frame_start: int, values: np.ndarray) -> None:
    """Give a property its value on every frame; a constant is set without keys.

    Args:
        owner: the object or data whose property it is.
        data_path: the property: a number, or a vector of K numbers.
        frame_start: the first of T Blender frames.
        values: (T, K).
    """
    first = values[0].tolist()
    if data_path.startswith("["):  # a custom property: ["name"]
        owner[data_path[2:-2]] = first
    else:
        setattr(owner, data_path, first if len(first) > 1 else first[0])
    if (np.abs(values - values[0]) <= _rounding(values)).all():
        return
    frames = frame_start + np.arange(len(values), dtype=np.float64)
    if _is_even(values):
        frames, values = frames[[0, -1]], values[[0, -1]]
    # Inserting the first key creates the curves, wherever this version of Blender keeps them; the rest is set at once.
    owner.keyframe_insert(data_path, frame=frames[0])
    for index, curve in enumerate(_curves_at(owner, data_path)):
        points = _replace_points(curve, frames, values[:, index])
        points.foreach_set("interpolation", np.full(len(frames), _number_of("interpolation", "LINEAR")))
        curve.update()


def curves_of(owner: bpy.types.ID) -> list[bpy.types.FCurve]:
    """The F-curves that animate an object or its data."""
    return [curve for curves in _curve_lists(owner) for curve in curves]


def clear_keys(owner: bpy.types.ID) -> None:
    """Remove all F-curves of an object or its data, but keep its action."""
    for curves in _curve_lists(owner):
        for curve in list(curves):
            curves.remove(curve)


def _curve_lists(owner: bpy.types.ID) -> list[Any]:
    """The collections of an owner's F-curves; from Blender 4.4 on they belong to a slot of the action."""
    animation: Any = getattr(owner, "animation_data", None)
    if animation is None or animation.action is None:
        return []
    if bpy.app.version < (4, 4, 0):
        return [animation.action.fcurves]
    bags = (
        strip.channelbag(animation.action_slot)
        for layer in animation.action.layers
        for strip in layer.strips
        if animation.action_slot is not None
    )
    return [bag.fcurves for bag in bags if bag is not None]


def remove_curve(owner: bpy.types.ID, curve: bpy.types.FCurve) -> None:
    """Delete one of `curves_of` an object, its data or a scene."""
    animation: Any = owner.animation_data
    if bpy.app.version < (4, 4, 0):
        animation.action.fcurves.remove(curve)
        return
    for layer in animation.action.layers:
        for strip in layer.strips:
            bag = strip.channelbag(animation.action_slot)
            if bag is not None and curve in list(bag.fcurves):
                bag.fcurves.remove(curve)
                return


def _channels(camera: bpy.types.Object, path: CameraPath) -> list[_Channel]:
    """The animated properties of a camera on a path; sets those that cannot be animated."""
    matrices = [mathutils.Matrix(matrix) for matrix in blender_from_world_to_camera(path.world_to_camera)]
    rotations = [matrices[0].to_euler("XYZ")]
    for matrix in matrices[1:]:
        rotations.append(matrix.to_euler("XYZ", rotations[-1]))  # without jumps of a whole turn
    lenses = [blender_from_intrinsics(one, path.width, path.height) for one in path.intrinsics]
    data = camera_data(camera)
    write_sensor(data, lenses[0])
    camera.rotation_mode = "XYZ"
    positions = np.array([matrix.translation for matrix in matrices], dtype=np.float64)
    travel = float(np.linalg.norm(np.ptp(positions, axis=0)))
    focal = np.array([[optics.lens] for optics in lenses])
    shifts = np.array([(optics.shift_x, optics.shift_y) for optics in lenses])
    return [
        _Channel(camera, "location", positions, max(_TOLERANCE * travel, _rounding(positions))),
        _Channel(camera, "rotation_euler", np.array(rotations, dtype=np.float64), _TOLERANCE),
        _Channel(data, "lens", focal, _TOLERANCE * float(focal.min())),
        _Channel(data, "shift_x", shifts[:, :1], _TOLERANCE),
        _Channel(data, "shift_y", shifts[:, 1:], _TOLERANCE),
    ]


def _rounding(values: np.ndarray) -> float:
    return _FLOAT32_ROUNDING * max(1.0, float(np.abs(values).max()))


def _is_even(values: np.ndarray) -> bool:
    """Whether (T, K) values are constant or change by as much on every frame."""
    time = np.linspace(0.0, 1.0, len(values))[:, None]
    return bool((np.abs(values - values[0] - (values[-1] - values[0]) * time) <= _rounding(values)).all())


def _curves_at(owner: bpy.types.ID, data_path: str) -> list[bpy.types.FCurve]:
    """A property's curves, in the order of its components."""
    return sorted((one for one in curves_of(owner) if one.data_path == data_path), key=lambda one: one.array_index)


def _set_smooth_keys(curve: bpy.types.FCurve, frames: np.ndarray, values: np.ndarray, slopes: np.ndarray) -> None:
    """Bezier keys whose handles end a third of the way to the next key, which makes time run evenly between them."""
    reach = np.diff(frames) / 3
    points = _replace_points(curve, frames, values)
    points.foreach_set("interpolation", np.full(len(frames), _number_of("interpolation", "BEZIER")))
    for side, lengths in (("left", -np.r_[reach[0], reach]), ("right", np.r_[reach, reach[-1]])):
        points.foreach_set(f"handle_{side}_type", np.full(len(frames), _number_of(f"handle_{side}_type", "ALIGNED")))
        ends = np.stack([frames + lengths, values + slopes * lengths], axis=1)
        points.foreach_set(f"handle_{side}", ends.astype(np.float32).ravel())
    curve.update()


def _replace_points(curve: bpy.types.FCurve, frames: np.ndarray, values: np.ndarray) -> bpy.types.bpy_prop_collection:
    """Give a curve new keys, and return them."""
    points = curve.keyframe_points
    points.clear()
    points.add(len(frames))
    points.foreach_set("co", np.stack([frames, values], axis=1).astype(np.float32).ravel())
    return points


def _number_of(name: str, value: str) -> np.int32:
    """The number that `foreach_set` takes for an enum value."""
    return np.int32(enum_items(bpy.types.Keyframe, name)[value].value)
