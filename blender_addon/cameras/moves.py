"""Moves that stay adjustable: a camera keeps how its move was made, and its keys follow until the artist edits them.

``Object.ex4d_move`` is filled on cameras that `cameras.presets` makes. Panel and gizmos change it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Any, Literal

import bpy
import mathutils
import numpy as np
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.cameras import CameraError, invert_rigid
from ex4d_core.errors import RequestError
from ex4d_core.pivots import Pivot
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError
from ex4d_core.trajectories import PRESETS, Trajectory, has_pivot, is_degrees, pivot_in_view, shot_path

from ..blender_types import Context, Operator
from ..errors import reports_errors
from ..scenes.link import is_scene_object, link_of, open_scene
from .keyframes import animate_with_few_keys, clear_keys, curves_of
from .pivots import pivot_of

EASING_ITEMS = (
    ("linear", "Linear", "Move at a constant speed"),
    ("ease_in", "Ease In", "Start gently"),
    ("ease_out", "Ease Out", "Stop gently"),
    ("ease_in_out", "Ease In and Out", "Start and stop gently"),
)
# The direction of moves by a distance, in the source camera's axes (x right, y down, z forward); None leads to the
# pivot, or away from it.
_DIRECTIONS = {
    "dolly_in": None,
    "dolly_out": None,
    "dolly_zoom": (0.0, 0.0, 1.0),
    "truck": (1.0, 0.0, 0.0),
    "pedestal": (0.0, -1.0, 0.0),
    "crane": (0.0, -1.0, 0.0),
}
# EX-4D's ellipse: a path of its own, and no arc of so many degrees.
_ELLIPSE = 180.0


def _rebuild(move: Any, _: bpy.types.Context) -> None:
    if move.preset and not has_edited_keys(move.id_data):
        rebuild(move.id_data)


def _get_angle(move: Any) -> float:
    return math.radians(move.amount)


def _set_angle(move: Any, value: float) -> None:
    move.amount = math.degrees(value)


def _get_reach(move: Any) -> float:
    return move.amount * _unit_of(move)


def _set_reach(move: Any, value: float) -> None:
    move.amount = value / _unit_of(move)


class EX4D_Move(bpy.types.PropertyGroup):
    """How a camera's move was made."""

    preset: bpy.props.StringProperty(description="Kind of move; empty on other cameras")
    amount: bpy.props.FloatProperty(
        name="Amount",
        description="Distance of the move: degrees, a fraction of the subject's distance, or a focal length factor",
        update=_rebuild,
    )
    angle: bpy.props.FloatProperty(
        name="Angle",
        description="Angle of the move, positive to the right",
        subtype="ANGLE",
        get=_get_angle,
        set=_set_angle,
    )
    reach: bpy.props.FloatProperty(
        name="Distance",
        description="Distance that the camera moves",
        subtype="DISTANCE",
        get=_get_reach,
        set=_set_reach,
    )
    elevation: bpy.props.FloatProperty(
        name="Elevation",
        description="Degrees by which arcs and orbits also rise",
        min=-89.0,
        max=89.0,
        soft_min=-60.0,
        soft_max=60.0,
        update=_rebuild,
    )
    easing: bpy.props.EnumProperty(
        name="Easing", description="How the move starts and ends", items=EASING_ITEMS, update=_rebuild
    )
    frame_start: bpy.props.IntProperty(description="Blender frame at which the move starts")
    frames: bpy.props.IntProperty(description="Number of frames in the move")
    first_frame: bpy.props.IntProperty(
        description="Frame of the footage, from 0, whose camera the move starts at; -1 for that of its first frame",
        default=-1,
    )
    distance: bpy.props.FloatProperty(description="Distance of the pivot along the camera's axis, in scene units")
    pivot: bpy.props.FloatVectorProperty(
        description="What the move is about, in the axes of the camera at the start, in scene units; 0 in older files, "
        "whose moves have it straight ahead",
        size=3,
    )
    start: bpy.props.FloatVectorProperty(description="Camera-to-world at the start, in the scene's world", size=16)
    keys: bpy.props.StringProperty(description="Digest of the keys that the move was given")
    problem: bpy.props.StringProperty(description="Why the keys do not follow")


def move_of(camera: bpy.types.Object | None) -> EX4D_Move | None:
    """How a camera's move was made; None for other objects, and where its scene is gone."""
    if camera is None or camera.type != "CAMERA":
        return None
    move: EX4D_Move = camera.ex4d_move  # pyright: ignore[reportAttributeAccessIssue]
    return move if move.preset and is_scene_object(camera.parent) else None


