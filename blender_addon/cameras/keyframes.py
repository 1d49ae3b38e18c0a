"""Camera paths to Blender keyframes: plain location, rotation and lens curves.

What a camera did when it filmed is kept on every frame. A move that is made up gets as few keys as it can, since it is
there to be changed: two with a straight line between them where it is even, else Bezier keys on common frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import bpy
import mathutils
import numpy as np

from ex4d_core.cameras import (
    BLENDER_FROM_SCENE,
    CameraPath,
    blender_from_intrinsics,
    blender_from_world_to_camera,
)

from .few_keys import few_keys
from .optics import write_sensor

# Values this close (relative to the largest) are the same number in Blender's float32.
_SAME = 2e-7
# How far a move with few keys may be from the one that was asked for: radians of each angle, and a share of the focal
# length and of how far the camera goes. Together about a hundredth of a pixel, for a lens of 1,000 pixels.
_CLOSE = 5e-6


@dataclass(frozen=True)
class _Channel:
    """A property of a camera on every frame.

    Attributes:
        values: (T, K).
        bound: by how much they may miss.
    """

    owner: bpy.types.ID
    data_path: str
    values: np.ndarray
    bound: float


def new_camera(name: str, scene_object: bpy.types.Object, collection: bpy.types.Collection) -> bpy.types.Object:
    """A camera object that is tied to the scene object, so that it moves along when that is moved.

    Its own location and rotation are in Blender's axes, as if the scene object stood where it was imported.

    Args:
        collection: where the object is linked.
    """
    camera = bpy.data.objects.new(name, bpy.data.cameras.new(name))
    collection.objects.link(camera)
    camera.parent = scene_object
    camera.matrix_parent_inverse = mathutils.Matrix(BLENDER_FROM_SCENE).inverted()
    return camera


def record(camera: bpy.types.Object, path: CameraPath, frame_start: int) -> None:
    """Animate a camera made by `new_camera` exactly: with a key on every frame, but for what moves evenly.

    Args:
        path: in the scene's world.
        frame_start: Blender frame of the path's frame 0.
    """
    frames = frame_start + np.arange(len(path), dtype=np.float64)
    for channel in _channels(camera, path):
        animate(channel.owner, channel.data_path, frames, channel.values)


def choreograph(camera: bpy.types.Object, path: CameraPath, frame_start: int) -> None:
    """As `record`, with few keys to go on with where the move is close enough with them; see `_CLOSE`.

    Whatever does not move evenly has its keys on the same frames.
    """
    record(camera, path, frame_start)
    bent = [channel for channel in _channels(camera, path) if not _is_even(channel.values)]
    if not bent:
        return
    values = np.hstack([channel.values for channel in bent])
    bounds = np.concatenate([np.full(channel.values.shape[1], channel.bound) for channel in bent])
    keys = few_keys(values, bounds)
    if keys is None:
        return
    curves = [curve for channel in bent for curve in _curves_at(channel.owner, channel.data_path)]
    for index, curve in enumerate(curves):
        _set_smooth_keys(curve, frame_start + keys.at, values[keys.at, index], keys.slopes[:, index])
    frames = range(frame_start, frame_start + len(path))
    shown = np.array([[curve.evaluate(frame) for curve in curves] for frame in frames])
    # Blender keeps the places of handles as 32-bit numbers, which is too coarse for a shot at frame 90,000.
    if (np.abs(shown - values) > 2 * bounds).any():
        record(camera, path, frame_start)


def animate(owner: bpy.types.ID, data_path: str, frames: np.ndarray, values: Iterable) -> None:
    """Give a property its value on every frame; what stays the same is set without keys.

    Args:
        owner: the object or data whose property it is.
        data_path: the property: a number, or a vector of K numbers.
        frames: (T,) Blender frames, rising.
        values: T numbers, or T vectors of K numbers.
    """
    table = np.array([np.atleast_1d(value) for value in values], dtype=np.float64)
    first = table[0].tolist()
    if data_path.startswith("["):  # a custom property: ["name"]
        owner[data_path[2:-2]] = first
    else:
        setattr(owner, data_path, first if table.shape[1] > 1 else first[0])
    if (np.abs(table - table[0]) <= _rounding(table)).all():
        return
    if _is_even(table):
        frames, table = frames[[0, -1]], table[[0, -1]]
    # Inserting the first key makes the curves, wherever this version of Blender keeps them; the rest is set at once.
    owner.keyframe_insert(data_path, frame=frames[0])
    for index, curve in enumerate(_curves_at(owner, data_path)):
        points = _new_points(curve, frames, table[:, index])
        points.foreach_set("interpolation", np.full(len(frames), _number_of("interpolation", "LINEAR")))
        curve.update()


def curves_of(owner: bpy.types.ID) -> list[bpy.types.FCurve]:
    """The F-curves that animate an object or its data; from Blender 4.4 on they belong to a slot of the action."""
    animation = owner.animation_data
    if animation is None or animation.action is None:
        return []
    if bpy.app.version < (4, 4, 0):
        return list(animation.action.fcurves)
    bags = (
        strip.channelbag(animation.action_slot)
        for layer in animation.action.layers
        for strip in layer.strips
        if animation.action_slot is not None
    )
    return [curve for bag in bags if bag is not None for curve in bag.fcurves]


def _channels(camera: bpy.types.Object, path: CameraPath) -> list[_Channel]:
    """What moves a camera along a path; sets what cannot be animated."""
    matrices = [mathutils.Matrix(matrix) for matrix in blender_from_world_to_camera(path.world_to_camera)]
    rotations = [matrices[0].to_euler("XYZ")]
    for matrix in matrices[1:]:
        rotations.append(matrix.to_euler("XYZ", rotations[-1]))  # without jumps of a whole turn
    lenses = [blender_from_intrinsics(one, path.width, path.height) for one in path.intrinsics]
    write_sensor(camera.data, lenses[0])
    camera.rotation_mode = "XYZ"
    places = np.array([matrix.translation for matrix in matrices], dtype=np.float64)
    travel = float(np.linalg.norm(np.ptp(places, axis=0)))
    focal = np.array([[optics.lens] for optics in lenses])
    shifts = np.array([(optics.shift_x, optics.shift_y) for optics in lenses])
    return [
        _Channel(camera, "location", places, max(_CLOSE * travel, _rounding(places))),
        _Channel(camera, "rotation_euler", np.array(rotations, dtype=np.float64), _CLOSE),
        _Channel(camera.data, "lens", focal, _CLOSE * float(focal.min())),
        _Channel(camera.data, "shift_x", shifts[:, :1], _CLOSE),
        _Channel(camera.data, "shift_y", shifts[:, 1:], _CLOSE),
    ]


def _rounding(table: np.ndarray) -> float:
    return _SAME * max(1.0, float(np.abs(table).max()))


def _is_even(table: np.ndarray) -> bool:
    """Whether (T, K) values stay the same or change by as much on every frame."""
    time = np.linspace(0.0, 1.0, len(table))[:, None]
    return bool((np.abs(table - table[0] - (table[-1] - table[0]) * time) <= _rounding(table)).all())


def _curves_at(owner: bpy.types.ID, data_path: str) -> list[bpy.types.FCurve]:
    """A property's curves, in the order of its components."""
    return sorted((one for one in curves_of(owner) if one.data_path == data_path), key=lambda one: one.array_index)


