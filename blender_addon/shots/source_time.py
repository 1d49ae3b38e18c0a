"""The time of a shot: which moment of the footage each of its frames shows, as an animatable property.

`EX4D_Shot.source_frame` counts as the scene does: 35 is the moment that the footage ordinarily shows at frame 35.
Footage has whole frames, so the nearest one is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np

from ex4d_core.source_frames import key_positions, nearest_frames

from ..cameras.keyframes import curves_of, remove_curve
from ..cameras.sampling import without_mesh_caches
from ..scenes.link import is_scene_object, link_of
from ..scenes.retiming import is_retimed, move_source_eye, retime, undo_retiming

if TYPE_CHECKING:
    from .properties import EX4D_Shot

_NAME = "source_frame"


def source_frames_of(
    shot: EX4D_Shot, scene_object: bpy.types.Object, frame_start: int, frame_end: int
) -> tuple[int, ...] | None:
    """The footage frames, counted from 0, that a shot shows; None where time runs as it was filmed.

    Args:
        shot: of a Blender scene.
        scene_object: the imported scene.
        frame_start, frame_end: Blender frames, both included.
    """
    if not shot.use_source_frame:
        return None
    link = link_of(scene_object)
    frames = range(frame_start, frame_end + 1)
    return nearest_frames(_moments(shot, frames) - link.frame_start, link.frames)


def source_frame_now(shot: EX4D_Shot, scene_object: bpy.types.Object, frame: int) -> int:
    """The footage frame, from 0, that a shot shows at the current frame; without a curve it may be none of them."""
    link = link_of(scene_object)
    if not shot.use_source_frame:
        return frame - link.frame_start
    return nearest_frames([shot.source_frame - link.frame_start], link.frames)[0]


def is_driven(shot: EX4D_Shot) -> bool:
    """Whether more than a curve determines the shot's time, so that Blender has to evaluate every frame of it."""
    animation = shot.id_data.animation_data
    if animation is None or not shot.use_source_frame:
        return False
    path = _path(shot)
    return bool(animation.nla_tracks) or any(driver.data_path == path for driver in animation.drivers)


def time_signature(shot: EX4D_Shot) -> tuple[object, ...]:
    """Changes with the time of a shot, except where a curve is edited, which Blender reports by itself."""
    if not shot.use_source_frame:
        return ()
    return _path(shot), None if _curve_of(shot) else shot.source_frame


def follow_time(blender_scene: Any) -> None:
    """Let the imported scenes in the viewport show the time of the active shot: its own, or all if it names none."""
    shot = blender_scene.ex4d_shot
    chosen = shot.scene_object if is_scene_object(shot.scene_object) else None
    for scene_object in (one for one in blender_scene.objects if is_scene_object(one)):
        if shot.use_source_frame and chosen in (None, scene_object):
            retime(scene_object, blender_scene, _path(shot))
        elif is_retimed(scene_object):
            undo_retiming(scene_object)
    _move_source_eyes(blender_scene)


def set_time_keys(shot: EX4D_Shot, keys: Sequence[tuple[float, float]], interpolation: str = "LINEAR") -> None:
    """Replace a shot's curve by keys (frame, moment)."""
    owner, path = shot.id_data, _path(shot)
    if (old := _curve_of(shot)) is not None:
        remove_curve(owner, old)
    shot.use_source_frame = True
    for frame, moment in keys:
        shot.source_frame = moment
        shot.keyframe_insert(_NAME, frame=frame)
    curve = next(one for one in curves_of(owner) if one.data_path == path)
    for key in curve.keyframe_points:
        key.interpolation = interpolation
        key.handle_left_type = key.handle_right_type = "AUTO_CLAMPED"
    curve.update()


def set_source_frames(
    shot: EX4D_Shot, scene_object: bpy.types.Object, frame_start: int, frames: Sequence[int] | None
) -> None:
    """Give a shot the time of a take: footage frames from 0, one for each Blender frame from ``frame_start`` on."""
    if frames is None:
        shot.use_source_frame = False
        return
    start = link_of(scene_object).frame_start
    set_time_keys(shot, [(frame_start + place, start + frames[place]) for place in key_positions(frames)])


