"""Operators that add cameras."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.errors import RequestError
from ex4d_core.trajectories import PRESETS, Trajectory, has_pivot

from ..blender_types import Context, Operator, OperatorMixin, ops
from ..errors import reports_errors
from ..scenes.link import NeedsScene, chosen_scene_object
from ..shots.objects import shot_objects
from ..shots.properties import active_shot, add_shot, listed_shot
from ..shots.source_time import source_frames_of
from ..takes.requests import shot_range
from ..translations import CONTEXT
from .moves import EASING_ITEMS
from .pivots import pivot_of
from .presets import camera_from_preset, reversed_move
from .saved_moves import read_preset
from .selection import select_alone
from .viewport_moves import camera_to_view

_PRESET_ITEMS = tuple(
    (name, f"Arc {name}°" if name.isdigit() else name.replace("_", " ").title(), does)
    for name, (does, _, _) in PRESETS.items()
)


class AddsCamera(NeedsScene, OperatorMixin):
    """An operator that adds a camera for the active shot."""

    # Never remembered: the next move is a new shot again.
    replace: bpy.props.BoolProperty(
        name="Replace Camera of Shot",
        description="Give this camera to the active shot instead of adding a shot; the old camera stays in the file",
        default=False,
        options={"SKIP_SAVE"},
    )

    def use(self, context: Context, camera: bpy.types.Object) -> None:
        """Make a shot of a camera, or give it to the active one if that has none; look through it, and select it."""
        shot = listed_shot(context.scene)
        if self.replace or not (shot.use_active_camera or shot.camera is not None):
            shot.camera = camera
        else:
            add_shot(context.scene, camera)
        select_alone(context, camera)


def time_of_move(context: Context, scene_object: bpy.types.Object) -> dict[str, Any]:
    """Where a move through a scene starts and what it shows: a retimed shot's range and moments, else all footage."""
    if shot_objects(context)[0] != scene_object:
        return {}
    first, last = shot_range(context.scene, scene_object)
    shown = source_frames_of(active_shot(context.scene), scene_object, first, last)
    return {} if shown is None else {"frame_start": first, "shown": shown}


class EX4D_OT_add_camera(AddsCamera, Operator):
    """Add a camera that moves away from the source camera's view, with keyframes to edit."""

    bl_idname = "ex4d.add_camera"
    bl_label = "Add Camera Move"
    bl_options = {"REGISTER", "UNDO", "PRESET"}

    preset: bpy.props.EnumProperty(
        name="Move",
        description="Kind of camera move",
        items=_PRESET_ITEMS,
        default="30",
        translation_context=CONTEXT,
    )
    other_way: bpy.props.BoolProperty(
        name="Reverse", description="Move left instead of right, down instead of up, out instead of in", default=False
    )
    use_amount: bpy.props.BoolProperty(name="Custom Amount", description="Set how far the camera moves", default=False)
    amount: bpy.props.FloatProperty(
        name="Amount",
        description="Distance of the move: degrees, a fraction of the subject's distance, or a focal length factor",
        default=0.3,
    )
    elevation: bpy.props.FloatProperty(
        name="Elevation",
        description="Degrees by which arcs and orbits also rise",
        default=0.0,
        soft_min=-60.0,
        soft_max=60.0,
    )

    easing: bpy.props.EnumProperty(
        name="Easing", description="How the move starts and ends", items=EASING_ITEMS, default="linear"
    )

    def draw(self, context: Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "preset")
        layout.prop(self, "other_way")
        _, meaning, _ = PRESETS[self.preset]
        if meaning != "unused":
            layout.prop(self, "use_amount")
            if self.use_amount:
                layout.prop(self, "amount", text=meaning.split()[0].capitalize())
        if self.preset.isdigit() or self.preset == "orbit":
            layout.prop(self, "elevation")
        layout.prop(self, "easing")
        layout.prop(self, "replace")

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        scene_object = chosen_scene_object(context)
        trajectory = Trajectory(self.preset, self.amount if self.use_amount else None, self.elevation, self.easing)
        if has_pivot(self.preset):
            trajectory = replace(trajectory, pivot=pivot_of(scene_object, context))
        if self.other_way:
            trajectory = reversed_move(trajectory)
        self.use(context, camera_from_preset(scene_object, trajectory, **time_of_move(context, scene_object)))
        return {"FINISHED"}


class EX4D_OT_camera_to_view(AddsCamera, Operator):
    """Add a camera that moves from the source camera's view to this viewport's view."""

    bl_idname = "ex4d.camera_to_view"
    bl_label = "Move to This View"
    bl_options = {"REGISTER", "UNDO"}

    easing: bpy.props.EnumProperty(
        name="Easing", description="How the move starts and ends", items=EASING_ITEMS, default="ease_in_out"
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        view = context.region_data
        if view is None:
            cls.poll_message_set(iface_("Use this in a 3D viewport"))
            return False
        if view.view_perspective == "ORTHO":
            cls.poll_message_set(iface_("The viewport is orthographic; press Numpad 5 to switch to perspective"))
            return False
        return super().poll(context)

    def draw(self, context: Context) -> None:
        self.layout.use_property_split = True
        self.layout.prop(self, "easing")
        self.layout.prop(self, "replace")

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        assert context.region_data is not None  # polled
        view_to_world = context.region_data.view_matrix.inverted()
        scene_object = chosen_scene_object(context)
        times = time_of_move(context, scene_object)
        self.use(context, camera_to_view(scene_object, view_to_world, self.easing, **times))
        return {"FINISHED"}


class EX4D_OT_add_saved_camera(NeedsScene, Operator):
    """Add a camera with this saved move."""

    bl_idname = "ex4d.add_saved_camera"
    bl_label = "Add Saved Camera Move"
    bl_options = {"UNDO"}

    filepath: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        known = {*EX4D_OT_add_camera.__annotations__, *AddsCamera.__annotations__}
        settings = read_preset(Path(self.filepath), known)
        try:
            return ops.ex4d.add_camera(**settings)
        except TypeError as error:  # a value that the operator does not take
            raise RequestError(f"the saved move {self.filepath} is invalid: {error}; save it again") from error


CLASSES = (EX4D_OT_add_camera, EX4D_OT_camera_to_view, EX4D_OT_add_saved_camera)