def note_move(
    camera: bpy.types.Object,
    trajectory: Trajectory,
    package: Scene,
    *,
    frame_start: int,
    frames: int,
    first_frame: int,
) -> None:
    """Keep on a camera how its move was made.

    Args:
        camera: was animated with the move.
        trajectory: the move.
        package: the opened scene.
        frame_start: Blender frame at which the move starts.
        frames: its length.
        first_frame: of the footage, from 0, whose camera the move starts at.
    """
    move: Any = camera.ex4d_move  # pyright: ignore[reportAttributeAccessIssue]
    move.preset = ""  # so that setting the rest rebuilds nothing
    amount = float(trajectory.preset) if is_degrees(trajectory.preset) else trajectory.amount
    move.amount = PRESETS[trajectory.preset][2] if amount is None else amount
    move.elevation, move.easing = trajectory.elevation, trajectory.easing
    move.frame_start, move.frames, move.first_frame = frame_start, frames, first_frame
    move.start = invert_rigid(package.source_camera().world_to_camera[first_frame]).ravel().tolist()
    _note_pivot(move, pivot_in_view(trajectory, package, first_frame))
    move.preset, move.keys, move.problem = trajectory.preset, digest_of_keys(camera), ""


def trajectory_of(move: EX4D_Move) -> Trajectory:
    """The move with its amounts of now.

    Raises:
        RequestError: an amount that no move has.
    """
    if is_degrees(move.preset):
        return Trajectory(f"{move.amount:g}", None, move.elevation, move.easing)
    trajectory = Trajectory(move.preset, move.amount, move.elevation, move.easing)
    return replace(trajectory, pivot=_pivot_of(move)) if has_pivot(move.preset) else trajectory


def move_around(camera: bpy.types.Object, pivot: Pivot) -> None:
    """Make a camera's move again around another pivot; what prevents that is kept as the problem.

    Raises:
        RequestError: the pivot is not in front of the camera at the start of the move.
        SceneError: the scene package is missing or changed.
    """
    move: Any = move_of(camera)
    _note_pivot(move, pivot.in_view(open_scene(camera.parent), _first_frame_of(camera)))
    rebuild(camera)


def rebuild(camera: bpy.types.Object) -> None:
    """Give a camera the keys of its move, in place of any that it has; what prevents that is kept as the problem."""
    move = move_of(camera)
    if move is None:
        return
    try:
        package, first = open_scene(camera.parent), _first_frame_of(camera)
        path = shot_path(trajectory_of(move), package, frames=move.frames, first_frame=first)
    except (CameraError, RequestError, SceneError) as error:
        move.problem = str(error)
        return
    for owner in (camera, camera.data):
        clear_keys(owner)
    animate_with_few_keys(camera, path, move.frame_start)
    for owner in (camera, camera.data):
        if owner.animation_data is not None and owner.animation_data.action is not None:
            owner.animation_data.action.update_tag()
        owner.update_tag()
    move.keys, move.problem = digest_of_keys(camera), ""


def digest_of_keys(camera: bpy.types.Object) -> str:
    """A digest of all keys of a camera and its data, to tell whether somebody has edited them."""
    digest = hashlib.sha256()
    for curve in (*curves_of(camera), *curves_of(camera.data)):
        digest.update(f"{curve.data_path}[{curve.array_index}]".encode())
        for name in ("co", "handle_left", "handle_right"):
            values = np.empty(2 * len(curve.keyframe_points), dtype=np.float32)
            curve.keyframe_points.foreach_get(name, values)
            digest.update(values.tobytes())
    return digest.hexdigest()


def has_edited_keys(camera: bpy.types.Object) -> bool:
    """Whether the keys of a camera are no longer those of its move."""
    return digest_of_keys(camera) != camera.ex4d_move.keys  # pyright: ignore[reportAttributeAccessIssue]


def measure_of(move: EX4D_Move) -> Literal["ANGLE", "DISTANCE", ""]:
    """What the amount of a move measures; "" for a zoom, and for EX-4D's ellipse."""
    if move.preset == "orbit" or (is_degrees(move.preset) and abs(float(move.preset)) != _ELLIPSE):
        return "ANGLE"
    return "DISTANCE" if move.preset in _DIRECTIONS else ""


