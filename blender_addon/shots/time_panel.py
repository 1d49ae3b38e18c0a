"""Sidebar: the time of the active shot, and presets for it."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..blender_types import Context, Operator, Panel, SidebarPanel
from ..cameras.pivots import pivot_of
from ..connection.panel import draw_text
from ..errors import reports_errors
from ..scenes.link import NeedsScene
from ..takes.requests import shot_range
from .objects import shot_objects
from .panel import EX4D_PT_shots
from .properties import DEFAULT_LABEL, active_shot, free_label, label_for, listed_shot
from .source_time import set_time_keys, source_frame_now, source_frames_of
from .time_presets import (
    Span,
    TimeCurve,
    freeze,
    freeze_within,
    orbiting_camera,
    ramp,
    reverse,
    slow_motion,
    span_of,
)

_PRESETS = (
    ("FREEZE", "Freeze", "Hold the current frame for the whole shot"),
    ("FREEZE_ORBIT", "Freeze and Orbit", "Play to the current frame, hold it while the camera orbits, and play on"),
    ("SLOW", "Slow Motion", "Play at an even, lower speed from the shot's first frame on"),
    ("RAMP", "Speed Ramp", "Slow down smoothly around the current frame"),
    ("REVERSE", "Reverse", "Play backwards"),
)


class EX4D_OT_retime_shot(NeedsScene, Operator):
    """Give the active shot a curve of time, to edit in the Graph Editor."""

    bl_idname = "ex4d.retime_shot"
    bl_label = "Retime Shot"
    bl_options = {"REGISTER", "UNDO"}

    preset: bpy.props.EnumProperty(name="Time", description="How time runs", items=_PRESETS, default="FREEZE")
    speed: bpy.props.FloatProperty(
        name="Speed", description="Speed of the slow part", default=0.5, min=0.01, max=4.0, subtype="FACTOR"
    )
    hold: bpy.props.IntProperty(
        name="Hold", description="Number of frames for which time stands still", default=48, min=2, soft_max=500
    )
    degrees: bpy.props.FloatProperty(
        name="Orbit",
        description="Degrees by which the camera orbits meanwhile; less than a whole turn keeps its angle afterwards",
        default=30.0,
        soft_min=-360.0,
        soft_max=360.0,
    )

    def draw(self, context: Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "preset")
        if self.preset in ("SLOW", "RAMP"):
            layout.prop(self, "speed")
        if self.preset == "FREEZE_ORBIT":
            layout.prop(self, "hold")
            layout.prop(self, "degrees")

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        scene = context.scene
        scene_object, _ = shot_objects(context)
        assert scene_object is not None  # polled
        shot = listed_shot(scene)
        span = span_of(scene_object, *shot_range(scene, scene_object), scene.frame_current)
        curve = self._curve(span)
        if curve.last != span.last:
            shot.use_range, shot.frame_start, shot.frame_end = True, span.first, curve.last
            scene.frame_end = max(scene.frame_end, curve.last)
        set_time_keys(shot, curve.keys, curve.interpolation)
        if self.preset == "FREEZE_ORBIT":
            shown = source_frames_of(shot, scene_object, span.first, curve.last)
            assert shown is not None  # it has just got its curve
            pivot = pivot_of(scene_object, context)
            shot.camera = orbiting_camera(scene_object, span, self.hold, shown, self.degrees, pivot)
            if shot.label == DEFAULT_LABEL:
                shot.label = free_label(scene, label_for(shot.camera), besides=shot)
            scene.camera = shot.camera
        return {"FINISHED"}

    def _curve(self, span: Span) -> TimeCurve:
        if self.preset == "FREEZE_ORBIT":
            return freeze_within(span, self.hold)
        if self.preset == "SLOW":
            return slow_motion(span, self.speed)
        if self.preset == "RAMP":
            return ramp(span, self.speed)
        return freeze(span) if self.preset == "FREEZE" else reverse(span)


class EX4D_PT_shot_time(SidebarPanel, Panel):
    """Which moments of the footage the shot shows."""

    bl_label = "Time"
    bl_parent_id = EX4D_PT_shots.__name__
    bl_options = {"DEFAULT_CLOSED"}

    def draw_header(self, context: Context) -> None:
        self.layout.prop(active_shot(context.scene), "use_source_frame", text="")

    def draw(self, context: Context) -> None:
        layout, shot = self.layout, active_shot(context.scene)
        layout.operator_menu_enum(EX4D_OT_retime_shot.bl_idname, "preset", text="Presets", icon="TIME")
        column = layout.column()
        column.active = shot.use_source_frame
        row = column.row(align=True)
        row.prop(shot, "source_frame")
        row.prop_decorator(shot, "source_frame")  # the dot that inserts keys
        scene_object, _ = shot_objects(context)
        if shot.use_source_frame and scene_object is not None:
            shown = source_frame_now(shot, scene_object, context.scene.frame_current)
            text = iface_("Nearest frame of the footage: {frame}").format(frame=shown + 1)
            draw_text(column, text, context)


CLASSES = (EX4D_OT_retime_shot, EX4D_PT_shot_time)
