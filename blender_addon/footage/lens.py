"""The lens of the footage: what will be used, and another one for a scene that is there already."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.cameras import CameraError

from ..blender_types import Context, Operator
from ..errors import reports_errors
from ..jobs.records import records_of
from ..paths import from_blend
from ..scenes.link import NeedsScene, chosen_scene_object, link_of
from .properties import (
    DEFAULT_FOCAL_MM,
    FOCAL_DESCRIPTION,
    FULL_FRAME_MM,
    LENS_UNITS,
    RECONSTRUCTIONS,
    SENSOR_DESCRIPTION,
    EX4D_Reconstruction,
)
from .scene_jobs import start_reconstruction
from .sources import lens_fields, plan_from_text


class EX4D_OT_set_lens(NeedsScene, Operator):
    """Reconstruct this scene again with another lens, beside the one that is there.

    The lens decides how depth becomes space, so the scene must be made again.
    """

    bl_idname = "ex4d.set_lens"
    bl_label = "Set Lens and Reconstruct"
    bl_options = {"UNDO"}

    lens_unit: bpy.props.EnumProperty(name="Lens Unit", description="How the lens is given", items=LENS_UNITS)
    fov: bpy.props.FloatProperty(
        name="Field of View",
        description="Horizontal field of view of the footage",
        subtype="ANGLE",
        default=math.radians(50.0),
        min=0.02,
        max=3.1,
    )
    focal_mm: bpy.props.FloatProperty(
        name="Focal Length",
        description=FOCAL_DESCRIPTION,
        default=DEFAULT_FOCAL_MM,
        min=1.0,
        soft_max=500.0,
        precision=2,
    )
    sensor_mm: bpy.props.FloatProperty(
        name="Sensor Width", description=SENSOR_DESCRIPTION, default=FULL_FRAME_MM, min=1.0, soft_max=100.0, precision=2
    )

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not super().poll(context):
            return False
        if record_of(chosen_scene_object(context)) is None:
            text = (
                "This scene was not reconstructed in this file; choose its footage in From Footage, and set Custom Lens"
            )
            cls.poll_message_set(iface_(text))
            return False
        return True

    def invoke(self, context: Context, event: bpy.types.Event) -> set[str]:
        camera = link_of(chosen_scene_object(context)).source_camera
        if camera is not None and isinstance(camera.data, bpy.types.Camera):
            self.fov = camera.data.angle_x
            # Imported cameras fit their sensor to the width; the settings mean the longer side.
            self.focal_mm, self.sensor_mm = camera.data.lens, max(camera.data.sensor_width, camera.data.sensor_height)
        return context.window_manager.invoke_props_dialog(self, confirm_text=self.bl_label)

    def draw(self, context: Context) -> None:
        draw_lens_fields(self.layout, self)

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        record = record_of(chosen_scene_object(context))
        if record is None:
            raise CameraError("the reconstruction of this scene is no longer listed in the file; start it again")
        plan = plan_from_text(record.plan)
        none = {"fov_degrees": None, "focal_mm": None, "focal_px": None}
        settings = replace(plan.settings, **{**none, **lens_fields(self)})
        start_reconstruction(replace(plan, settings=settings), context.scene)
        return {"FINISHED"}


def record_of(scene_object: bpy.types.Object) -> EX4D_Reconstruction | None:
    """The reconstruction that an imported scene came from; None if the file does not list it."""
    folder = from_blend(link_of(scene_object).folder, scene_object.library)
    return next((one for _, one in records_of(RECONSTRUCTIONS) if one.plan and from_blend(one.folder) == folder), None)


def lens_text(settings: Any) -> str:
    """What the lens of the next reconstruction will be, for the panel."""
    if settings.use_fov and settings.lens_unit == "MILLIMETERS":
        text = iface_("Lens: {focal} mm on {sensor} mm")
        return text.format(focal=f"{settings.focal_mm:.1f}", sensor=f"{settings.sensor_mm:g}")
    if settings.use_fov:
        return iface_("Lens: {degrees}°").format(degrees=f"{math.degrees(settings.fov):.1f}")
    if settings.camera_from == "SOLVE":
        return iface_("Lens: from the files, or else solved")
    if settings.camera:
        return iface_("Lens: from the camera file")
    return iface_("Lens: from the files, or else 50° assumed; set it in Depth and Camera")


def draw_lens_fields(layout: bpy.types.UILayout, settings: Any) -> None:
    """The fields of a lens: of the panel's settings, or of `EX4D_OT_set_lens`."""
    layout.row(align=True).prop(settings, "lens_unit", expand=True)
    if settings.lens_unit == "MILLIMETERS":
        layout.prop(settings, "focal_mm")
        layout.prop(settings, "sensor_mm")
    else:
        layout.prop(settings, "fov")


CLASSES = (EX4D_OT_set_lens,)
