"""Side bar: footage to reconstruct, and how that goes."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..connection.panel import CATEGORY, draw_text
from ..connection.session import session
from ..scenes.panel import EX4D_PT_scene
from .operators import (
    EX4D_OT_cancel_reconstruction,
    EX4D_OT_forget_reconstruction,
    EX4D_OT_reconstruct,
    EX4D_OT_resume_reconstruction,
    EX4D_OT_use_movie_strip,
    can_cancel,
    can_resume,
)
from .properties import EX4D_Reconstruction

_ICONS = {"imported": "CHECKMARK", "failed": "ERROR", "stopped": "ERROR", "cancelled": "X", "running": "PLAY"}


class EX4D_PT_footage(bpy.types.Panel):
    bl_label = "From Footage"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY
    bl_parent_id = EX4D_PT_scene.__name__
    bl_order = 0

    def draw(self, context: bpy.types.Context) -> None:
        layout, settings = self.layout, context.scene.ex4d_footage
        row = layout.row(align=True)
        row.prop(settings, "footage", text="", placeholder="Video, or drop it here")
        row.operator(EX4D_OT_use_movie_strip.bl_idname, text="", icon="SEQUENCE")
        if bpy.data.movieclips:
            layout.prop(settings, "clip", text="Clip")
        layout.prop(settings, "depth_from", expand=True)
        if settings.depth_from == "FILES":
            layout.prop(settings, "depth", text="", placeholder="Depth: .npz, EXR or PNG")
        else:
            layout.prop(settings, "estimator")
        layout.operator(EX4D_OT_reconstruct.bl_idname, icon="MOD_REMESH")
        for entry in reversed(context.scene.ex4d_reconstructions):
            if entry.state != "imported":
                _draw_reconstruction(layout.box(), entry, context)


class EX4D_PT_footage_options(bpy.types.Panel):
    bl_label = "Depth and Camera"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY
    bl_parent_id = EX4D_PT_footage.__name__
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012 - Blender wants a plain set here

    def draw(self, context: bpy.types.Context) -> None:
        layout, settings = self.layout, context.scene.ex4d_footage
        layout.use_property_split = True
        layout.use_property_decorate = False
        if settings.depth_from == "FILES":
            _optional(layout, settings, "use_scale", "scale", "Depth Scale")
            if not settings.use_mist:
                layout.prop(settings, "inverse")
            layout.prop(settings, "far")
            layout.prop(settings, "use_mist")
            if settings.use_mist:
                column = layout.column(align=True)
                column.prop(settings, "mist_start")
                column.prop(settings, "mist_depth", text="Depth")
                column.prop(settings, "mist_falloff")
        _optional(layout, settings, "use_fov", "fov", "Field of View")
        layout.prop(settings, "camera", placeholder="Stood still")
        if settings.camera:
            layout.prop(settings, "camera_scale")


def _optional(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup, use: str, name: str, text: str) -> None:
    row = layout.row(align=True, heading=text)
    row.prop(settings, use, text="")
    value = row.row(align=True)
    value.enabled = getattr(settings, use)
    value.prop(settings, name, text="")


def _draw_reconstruction(layout: bpy.types.UILayout, entry: EX4D_Reconstruction, context: bpy.types.Context) -> None:
    row = layout.row(align=True)
    row.label(text=f"{entry.label}: {iface_(entry.state)}", translate=False, icon=_ICONS.get(entry.state, "SORTTIME"))
    if can_resume(entry):
        row.operator(EX4D_OT_resume_reconstruction.bl_idname, text="", icon="FILE_REFRESH").key = entry.key
    if can_cancel(entry):
        row.operator(EX4D_OT_cancel_reconstruction.bl_idname, text="", icon="CANCEL").key = entry.key
        layout.progress(factor=entry.progress, type="BAR", text=progress_text(entry))
    else:
        row.operator(EX4D_OT_forget_reconstruction.bl_idname, text="", icon="TRASH").key = entry.key
    if entry.reason:
        draw_text(layout, entry.reason, context)


def progress_text(entry: EX4D_Reconstruction) -> str:
    """What a reconstruction under way is at, in a few words."""
    if entry.cancelling:
        return iface_("cancelling")
    if not session().connected and entry.stage != "reading":
        return iface_("waiting for the backend")
    return f"{iface_(entry.stage or entry.state)} {entry.progress:.0%}"


CLASSES = (EX4D_PT_footage, EX4D_PT_footage_options)
