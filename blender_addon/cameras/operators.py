"""Operators on cameras."""

from __future__ import annotations

from typing import ClassVar

import bpy

from ex4d_core.cameras import CameraError
from ex4d_core.scene import SceneError
from ex4d_core.trajectories import EASINGS, PRESETS, Trajectory, TrajectoryError

from ..scenes.link import active_scene_object
from .presets import camera_from_preset

_PRESET_ITEMS = tuple(
    (name, f"Arc {name}°" if name.isdigit() else name.replace("_", " ").title(), does)
    for name, (does, _, _) in PRESETS.items()
)
_EASING_ITEMS = tuple((name, name.replace("_", " ").title(), "How the move starts and ends") for name in EASINGS)


class EX4D_OT_add_camera(bpy.types.Operator):
    bl_idname = "ex4d.add_camera"
    bl_label = "Add Camera Move"
    bl_description = "Add a camera that starts at the source camera's view and makes a move, as keyframes to go on with"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    preset: bpy.props.EnumProperty(name="Move", description="What the camera does", items=_PRESET_ITEMS, default="30")
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
    easing: bpy.props.EnumProperty(
        name="Easing", description="How the move starts and ends", items=_EASING_ITEMS, default="linear"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if active_scene_object(context) is None:
            cls.poll_message_set("Select an imported EX-4D scene, or import one first")
            return False
        return True

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "preset")
        _, meaning, _ = PRESETS[self.preset]
        if meaning != "unused":
            layout.prop(self, "use_amount")
            if self.use_amount:
                layout.prop(self, "amount", text=meaning.split(",")[0].capitalize())
        layout.prop(self, "elevation")
        layout.prop(self, "easing")

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene_object = active_scene_object(context)
        try:
            trajectory = Trajectory(self.preset, self.amount if self.use_amount else None, self.elevation, self.easing)
            camera = camera_from_preset(scene_object, trajectory)
        except (SceneError, CameraError, TrajectoryError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        context.scene.camera = camera
        context.scene.ex4d_shot.camera = camera
        return {"FINISHED"}


CLASSES = (EX4D_OT_add_camera,)