def _set_smooth_keys(curve: bpy.types.FCurve, frames: np.ndarray, values: np.ndarray, slopes: np.ndarray) -> None:
    """Bezier keys whose handles end at a third of the way to the next key, which makes time run evenly between them."""
    reach = np.diff(frames) / 3
    points = _new_points(curve, frames, values)
    points.foreach_set("interpolation", np.full(len(frames), _number_of("interpolation", "BEZIER")))
    for side, lengths in (("left", -np.r_[reach[0], reach]), ("right", np.r_[reach, reach[-1]])):
        points.foreach_set(f"handle_{side}_type", np.full(len(frames), _number_of(f"handle_{side}_type", "ALIGNED")))
        ends = np.stack([frames + lengths, values + slopes * lengths], axis=1)
        points.foreach_set(f"handle_{side}", ends.astype(np.float32).ravel())
    curve.update()


def _new_points(curve: bpy.types.FCurve, frames: np.ndarray, values: np.ndarray):
    """A curve's keys, all of them new."""
    points = curve.keyframe_points
    points.clear()
    points.add(len(frames))
    points.foreach_set("co", np.stack([frames, values], axis=1).astype(np.float32).ravel())
    return points


def _number_of(name: str, value: str) -> np.int32:
    """What `foreach_set` wants for a choice."""
    return np.int32(bpy.types.Keyframe.bl_rna.properties[name].enum_items[value].value)