def copy_time(source: EX4D_Shot, target: EX4D_Shot) -> None:
    """Give a shot the time of another one, with its own copy of the curve."""
    curve = _curve_of(source)
    if curve is not None:
        keys = [(tuple(key.co), tuple(key.handle_left), tuple(key.handle_right)) for key in curve.keyframe_points]
        kinds = [(key.interpolation, key.handle_left_type, key.handle_right_type) for key in curve.keyframe_points]
        extrapolation = curve.extrapolation
        set_time_keys(target, [place for place, _, _ in keys])
        copied = _curve_of(target)
        assert copied is not None  # it has just got its keys
        for key, (_, left, right), (interpolation, left_type, right_type) in zip(
            copied.keyframe_points, keys, kinds, strict=True
        ):
            key.interpolation, key.handle_left_type, key.handle_right_type = interpolation, left_type, right_type
            key.handle_left, key.handle_right = left, right
        copied.extrapolation = extrapolation
        copied.update()
    target.source_frame, target.use_source_frame = source.source_frame, source.use_source_frame


def rename_animation(blender_scene: bpy.types.Scene, renamed: dict[str, str | None]) -> None:
    """Let the animation of shots stay with them when they get other places in the list.

    Args:
        blender_scene: that has the shots.
        renamed: data paths of shots to their new ones, or to None for one that is removed.
    """
    animation = blender_scene.animation_data
    if animation is None:
        return
    for curve in [*curves_of(blender_scene), *animation.drivers]:
        shot, dot, rest = curve.data_path.partition(".")
        if not dot or shot not in renamed:
            continue
        target = renamed[shot]
        if target is not None:
            curve.data_path = f"{target}.{rest}"
        elif curve.driver is None:
            remove_curve(blender_scene, curve)
        else:
            animation.drivers.remove(curve)


def _moments(shot: EX4D_Shot, frames: range) -> np.ndarray:
    """(T,) the property on Blender frames."""
    if is_driven(shot):
        return _evaluated_moments(shot, frames)
    curve = _curve_of(shot)
    if curve is None or curve.mute:
        return np.full(len(frames), shot.source_frame)
    return np.array([curve.evaluate(frame) for frame in frames])


def _evaluated_moments(shot: EX4D_Shot, frames: range) -> np.ndarray:
    """As Blender evaluates it; the current frame is restored afterwards."""
    blender_scene = shot.id_data
    before, subframe = blender_scene.frame_current, blender_scene.frame_subframe
    moments = []
    with without_mesh_caches(blender_scene):
        try:
            for frame in frames:
                blender_scene.frame_set(frame)
                moments.append(shot.source_frame)
        finally:
            blender_scene.frame_set(before, subframe=subframe)
    return np.array(moments)


def _path(shot: EX4D_Shot) -> str:
    return f"{shot.path_from_id()}.{_NAME}"


def _curve_of(shot: EX4D_Shot) -> bpy.types.FCurve | None:
    path = _path(shot)
    return next((curve for curve in curves_of(shot.id_data) if curve.data_path == path), None)


def _move_source_eyes(blender_scene: Any) -> None:
    """For source cameras that move; before a frame change the property still has the old frame's value."""
    shot = blender_scene.ex4d_shot
    if not shot.use_source_frame:
        return
    curve = None if is_driven(shot) else _curve_of(shot)

    def moment() -> float:
        now = blender_scene.frame_current
        value = shot.source_frame if curve is None or curve.mute else curve.evaluate(now)
        return round_moment(value)

    for scene_object in (one for one in blender_scene.objects if is_scene_object(one)):
        if is_retimed(scene_object):
            move_source_eye(scene_object, moment)


def round_moment(moment: float) -> float:
    """The Blender frame of the nearest footage frame."""
    return float(np.floor(moment + 0.501))


@bpy.app.handlers.persistent
def _before_frame_change(blender_scene: bpy.types.Scene, _: object = None) -> None:
    _move_source_eyes(blender_scene)


HANDLERS = (("frame_change_pre", _before_frame_change),)
