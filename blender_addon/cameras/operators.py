"""Operators on cameras."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.trajectories import EASINGS, PRESETS, Trajectory

from ..errors import reports_errors
from ..scenes.link import NeedsScene, active_scene_object
from ..shots.properties import DEFAULT_LABEL, active_shot, add_shot, free_label, label_for, listed_shot
from .presets import camera_from_preset, turned_round
from .saved import PresetError, read_preset
from .views import camera_to_view

_PRESET_ITEMS = tuple(
    (name, f"Arc {name}°" if name.isdigit() else name.replace("_", " ").title(), does)
    for name, (does, _, _) in PRESETS.items()
)
_EASING_ITEMS = tuple((name, name.replace("_", " ").title(), "How the move starts and ends") for name in EASINGS)


class _AddsCamera(NeedsScene):
    """An operator that makes a camera for the active shot."""

    easing: bpy.props.EnumProperty(
        name="Easing", description="How the move starts and ends", items=_EASING_ITEMS, default="linear"
    )
    new_shot: bpy.props.BoolProperty(
        name="As New Shot",
        description="Add a shot for this camera, instead of giving it to the active shot",
        default=False,
    )

    def use(self, context: bpy.types.Context, camera: bpy.types.Object) -> None:
        """Shoot with a camera, and look through it."""
        scene = context.scene
        if self.new_shot and (scene.ex4d_shots or active_shot(scene).camera is not None):
            listed_shot(scene)
            add_shot(scene, camera)
        else:
            shot = listed_shot(scene)
            shot.camera = camera
            if shot.label == DEFAULT_LABEL:
                shot.label = free_label(scene, label_for(camera), besides=shot)
        scene.camera = camera


class EX4D_OT_add_camera(_AddsCamera, bpy.types.Operator):
    bl_idname = "ex4d.add_camera"
    bl_label = "Add Camera Move"
    bl_description = "Add a camera that starts at the source camera's view and makes a move, as keyframes to go on with"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO", "PRESET"}

    preset: bpy.props.EnumProperty(name="Move", description="What the camera does", items=_PRESET_ITEMS, default="30")
    other_way: bpy.props.BoolProperty(
        name="Other Way", description="Go left instead of right, down instead of up, out instead of in", default=False
    )
    use_amount: bpy.props.BoolProperty(name="Own Amount", description="Choose how far the move goes", default=False)
    amount: bpy.props.FloatProperty(
        name="Amount", description="How far: degrees, a share of the subject's distance, or a lens factor", default=0.3
    )
    elevation: bpy.props.FloatProperty(
        name="Elevation",
        description="Degrees by which arcs and orbits also climb",
        default=0.0,
        soft_min=-60.0,
        soft_max=60.0,
    )

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "preset")
        layout.prop(self, "other_way")
        _, meaning, _ = PRESETS[self.preset]
        if meaning != "unused":
            layout.prop(self, "use_amount")
            if self.use_amount:
                layout.prop(self, "amount", text=meaning.split(",")[0].capitalize())
        if self.preset.isdigit() or self.preset == "orbit":
            layout.prop(self, "elevation")
        layout.prop(self, "easing")
        layout.prop(self, "new_shot")

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        scene_object = active_scene_object(context)
        trajectory = Trajectory(self.preset, self.amount if self.use_amount else None, self.elevation, self.easing)
        if self.other_way:
            trajectory = turned_round(trajectory)
        camera = camera_from_preset(scene_object, trajectory)
        self.use(context, camera)
        return {"FINISHED"}


class EX4D_OT_camera_to_view(_AddsCamera, bpy.types.Operator):
    bl_idname = "ex4d.camera_to_view"
    bl_label = "Move to This View"
    bl_description = "Add a camera that goes from the source camera's view to what this viewport shows"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    easing: bpy.props.EnumProperty(
        name="Easing", description="How the move starts and ends", items=_EASING_ITEMS, default="ease_in_out"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        view = context.region_data
        if view is None:
            cls.poll_message_set(iface_("Use this in a 3D viewport"))
            return False
        if view.view_perspective == "ORTHO":
            cls.poll_message_set(
                iface_("This viewport is orthographic: press Numpad 5 for a view that a camera can have")
            )
            return False
        return super().poll(context)

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.use_property_split = True
        self.layout.prop(self, "easing")
        self.layout.prop(self, "new_shot")

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        view_to_world = context.region_data.view_matrix.inverted()
        camera = camera_to_view(active_scene_object(context), view_to_world, self.easing)
        self.use(context, camera)
        return {"FINISHED"}


class EX4D_OT_add_saved_camera(NeedsScene, bpy.types.Operator):
    bl_idname = "ex4d.add_saved_camera"
    bl_label = "Add Saved Camera Move"
    bl_description = "Add a camera that makes this saved move"
    bl_options: ClassVar[set[str]] = {"UNDO"}

    filepath: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: bpy.types.Context) -> set[str]:
        known = {*EX4D_OT_add_camera.__annotations__, *_AddsCamera.__annotations__}
        try:
            return bpy.ops.ex4d.add_camera(**read_preset(Path(self.filepath), known))
        except (PresetError, TypeError) as error:  # TypeError: a value that the operator does not take
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}


CLASSES = (EX4D_OT_add_camera, EX4D_OT_camera_to_view, EX4D_OT_add_saved_camera)