def handle_of(camera: bpy.types.Object, move: EX4D_Move) -> mathutils.Matrix:
    """Where the handle of a move is in Blender's world, without scale.

    That of a distance starts at the source camera and points along z; that of an angle turns around the pivot, at the
    source camera's height, with the source camera on its y axis and up on its z axis.
    """
    start = camera.parent.matrix_world @ _start_of(move)
    pivot = _pivot_in_view(move)
    if measure_of(move) == "ANGLE":
        flat = mathutils.Vector((pivot.x, 0.0, pivot.z))
        place = start @ flat
        turn = start.to_3x3().normalized()
        up, back = -turn.col[1], -(turn @ flat.normalized())
        axes = (back.cross(up), back, up)
    else:
        place = start.translation
        direction = _DIRECTIONS[move.preset] or (-pivot if move.preset == "dolly_out" else pivot)
        along = start.to_3x3() @ mathutils.Vector(direction)
        axes = along.to_track_quat("Z", "Y").to_matrix().col
    matrix = mathutils.Matrix((*axes,)).transposed().to_4x4()
    matrix.translation = place
    return matrix


def radius_of(camera: bpy.types.Object, move: EX4D_Move) -> float:
    """How far a camera that turns around the pivot stays from its vertical axis, in Blender's units."""
    pivot = _pivot_in_view(move)
    return math.hypot(pivot.x, pivot.z) * camera.parent.matrix_world.median_scale


def _unit_of(move: Any) -> float:
    """What an amount of 1 is in Blender's units, for moves by a distance."""
    if not is_scene_object(move.id_data.parent):
        return 1.0
    pivot = _pivot_in_view(move)
    return (pivot.z if move.preset == "dolly_zoom" else pivot.length) * move.id_data.parent.matrix_world.median_scale


def _note_pivot(move: Any, pivot: np.ndarray) -> None:
    move.pivot, move.distance = pivot.tolist(), pivot[2]


def _pivot_in_view(move: EX4D_Move) -> mathutils.Vector:
    """The pivot of a move in the axes of the camera at its start."""
    pivot = mathutils.Vector(move.pivot)
    return pivot if pivot.z > 0 else mathutils.Vector((0.0, 0.0, move.distance))


def _pivot_of(move: EX4D_Move) -> Pivot:
    pivot = _pivot_in_view(move)
    # Straight ahead a distance stays exactly there, while a point is rounded to Blender's 32 bits.
    return Pivot(tuple(_start_of(move) @ pivot)) if pivot.xy.length else Pivot((pivot.z,))


def _start_of(move: EX4D_Move) -> mathutils.Matrix:
    """Camera-to-world at the start of a move, in the scene's world."""
    return mathutils.Matrix(np.array(move.start).reshape(4, 4).tolist())


def _first_frame_of(camera: bpy.types.Object) -> int:
    """Frame of the footage, from 0, at which a camera's move starts."""
    move: Any = camera.ex4d_move  # pyright: ignore[reportAttributeAccessIssue]
    if move.first_frame < 0:  # a file of before it was kept
        return move.frame_start - link_of(camera.parent).frame_start
    return move.first_frame


class EX4D_OT_move_around_pivot(Operator):
    """Make the active shot's move again around the pivot of its scene."""

    bl_idname = "ex4d.move_around_pivot"
    bl_label = "Move Around Pivot"
    bl_options = {"REGISTER", "UNDO"}

    camera: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        camera = context.scene.objects.get(self.camera)
        move = move_of(camera)
        if camera is None or move is None or not has_pivot(move.preset):
            self.report({"ERROR"}, iface_("This camera has no move of EX-4D"))
            return {"CANCELLED"}
        if has_edited_keys(camera):
            self.report({"ERROR"}, iface_("The keys of {camera} were edited").format(camera=camera.name))
            return {"CANCELLED"}
        move_around(camera, pivot_of(camera.parent, context))
        if move.problem:
            self.report({"ERROR"}, move.problem)
            return {"CANCELLED"}
        return {"FINISHED"}


class EX4D_OT_reset_move(Operator):
    """Replace the edited keys of the active shot's camera by those of its move."""

    bl_idname = "ex4d.reset_move"
    bl_label = "Reset Keys to Move"
    bl_options = {"REGISTER", "UNDO"}

    camera: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: Context) -> set[str]:
        camera = context.scene.objects.get(self.camera)
        move = move_of(camera)
        if camera is None or move is None:
            self.report({"ERROR"}, iface_("This camera has no move of EX-4D"))
            return {"CANCELLED"}
        rebuild(camera)
        if move.problem:
            self.report({"ERROR"}, move.problem)
            return {"CANCELLED"}
        return {"FINISHED"}


CLASSES = (EX4D_Move, EX4D_OT_move_around_pivot, EX4D_OT_reset_move)
PROPERTIES = ((bpy.types.Object, "ex4d_move", bpy.props.PointerProperty(type=EX4D_Move)),)
